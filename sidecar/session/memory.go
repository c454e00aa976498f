package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/sidecar"
)

// memory keeps what pods were prepared with over a restart of this process, without the secrets of their volumes: with them in
// the clients' memory already, the pods need them no more.
type memory struct {
	dir string
	mu  sync.Mutex // held from reading to writing
}

// prepared is what is remembered of one volume of a pod.
type prepared struct {
	// Mount is what the sidecar was made from.
	sidecar.Mount
	// Next is what the sidecar is made from that shall take over, nil if none shall.
	Next *sidecar.Mount `json:"next,omitempty"`
	// Highest is the highest generation that a sidecar of the volume has had.
	Highest int `json:"highest,omitempty"`
	// Asked is the last upgrade that somebody has asked for, and Refused the wish of the PersistentVolume that could not be fulfilled.
	Asked   string `json:"asked,omitempty"`
	Refused string `json:"refused,omitempty"`
	// Outcome is what became of the last upgrade.
	Outcome *outcome `json:"outcome,omitempty"`
}

func (m *memory) path(uid types.UID) string {
	return filepath.Join(m.dir, filepath.Base(string(uid))+".json")
}

// change replaces what is remembered of a pod, as a whole.
func (m *memory) change(uid types.UID, to func([]prepared) []prepared) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, err := m.load(uid)
	if err != nil {
		return err
	}
	return m.store(uid, to(known))
}

// read returns nothing for a pod that is not known.
func (m *memory) read(uid types.UID) ([]prepared, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.load(uid)
}

// update changes what is remembered of one volume, if the pod is known with it.
func (m *memory) update(uid types.UID, volume string, change func(*prepared)) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	known, err := m.load(uid)
	if err != nil {
		return err
	}
	at := slices.IndexFunc(known, func(p prepared) bool { return p.Volume.Name == volume })
	if at < 0 {
		return nil
	}
	change(&known[at])
	return m.store(uid, known)
}

func (m *memory) store(uid types.UID, all []prepared) error {
	kept := slices.Clone(all)
	for i := range kept {
		kept[i].Volume.Secret = nil
		if next := kept[i].Next; next != nil {
			bare := *next
			bare.Volume.Secret = nil
			kept[i].Next = &bare
		}
	}
	data, err := json.Marshal(kept)
	if err != nil {
		return fmt.Errorf("remember volumes of pod %s: %w", uid, err)
	}
	if err := os.MkdirAll(m.dir, 0o700); err != nil {
		return fmt.Errorf("remember volumes of pod %s: %w", uid, err)
	}
	next := m.path(uid) + ".new"
	if err := os.WriteFile(next, data, 0o600); err != nil {
		return fmt.Errorf("remember volumes of pod %s: %w", uid, err)
	}
	if err := os.Rename(next, m.path(uid)); err != nil {
		return fmt.Errorf("remember volumes of pod %s: %w", uid, err)
	}
	return nil
}

func (m *memory) load(uid types.UID) ([]prepared, error) {
	data, err := os.ReadFile(m.path(uid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recall volumes of pod %s: %w", uid, err)
	}
	var known []prepared
	if err := json.Unmarshal(data, &known); err != nil {
		return nil, fmt.Errorf("recall volumes of pod %s: %w", uid, err)
	}
	return known, nil
}

// alone returns the pods that have volumes for themselves, by PersistentVolume. What cannot be read is nobody's.
func (m *memory) alone() (map[string]types.UID, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	files, err := filepath.Glob(filepath.Join(m.dir, "*.json"))
	if err != nil {
		return nil, fmt.Errorf("recall volumes of pods: %w", err)
	}
	users := map[string]types.UID{}
	for _, file := range files {
		uid := types.UID(strings.TrimSuffix(filepath.Base(file), ".json"))
		known, err := m.load(uid)
		if err != nil {
			continue
		}
		for _, p := range known {
			if p.Alone {
				users[p.PersistentVolume] = uid
			}
		}
	}
	return users, nil
}

func (m *memory) remove(uid types.UID) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := os.Remove(m.path(uid)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget volumes of pod %s: %w", uid, err)
	}
	return nil
}
