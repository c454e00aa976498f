package logs

import (
	"path/filepath"
	"sync"

	"github.com/fsnotify/fsnotify"
)

// watches lets any number of readers wait for changes of files with one inotify instance, of which a user may have only 128.
type watches struct {
	mu      sync.Mutex
	watcher *fsnotify.Watcher
	// dispatchers counts the goroutines that deliver.
	dispatchers sync.WaitGroup
	// readers are the channels to wake, by directory.
	readers map[string]map[chan struct{}]bool
}

// add wakes ch, without ever waiting for it, when something changes in the directory of path. The returned function ends that.
// An error means that nobody will wake ch.
func (w *watches) add(path string, ch chan struct{}) (remove func(), err error) {
	dir := filepath.Dir(path)
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.start(); err != nil {
		return nil, err
	}
	if w.readers[dir] == nil {
		if err := w.watcher.Add(dir); err != nil {
			w.stopIfIdle()
			return nil, err
		}
		w.readers[dir] = map[chan struct{}]bool{}
	}
	w.readers[dir][ch] = true
	return func() { w.remove(dir, ch) }, nil
}

func (w *watches) start() error {
	if w.watcher != nil {
		return nil
	}
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		return err
	}
	w.watcher, w.readers = watcher, map[string]map[chan struct{}]bool{}
	w.dispatchers.Go(func() { w.dispatch(watcher) })
	return nil
}

func (w *watches) remove(dir string, ch chan struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.readers[dir], ch)
	if len(w.readers[dir]) > 0 {
		return
	}
	delete(w.readers, dir)
	// A directory that was removed is no longer watched, which is no error here.
	_ = w.watcher.Remove(dir)
	w.stopIfIdle()
}

// stopIfIdle ends the inotify instance with its last reader. The dispatcher needs the lock to deliver, so that it is not waited
// for here; it sees that its watcher is closed.
func (w *watches) stopIfIdle() {
	if len(w.readers) > 0 || w.watcher == nil {
		return
	}
	_ = w.watcher.Close()
	w.watcher = nil
}

func (w *watches) dispatch(watcher *fsnotify.Watcher) {
	for {
		select {
		case e, ok := <-watcher.Events:
			if !ok {
				return
			}
			w.wake(watcher, filepath.Dir(e.Name))
		case _, ok := <-watcher.Errors:
			if !ok {
				return
			}
			// Events were lost: everybody looks.
			w.wake(watcher, "")
		}
	}
}

func (w *watches) wake(watcher *fsnotify.Watcher, dir string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.watcher != watcher {
		return
	}
	for d, readers := range w.readers {
		if dir != "" && d != dir {
			continue
		}
		for ch := range readers {
			select {
			case ch <- struct{}{}:
			default:
			}
		}
	}
}
