package registration

import (
	"context"
	"errors"
	"os"
	"path/filepath"

	"github.com/fsnotify/fsnotify"
)

// whilePresent returns nil when the file at path is another one or gone, or ctx ends.
func whilePresent(ctx context.Context, path string) error {
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	defer func() { _ = watcher.Close() }() // it only gives back its descriptors
	if err := watcher.Add(filepath.Dir(path)); err != nil {
		return err
	}
	// What happened before the watch began is seen here.
	first, err := os.Lstat(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for {
		select {
		case <-ctx.Done():
			return nil
		case _, ok := <-watcher.Events:
			if !ok {
				return errors.New("watch of the kubelet's directory ended")
			}
		case _, ok := <-watcher.Errors: // events were lost; what there is counts
			if !ok {
				return errors.New("watch of the kubelet's directory ended")
			}
		}
		if now, err := os.Lstat(path); err != nil || !os.SameFile(first, now) {
			return nil
		}
	}
}
