package mountpod

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

const stateVersion = 1

// shareRecord is a share as it is kept on disk, without its Secret.
type shareRecord struct {
	Version int             `json:"version"`
	Session mount.SessionID `json:"session"`
	// Key is the share's identity now; an upgrade changes it, and not the session.
	Key string `json:"key"`
	// Secret is the Secret's keyed hash.
	Secret string        `json:"secret"`
	Mount  sidecar.Mount `json:"mount"`
	Pod    string        `json:"pod"`
	// Agent is the generation of the pod's agent, LastAgent the highest that the share has used.
	Agent     int `json:"agent,omitempty"`
	LastAgent int `json:"lastAgent,omitempty"`
	// Next is the pod of an upgrade that is under way.
	Next       *successor `json:"next,omitempty"`
	Generation int        `json:"generation"`
	// Served says that a client has served the share, so that its references are in use.
	Served bool `json:"served"`
}

// referenceRecord is a target that uses a share.
type referenceRecord struct {
	Version   int             `json:"version"`
	Target    string          `json:"target"`
	Session   mount.SessionID `json:"session"`
	Namespace string          `json:"namespace"`
	Name      string          `json:"name"`
	UID       types.UID       `json:"uid"`
	// Boot is the boot of the host in which the reference was made; no mount outlives it.
	Boot string `json:"boot"`
}

// store keeps shares and references on disk, one file for each. A file is there as a whole or not at all, also after a loss of power.
type store struct {
	dir string
	log logrus.FieldLogger
	// step is called before each change of the disk; a test ends the keeper there.
	step atomic.Pointer[func(what string) error]
}

func (s *store) shares() string     { return filepath.Join(s.dir, "shares") }
func (s *store) references() string { return filepath.Join(s.dir, "references") }

func (s *store) share(id mount.SessionID) string {
	return filepath.Join(s.shares(), string(id)+".json")
}

// reference is the file of a target, which may be longer than a file's name.
func (s *store) reference(target string) string {
	sum := sha256.Sum256([]byte(target))
	return filepath.Join(s.references(), hex.EncodeToString(sum[:20])+".json")
}

func (s *store) prepare() error {
	for _, dir := range []string{s.shares(), s.references()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare the state of mount pods: %w", err)
		}
	}
	return nil
}

// key returns this node's random key, which it makes at the first start.
func (s *store) key() ([]byte, error) {
	path := filepath.Join(s.dir, "key")
	b, err := os.ReadFile(path)
	if err == nil && len(b) == sha256.Size {
		return b, nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read the node's key: %w", err)
	}
	b = make([]byte, sha256.Size)
	_, _ = rand.Read(b) // it never fails (crypto/rand)
	return b, s.write(path, b)
}

func (s *store) putShare(r shareRecord) error {
	r.Version, r.Mount.Volume.Secret, r.Mount.Warnings = stateVersion, nil, nil
	return s.put("share", s.share(r.Session), r)
}

func (s *store) putReference(r referenceRecord) error {
	r.Version = stateVersion
	return s.put("reference", s.reference(r.Target), r)
}

func (s *store) dropShare(id mount.SessionID) error { return s.drop("share", s.share(id)) }

func (s *store) dropReference(target string) error { return s.drop("reference", s.reference(target)) }

func (s *store) put(what, path string, v any) error {
	if err := s.at("put " + what); err != nil {
		return err
	}
	b, err := json.Marshal(v)
	if err == nil {
		err = s.write(path, b)
	}
	if err != nil {
		return fmt.Errorf("record a %s: %w", what, err)
	}
	return nil
}

func (s *store) drop(what, path string) error {
	if err := s.at("drop " + what); err != nil {
		return err
	}
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil {
		err = syncDir(filepath.Dir(path))
	}
	if err != nil {
		return fmt.Errorf("forget a %s: %w", what, err)
	}
	return nil
}

func (s *store) at(what string) error {
	step := s.step.Load()
	if step == nil {
		return nil
	}
	return (*step)(what)
}

// write replaces a file in one step that lasts.
func (s *store) write(path string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	if _, err := f.Write(b); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	return dir.Sync()
}

func (s *store) readShares() ([]shareRecord, error) {
	return readAll(s.log, s.shares(), func(r shareRecord) bool {
		return r.Version == stateVersion && r.Session != "" && r.Key != ""
	})
}

func (s *store) readReferences() ([]referenceRecord, error) {
	return readAll(s.log, s.references(), func(r referenceRecord) bool {
		return r.Version == stateVersion && filepath.IsAbs(r.Target) && r.Session != ""
	})
}

// readAll reads a directory of records. One that cannot be understood is set aside, so that it neither stops the node nor gets lost. What a
// write has left behind that did not come to its end is removed.
func readAll[R any](log logrus.FieldLogger, dir string, valid func(R) bool) ([]R, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("read the state of mount pods: %w", err)
	}
	var records []R
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if strings.HasPrefix(e.Name(), ".new-") {
			os.Remove(path)
			continue
		}
		if filepath.Ext(e.Name()) != ".json" {
			continue
		}
		var r R
		b, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(b, &r)
		}
		if err == nil && !valid(r) {
			err = errors.New("not a record of this version")
		}
		if err != nil {
			setAside(log, path, err)
			continue
		}
		records = append(records, r)
	}
	return records, nil
}

func setAside(log logrus.FieldLogger, path string, cause error) {
	log = log.WithError(cause).WithField("file", path)
	if err := os.Rename(path, path+".corrupt"); err != nil {
		log = log.WithField("rename", err)
	}
	log.Error("set aside a record that cannot be read")
}
