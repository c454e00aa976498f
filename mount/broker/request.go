package broker

import (
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/wire"
)

// Request asks for a session.
type Request struct {
	// ID names the session on this node.
	ID mount.SessionID
	// Target is the directory to mount at, an absolute path; it is created if it is missing.
	Target string
	// Volume is what the client will serve.
	Volume mount.Volume
	// UID and GID are those that the agent must have, and that the mount belongs to.
	UID, GID uint32
	// Generation is that of the agent that may have the session first. Default 0.
	Generation int
}

// check refuses what could not work, or could reach outside of the session's own places.
func (r Request) check() error {
	if !validID(r.ID) {
		return fmt.Errorf("session id %q is not made of lower-case letters, digits and dashes: %w", r.ID, mount.ErrConfig)
	}
	if !filepath.IsAbs(r.Target) || filepath.Clean(r.Target) != r.Target || r.Target == "/" {
		return fmt.Errorf("target %q is not a clean absolute path: %w", r.Target, mount.ErrConfig)
	}
	if _, err := fuse.FeaturesOf(r.Volume.Client); err != nil {
		return err
	}
	b, err := json.Marshal(r.Volume)
	if err != nil {
		return fmt.Errorf("volume %s: %w", r.Volume.ID, err)
	}
	if len(b) > wire.MaxVolume {
		return fmt.Errorf("volume %s takes %d bytes with its Secret, more than %d: %w", r.Volume.ID, len(b), wire.MaxVolume, mount.ErrConfig)
	}
	return nil
}

func validID(id mount.SessionID) bool {
	if len(id) == 0 || len(id) > 63 || id[0] == '-' {
		return false
	}
	for _, c := range []byte(id) {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// authorize is the whole policy about peers: a session's socket is for the identity that the session was opened for, and for nobody else, root included.
func authorize(p wire.Peer, r Request) error {
	if p.UID != r.UID || p.GID != r.GID {
		return fmt.Errorf("peer has uid %d and gid %d, session %s belongs to %d and %d: %w", p.UID, p.GID, r.ID, r.UID, r.GID, mount.ErrRefused)
	}
	return nil
}
