package mount

// SessionID identifies a session on its node: lower-case letters, digits and dashes, at most 63 characters, so that it can
// be the name of a directory.
type SessionID string

// State is where a session is in its life:
//
//	Requested → Mounted → Attached ⇄ Orphaned → Closed
type State string

const (
	// Requested means that the intent is in the journal; nothing is mounted yet.
	Requested State = "Requested"
	// Mounted means that the mount exists and INIT is answered; no client has served yet, requests wait.
	Mounted State = "Mounted"
	// Attached means that a client serves the session.
	Attached State = "Attached"
	// Orphaned means that the last client has died; requests wait for the next one.
	Orphaned State = "Orphaned"
	// Closed means that the mount is gone. It is final.
	Closed State = "Closed"
)

// MemorySize is the size in bytes of a session's memory: an anonymous file that the broker makes and that outlives every client of the session. It is
// address space; only pages that have been written cost memory, and they count for the container that wrote them.
const MemorySize = 100 << 20
