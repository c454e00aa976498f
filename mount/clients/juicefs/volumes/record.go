package volumes

import (
	"encoding/json"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount/admin"
)

// state of a record.
type state string

const (
	creating state = "creating"
	ready    state = "ready"
	deleting state = "deleting"
)

// record is what the file system remembers about a volume or a snapshot.
type record struct {
	Version int    `json:"version"`
	ID      string `json:"id"`
	State   state  `json:"state"`
	// Path is a volume's directory, clean.
	Path string `json:"path,omitempty"`
	// Asked is the capacity that the volume was created with, Capacity what it has now; bytes.
	Asked    int64         `json:"asked,omitempty"`
	Capacity int64         `json:"capacity,omitempty"`
	Source   *admin.Source `json:"source,omitempty"`
	// Measured says that the quota knows what a directory holds that was not empty.
	Measured bool `json:"measured,omitempty"`
	// Size is a snapshot's, in bytes.
	Size    int64     `json:"size,omitempty"`
	Created time.Time `json:"created"`
}

const (
	recordVersion = 1
	recordAttr    = "trusted.sidemount.record"
)

// errGone means that the record has been removed by somebody else.
var errGone = errors.New("record removed meanwhile")

// readRecord reads a record; nil if there is none. A file without the attribute is what a crash between two steps leaves, and
// counts as none.
func (s *Service) readRecord(ctx meta.Context, dir meta.Ino, id string) (*record, error) {
	n, ok, err := s.lookup(ctx, dir, id)
	if err != nil || !ok {
		return nil, err
	}
	var text []byte
	switch st := s.m.GetXattr(ctx, n.ino, recordAttr, &text); st {
	case 0:
	case meta.ENOATTR, syscall.ENOENT:
		return nil, nil
	default:
		return nil, failed(ctx, "read record "+id, st)
	}
	var r record
	if err := json.Unmarshal(text, &r); err != nil || r.ID != id {
		return nil, fmt.Errorf("the record of %s in %s is damaged", id, admin.Reserved)
	}
	if r.Version > recordVersion {
		return nil, fmt.Errorf("the record of %s is of version %d; a newer worker has made it", id, r.Version)
	}
	return &r, nil
}

// claim writes a record if there is none. Whoever writes the attribute first has won; others get what it wrote.
func (s *Service) claim(ctx meta.Context, dir meta.Ino, r record) (kept *record, err error) {
	r.Version = recordVersion
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("record %s: %w", r.ID, err)
	}
	for range retries {
		if kept, err = s.readRecord(ctx, dir, r.ID); err != nil || kept != nil {
			return kept, err
		}
		var ino meta.Ino
		var attr meta.Attr
		if st := s.m.Mknod(ctx, dir, r.ID, meta.TypeFile, 0o600, 0, 0, "", &ino, &attr); st != 0 && st != syscall.EEXIST {
			return nil, failed(ctx, "make record "+r.ID, st)
		}
		n, ok, err := s.lookup(ctx, dir, r.ID)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		if st := s.m.SetXattr(ctx, n.ino, recordAttr, text, meta.XattrCreate); st != 0 && st != syscall.EEXIST {
			return nil, failed(ctx, "write record "+r.ID, st)
		}
	}
	return nil, fmt.Errorf("%w: the record of %s comes and goes", admin.ErrBusy, r.ID)
}

// retries bounds loops that only others' steps can make long.
const retries = 16

// writeRecord replaces a record that is there; errGone if it is not.
func (s *Service) writeRecord(ctx meta.Context, dir meta.Ino, r record) error {
	n, ok, err := s.lookup(ctx, dir, r.ID)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("write record %s: %w", r.ID, errGone)
	}
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record %s: %w", r.ID, err)
	}
	switch st := s.m.SetXattr(ctx, n.ino, recordAttr, text, meta.XattrReplace); st {
	case 0:
		return nil
	case meta.ENOATTR, syscall.ENOENT:
		return fmt.Errorf("write record %s: %w", r.ID, errGone)
	default:
		return failed(ctx, "write record "+r.ID, st)
	}
}

// dropRecord removes a record. It does not go into .trash: nobody could want it back.
func (s *Service) dropRecord(ctx meta.Context, dir meta.Ino, id string) error {
	if st := s.m.Unlink(ctx, dir, id, true); st != 0 && st != syscall.ENOENT {
		return failed(ctx, "remove record "+id, st)
	}
	return nil
}

// records reads all records of a directory that are whole. Damaged ones are logged and left out.
func (s *Service) records(ctx meta.Context, dir meta.Ino) ([]record, error) {
	ids, err := s.names(ctx, dir)
	if err != nil {
		return nil, err
	}
	var all []record
	for _, id := range ids {
		r, err := s.readRecord(ctx, dir, id)
		if gone := callerOf(ctx).Err(); gone != nil {
			return nil, fmt.Errorf("read records: %w", gone)
		}
		if err != nil {
			s.o.Log.WithError(err).WithField("id", id).Warn("record left out")
			continue
		}
		if r != nil {
			all = append(all, *r)
		}
	}
	return all, nil
}
