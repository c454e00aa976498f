package broker

import (
	"context"
	"errors"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// Options of a broker.
type Options struct {
	// RunDir holds the sessions' sockets, one directory per session. It must be on a file system that keeps sockets and may
	// vanish at a reboot. Default /run/sidemount.
	RunDir string
	// StateDir holds the journal of sessions. It must survive a restart of the broker. Default /var/lib/sidemount/sessions.
	StateDir string
	// AgentPath is the agent's program on this host; the broker runs it to probe a mount. Required.
	AgentPath string
	// OnEvent is called on every change of a session, one call at a time, and must not block. nil: nobody listens.
	OnEvent func(Event)
	// Reconnect is how long a session may wait for its agent after a restart of the broker before it counts as lost.
	// Default 30 s.
	Reconnect time.Duration
	// Liveness is the pause between two checks whether a client hangs. Default 10 s.
	Liveness time.Duration
}

// Request asks for a session.
type Request struct {
	// ID names the session on this node.
	ID mount.SessionID
	// Target is the directory to mount at; it is created if it is missing.
	Target string
	// Volume is what the client will serve.
	Volume mount.Volume
	// UID and GID are those that the agent must have, and that the mount belongs to.
	UID, GID uint32
}

// Session is a snapshot of a session.
type Session struct {
	ID     mount.SessionID
	Volume mount.VolumeID
	// VolumeName is what the pod calls the volume.
	VolumeName string
	Target     string
	State      mount.State
	// Ready: a client serves and a real request has been answered since it does.
	Ready bool
	// Restarts counts the clients that were started after the first.
	Restarts int
	// Failure is why there is no client at the moment, nil if there is or if none has tried yet. It wraps mount.ErrConfig or
	// mount.ErrUnavailable where the client said so.
	Failure error
}

// Reason names what happened to a session, in the form of a Kubernetes event's reason.
type Reason string

const (
	// ClientStarted: the session's first client serves.
	ClientStarted Reason = "ClientStarted"
	// ClientFailed: a client ended or could not start.
	ClientFailed Reason = "ClientFailed"
	// ClientRestarted: a client serves again after another one.
	ClientRestarted Reason = "ClientRestarted"
	// SessionLost: both holders were gone; the mount has been aborted and must be opened again.
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
	// Pause is how long requests had to wait, for ClientRestarted.
	Pause time.Duration
	// Message is for people.
	Message string
}

// Broker holds the sessions of a node.
type Broker struct{}

// New checks the options and reads the journal.
func New(o Options) (*Broker, error) { return nil, errors.ErrUnsupported }

// Run restores the recorded sessions and serves agents until ctx ends. Sessions outlive it.
func (b *Broker) Run(ctx context.Context) error { return errors.ErrUnsupported }

// Open mounts the session, or returns the one that already has this ID.
func (b *Broker) Open(ctx context.Context, r Request) (Session, error) {
	return Session{}, errors.ErrUnsupported
}

// SocketDir is the directory to bind at /run/sidemount/session in the session's sidecar.
func (b *Broker) SocketDir(id mount.SessionID) string { return "" }

// Status returns the session as it is now, or mount.ErrNotFound.
func (b *Broker) Status(id mount.SessionID) (Session, error) { return Session{}, errors.ErrUnsupported }

// Sessions returns all sessions as they are now, ordered by ID.
func (b *Broker) Sessions() []Session { return nil }

// Wait returns when the session is ready, or with the client's own failure when ctx ends.
func (b *Broker) Wait(ctx context.Context, id mount.SessionID) error { return errors.ErrUnsupported }

// Close lets the client flush, ends it and unmounts. After grace the connection is aborted. Unknown sessions are closed already.
func (b *Broker) Close(ctx context.Context, id mount.SessionID, grace time.Duration) error {
	return errors.ErrUnsupported
}
