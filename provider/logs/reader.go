package logs

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sidemount/sidemount/provider/cri"
)

const (
	// checkInterval is how often a follower asks whether its container still runs, and looks at the file even if nobody has told
	// that it changed.
	checkInterval = time.Second
	// appearTimeout is how long a file may be missing between its rotation and the runtime's opening of a new one.
	appearTimeout  = 2 * time.Second
	appearInterval = 10 * time.Millisecond
)

// Running says whether a container can still write. cri.ErrNotFound counts as no, cri.ErrUnavailable as yes; other errors end the
// reading.
type Running func(ctx context.Context) (bool, error)

// Reader reads log files for clients. The zero Reader is ready; its methods may be called concurrently.
type Reader struct {
	watches watches
}

// Read writes the log at path, without its records' frames, to out and errOut; a nil writer drops its stream. With Follow it goes
// on, also across rotations, until running says that the container has ended and everything is written, or ctx ends, which then
// is the error. Malformed records are left out.
func (r *Reader) Read(ctx context.Context, path string, o Options, running Running, out, errOut io.Writer) error {
	if o.LimitBytes == 0 {
		return nil
	}
	f, err := open(ctx, path)
	if err != nil {
		return fmt.Errorf("open log: %w", err)
	}
	reading := &reading{path: path, file: f, writer: newWriter(o, out, errOut)}
	defer func() { reading.file.Close() }()
	if err := reading.seek(o.Tail); err != nil {
		return fmt.Errorf("find the last lines of the log: %w", err)
	}
	if o.Follow {
		err = r.follow(ctx, reading, running)
	} else {
		err = reading.rest(ctx)
	}
	if errors.Is(err, errLimit) {
		return nil
	}
	return err
}

// Close waits until nothing of the Reader runs. It must not be called while a Read is under way.
func (r *Reader) Close() {
	r.watches.dispatchers.Wait()
}

// open waits for a file that is missing although its directory has rotated ones.
func open(ctx context.Context, path string) (*os.File, error) {
	f, err := os.Open(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if rotated, _ := filepath.Glob(path + ".*"); len(rotated) == 0 {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, appearTimeout)
	defer cancel()
	ticker := time.NewTicker(appearInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil, err
		case <-ticker.C:
		}
		if f, err := os.Open(path); !errors.Is(err, fs.ErrNotExist) {
			return f, err
		}
	}
}

// follow alternates between reading to the end and waiting.
func (r *Reader) follow(ctx context.Context, l *reading, running Running) error {
	changed := make(chan struct{}, 1)
	// Without inotify the ticker alone is left, which is slower but no error.
	if remove, err := r.watches.add(l.path, changed); err == nil {
		defer remove()
	}
	ticker := time.NewTicker(checkInterval)
	defer ticker.Stop()
	for {
		if err := l.rest(ctx); err != nil {
			return err
		}
		moved, err := l.next(ctx)
		if err != nil {
			return err
		}
		if moved {
			continue
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
			continue
		case <-ticker.C:
		}
		switch alive, err := running(ctx); {
		case errors.Is(err, cri.ErrUnavailable):
			// Containers go on while their runtime is being restarted.
		case err != nil && !errors.Is(err, cri.ErrNotFound):
			return err
		case !alive:
			return l.last(ctx)
		}
	}
}

// reading is a log file on its way to a client.
type reading struct {
	path    string
	file    *os.File
	scanner *scanner
	writer  *writer
}

func (l *reading) seek(tail int64) error {
	start := int64(0)
	if tail >= 0 {
		info, err := l.file.Stat()
		if err != nil {
			return err
		}
		if start, err = tailStart(l.file, info.Size(), tail); err != nil {
			return err
		}
	}
	_, err := l.file.Seek(start, io.SeekStart)
	l.scanner = newScanner(l.file)
	return err
}

// rest writes everything up to the end of the file. An unfinished record waits for its end.
func (l *reading) rest(ctx context.Context) error {
	for ctx.Err() == nil {
		line, err := l.scanner.line()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("read log: %w", err)
		}
		record, bad := parse(line)
		if bad != nil {
			continue
		}
		if err := l.writer.write(record); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// next moves on to the file that came after this one. A runtime opens a new file before it stops writing to the old one; only when
// there is something in the new one the old one is complete, and what was added to it meanwhile is read first.
func (l *reading) next(ctx context.Context) (bool, error) {
	successor, err := l.successor()
	if err != nil || successor == "" {
		return false, err
	}
	if err := l.rest(ctx); err != nil {
		return false, err
	}
	f, err := os.Open(successor)
	if errors.Is(err, fs.ErrNotExist) {
		// It was moved in this moment; the next look finds it by its new name.
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open log: %w", err)
	}
	l.file.Close()
	l.file, l.scanner = f, newScanner(f)
	return true, nil
}

// successor returns the file that was begun after this one, "" while this one is current or the new one is empty. A reader so slow
// that its file has been compressed goes on with the oldest one that has not.
func (l *reading) successor() (string, error) {
	mine, err := l.file.Stat()
	if err != nil {
		return "", fmt.Errorf("read log: %w", err)
	}
	if current, err := os.Stat(l.path); err == nil && os.SameFile(current, mine) {
		return "", nil
	}
	files, err := plainFiles(l.path)
	if errors.Is(err, fs.ErrNotExist) {
		// The pod's logs have been removed.
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("read log: %w", err)
	}
	next := files[0]
	for i, f := range files[:len(files)-1] {
		if info, err := os.Stat(f); err == nil && os.SameFile(info, mine) {
			next = files[i+1]
		}
	}
	if info, err := os.Stat(next); err != nil || info.Size() == 0 {
		// Between rotation and opening there is none.
		return "", nil
	}
	return next, nil
}

// last writes what an ended container has left.
func (l *reading) last(ctx context.Context) error {
	for {
		if err := l.rest(ctx); err != nil {
			return err
		}
		moved, err := l.next(ctx)
		if err != nil || !moved {
			return err
		}
	}
}
