package broker

import (
	"time"

	"github.com/sidemount/sidemount/mount"
)

// Reason names what happened to a session, in the form of a Kubernetes event's reason.
type Reason string

const (
	// ClientStarted: the session's first client serves.
	ClientStarted Reason = "ClientStarted"
	// ClientFailed: a client ended or could not start.
	ClientFailed Reason = "ClientFailed"
	// ClientRestarted: a client serves again after another one.
	ClientRestarted Reason = "ClientRestarted"
	// ClientHung: a client does not answer and is being replaced.
	ClientHung Reason = "ClientHung"
	// ClientUpgraded: another agent's client has taken the session over, as Upgrade was asked to have it.
	ClientUpgraded Reason = "ClientUpgraded"
	// ClientUpgradeFailed: Upgrade has failed, and the session is with its old agent.
	ClientUpgradeFailed Reason = "ClientUpgradeFailed"
	// SessionRestored: broker and agent have found each other again; the client has served on meanwhile.
	SessionRestored Reason = "SessionRestored"
	// SessionLost: both holders were gone, no client has come back in Options.Orphan, or somebody else has ended the mount; it must be opened again.
	SessionLost Reason = "SessionLost"
	// SessionClosed: the session has ended in order.
	SessionClosed Reason = "SessionClosed"
)

// Event is a change of a session.
type Event struct {
	Session    mount.SessionID
	Volume     mount.VolumeID
	VolumeName string
	Reason     Reason
	// Cause is why the client before ended: "oom", "signal: killed", "exit status 1", "hung".
	Cause string
	// Pause is how long requests had to wait, for ClientRestarted and ClientUpgraded.
	Pause time.Duration
	// Message is for people.
	Message string
}

// emit tells the listener, one event at a time. The caller holds no lock.
func (b *Broker) emit(s *session, e Event) {
	if b.o.OnEvent == nil {
		return
	}
	e.Session, e.Volume, e.VolumeName = s.request.ID, s.request.Volume.ID, s.request.Volume.Name
	b.events.Lock()
	defer b.events.Unlock()
	b.o.OnEvent(e)
}
