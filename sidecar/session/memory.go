package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/sidecar"
)

// memory keeps what pods were prepared with over a restart of this process, without the secrets of their volumes: with them in
// the clients' memory already, the pods need them no more.
type memory struct{ dir string }

func (m memory) path(uid types.UID) string {
	return filepath.Join(m.dir, filepath.Base(string(uid))+".json")
}

// write replaces the file as a whole.
func (m memory) write(uid types.UID, mounts []sidecar.Mount) (err error) {
	kept := make([]sidecar.Mount, len(mounts))
	for i, mount := range mounts {
		mount.Volume.Secret = nil
		kept[i] = mount
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

// read returns nothing for a pod that is not known.
func (m memory) read(uid types.UID) ([]sidecar.Mount, error) {
	data, err := os.ReadFile(m.path(uid))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("recall volumes of pod %s: %w", uid, err)
	}
	var mounts []sidecar.Mount
	if err := json.Unmarshal(data, &mounts); err != nil {
		return nil, fmt.Errorf("recall volumes of pod %s: %w", uid, err)
	}
	return mounts, nil
}

func (m memory) remove(uid types.UID) error {
	if err := os.Remove(m.path(uid)); err != nil && !errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("forget volumes of pod %s: %w", uid, err)
	}
	return nil
}
