package machine

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
)

// createdFile lists the directories of the host that MakeMountPoints had to create.
var createdFile = filepath.Join(RunDir, "created-directories.json")

// MakeMountPoints makes sure that the directories exist on the host, whose tree the nodes see, and remembers those that
// it creates. They stay empty there: nodes bind something of their own over them.
func MakeMountPoints(ctx context.Context, dirs []string) error {
	unlock, err := Lock(ctx, "directories")
	if err != nil {
		return err
	}
	defer unlock()
	created, err := createdDirectories()
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		for _, missing := range missingParents(dir) {
			if err := os.Mkdir(missing, 0o755); err != nil {
				return err
			}
			if !slices.Contains(created, missing) {
				created = append(created, missing)
			}
		}
	}
	b, err := json.Marshal(created)
	if err != nil {
		return err
	}
	return os.WriteFile(createdFile, b, 0o644)
}

// RemoveMountPoints removes the directories that MakeMountPoints created and that are empty. Only the last cluster may
// call it: removing a directory takes away the mounts that other mount namespaces have on it.
func RemoveMountPoints(ctx context.Context) error {
	unlock, err := Lock(ctx, "directories")
	if err != nil {
		return err
	}
	defer unlock()
	created, err := createdDirectories()
	if err != nil {
		return err
	}
	for _, dir := range slices.Backward(created) {
		_ = os.Remove(dir) // not empty: somebody else uses it now
	}
	return os.RemoveAll(createdFile)
}

func createdDirectories() ([]string, error) {
	b, err := os.ReadFile(createdFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var dirs []string
	return dirs, json.Unmarshal(b, &dirs)
}

// missingParents lists dir and those above it that do not exist, the topmost first.
func missingParents(dir string) []string {
	var missing []string
	for ; dir != "/"; dir = filepath.Dir(dir) {
		if _, err := os.Stat(dir); err == nil {
			break
		}
		missing = append([]string{dir}, missing...)
	}
	return missing
}
