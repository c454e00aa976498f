package broker

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
)

// journal remembers the sessions of a node over a restart of the broker, one file per session, written before anything is done and after it has been
// done. It holds no secret.
type journal struct {
	dir string
	log logrus.FieldLogger
}

const recordVersion = 1

// record is a session in the journal.
type record struct {
	Version int             `json:"version"`
	ID      mount.SessionID `json:"id"`
	// Mount tells this mount from any other that the session of this name has had.
	Mount      string           `json:"mount"`
	Target     string           `json:"target"`
	UID        uint32           `json:"uid"`
	GID        uint32           `json:"gid"`
	Volume     mount.VolumeID   `json:"volume"`
	VolumeName string           `json:"volumeName"`
	Client     mount.ClientKind `json:"client"`
	ReadOnly   bool             `json:"readOnly,omitempty"`
	State      mount.State      `json:"state"`
	// Device is the number of the connection, once there is one.
	Device uint32 `json:"device,omitempty"`
	// Generation is that of the agent that has the session.
	Generation int `json:"generation,omitempty"`
}

func (j *journal) path(id mount.SessionID) string { return filepath.Join(j.dir, string(id)+".json") }

// write replaces a session's record in one step.
func (j *journal) write(r record) error {
	r.Version = recordVersion
	b, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("record session %s: %w", r.ID, err)
	}
	temporary := j.path(r.ID) + ".new"
	err = os.WriteFile(temporary, b, 0o600)
	if err == nil {
		err = os.Rename(temporary, j.path(r.ID))
	}
	if err != nil {
		// A disk that is full has no room for a part of a record either.
		return errors.Join(fmt.Errorf("record session %s: %w", r.ID, err), os.RemoveAll(temporary))
	}
	return nil
}

// remove forgets a session; one that is not recorded is forgotten.
func (j *journal) remove(id mount.SessionID) error {
	if err := os.Remove(j.path(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget session %s: %w", id, err)
	}
	return nil
}

// read returns all records. One that cannot be understood is set aside, so that it neither stops the node nor gets lost. One that cannot be read is an error: a session that
// counts as unknown is aborted, with its open files, as soon as somebody opens it again.
func (j *journal) read() ([]record, error) {
	entries, err := os.ReadDir(j.dir)
	if err != nil {
		return nil, fmt.Errorf("read the journal of sessions: %w", err)
	}
	var records []record
	for _, e := range entries {
		name, ok := strings.CutSuffix(e.Name(), ".json")
		if !ok || !e.Type().IsRegular() {
			continue
		}
		r, err := j.readOne(mount.SessionID(name))
		switch {
		case err == nil:
			records = append(records, r)
		case errors.Is(err, errNoRecord):
			j.setAside(mount.SessionID(name), err)
		default:
			return nil, fmt.Errorf("read the journal of sessions: %w", err)
		}
	}
	return records, nil
}

// errNoRecord: a file of the journal is not what this version writes.
var errNoRecord = errors.New("not a record of this session")

// find returns the record of a session; the error is mount.ErrNotFound if there is none.
func (j *journal) find(id mount.SessionID) (record, error) {
	if !validID(id) {
		return record{}, mount.ErrNotFound
	}
	r, err := j.readOne(id)
	if errors.Is(err, fs.ErrNotExist) {
		return record{}, mount.ErrNotFound
	}
	return r, err
}

func (j *journal) readOne(id mount.SessionID) (record, error) {
	b, err := os.ReadFile(j.path(id))
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("%w: %w", errNoRecord, err)
	}
	if r.Version != recordVersion || r.ID != id || !validID(id) || !filepath.IsAbs(r.Target) {
		return record{}, errNoRecord
	}
	return r, nil
}

func (j *journal) setAside(id mount.SessionID, cause error) {
	log := j.log.WithField("session", id).WithError(cause)
	if err := os.Rename(j.path(id), j.path(id)+".corrupt"); err != nil {
		log = log.WithField("rename", err)
	}
	log.Error("set aside a record that cannot be read")
}
