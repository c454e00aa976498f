package csi

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/mountpoint"
)

// sessionSource is how the broker's mounts, and so the binds of them, begin in the mount table; the session's id follows.
const sessionSource = "sidemount:"

// bound is what is mounted at a target.
type bound struct {
	mountpoint.Entry
	// session is whose mount it is; "" if it is none of ours.
	session mount.SessionID
}

// mounted returns what is uppermost at a target, nil if nothing is. Only the mount table is read.
func (n *Node) mounted(t target) (*bound, error) {
	entries, err := mountpoint.At(t.real)
	if err != nil || len(entries) == 0 {
		return nil, err
	}
	return boundBy(entries[0]), nil
}

func boundBy(e mountpoint.Entry) *bound {
	id, _ := strings.CutPrefix(e.Source, sessionSource)
	if id == e.Source || !strings.HasPrefix(e.Type, "fuse") {
		id = ""
	}
	return &bound{Entry: e, session: mount.SessionID(id)}
}

// alive tells whether a bind shows a session that is there: a lost session's name may have a new mount, which is another device. The volume
// is the session's.
func (n *Node) alive(b *bound) (volume mount.VolumeID, alive bool, err error) {
	if b.session == "" {
		return "", false, nil
	}
	session, err := n.options.Sessions.Status(b.session)
	if errors.Is(err, mount.ErrNotFound) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	at, err := mountpoint.At(session.Target)
	if err != nil {
		return session.Volume, false, err
	}
	// Where somebody has unmounted the session behind the broker's back, its binds go on.
	same := len(at) == 0 || at[0].Device == b.Device
	return session.Volume, session.State != mount.Closed && same, nil
}

// whole tells whether a target that was published has all that it needs.
func (n *Node) whole(p publication) (bool, error) {
	if !n.held(p.target) {
		return false, nil
	}
	b, err := n.mounted(p.target)
	if err != nil || b == nil {
		return false, err
	}
	_, alive, err := n.alive(b)
	return alive, err
}

// allowed refuses what would contradict a publish that has been made (CSI specification, NodePublishVolume).
func (n *Node) allowed(p publication) error {
	b, err := n.mounted(p.target)
	if err != nil {
		return err
	}
	if b != nil {
		volume, alive, err := n.alive(b)
		switch {
		case err != nil:
			return err
		case alive && volume != p.volume:
			return status.Errorf(codes.AlreadyExists, "volume %s is published at %s", volume, p.target.path)
		case alive && b.ReadOnly != p.readOnly && !n.sessionReadOnly(b):
			return status.Errorf(codes.AlreadyExists, "volume %s is published at %s with another access: read-only %t", volume, p.target.path, b.ReadOnly)
		}
	}
	if !p.alone {
		return nil
	}
	other, err := n.place(p.volume, p.target.real)
	if err != nil || other == nil {
		return err
	}
	return status.Errorf(codes.FailedPrecondition, "volume %s may have one user at a time (ReadWriteOncePod) and is published at %s", p.volume, other.Point)
}

// sessionReadOnly tells whether the session is read-only as a whole, so that every bind of it is.
func (n *Node) sessionReadOnly(b *bound) bool {
	session, err := n.options.Sessions.Status(b.session)
	if err != nil {
		return false
	}
	at, err := mountpoint.At(session.Target)
	return err == nil && len(at) > 0 && at[0].ReadOnly
}

// place returns a target of the volume other than a certain one, nil if there is none. What the kubelet has bound for subPath is no
// target.
func (n *Node) place(volume mount.VolumeID, except string) (*bound, error) {
	pods, err := n.pods.real()
	if err != nil {
		return nil, err
	}
	entries, err := mountpoint.Under(pods)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		if e.Point == except || strings.Contains(e.Point, "/volume-subpaths/") {
			continue
		}
		b := boundBy(e)
		if session, err := n.options.Sessions.Status(b.session); err != nil || session.Volume != volume {
			continue
		}
		if _, alive, err := n.alive(b); err != nil || alive {
			return b, err
		}
	}
	return nil, nil
}

// bind binds the share at the target. A bind that lives stays, whatever share it is of: the pod has files open in it. One whose
// session is lost is replaced; containers see the new one if they mount with propagation, or when they start again.
func (n *Node) bind(p publication, share mountpod.Share) error {
	b, err := n.mounted(p.target)
	if err != nil {
		return err
	}
	if b != nil {
		_, alive, err := n.alive(b)
		if err != nil || alive {
			return err
		}
		n.log(p.target).WithFields(logrus.Fields{"session": share.Session, "dead": b.Source}).Warn("dead mount at a target replaced")
		if err := n.pods.clear(p.target); err != nil {
			return err
		}
	}
	dir, made, err := n.pods.make(p.target)
	if err != nil {
		return err
	}
	defer dir.Close()
	n.step(stepMade)
	if err := bindShare(share, dir, p.readOnly); err != nil {
		if made {
			_, undo := n.pods.remove(p.target)
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("publish volume %s at %s: %w", p.volume, p.target.path, err)
	}
	return nil
}

func bindShare(share mountpod.Share, dir *os.File, readOnly bool) error {
	// The bare directory would take whatever the pod writes, and lose it.
	at, err := mountpoint.At(share.Path)
	if err != nil {
		return err
	}
	if len(at) == 0 || boundBy(at[0]).session != share.Session {
		return fmt.Errorf("session %s is not mounted at %s: %w", share.Session, share.Path, mount.ErrUnavailable)
	}
	source, err := openDir(share.Path)
	if err != nil {
		return err
	}
	defer source.Close()
	return mountpoint.BindAt(source, dir, readOnly)
}

// openDir opens a directory for its name only, so that no client is asked.
func openDir(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: path, Err: err}
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (n *Node) log(t target) logrus.FieldLogger { return n.options.Log.WithField("target", t.path) }
