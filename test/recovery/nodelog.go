package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// record is a line of a log by its keys.
type record map[string]string

// pause is how long requests had to wait; zero if the record does not say.
func (r record) pause() time.Duration { return r.duration("pause") }

// after is how long a client took to start; zero if the record does not say.
func (r record) after() time.Duration { return r.duration("after") }

func (r record) duration(key string) time.Duration {
	d, err := time.ParseDuration(r[key])
	if err != nil {
		return 0
	}
	return d
}

// parseLine reads the form key=value, the value quoted where it must be. What stands before the first key is left out.
func parseLine(line string) record {
	r := record{}
	rest := strings.TrimSpace(line)
	for rest != "" {
		key, after, ok := strings.Cut(rest, "=")
		if !ok {
			break
		}
		key = key[strings.LastIndexByte(key, ' ')+1:]
		if quoted, err := strconv.QuotedPrefix(after); err == nil {
			r[key], _ = strconv.Unquote(quoted)
			rest = after[len(quoted):]
			continue
		}
		var value string
		value, rest, _ = strings.Cut(after, " ")
		r[key] = value
	}
	return r
}

// nodeLog follows the log of the virtual node's process, over its restarts.
type nodeLog struct {
	path string

	mu      sync.Mutex // guards what follows
	records []record
	changed chan struct{} // closed when there is more
	err     error
}

func newNodeLog(path string) *nodeLog { return &nodeLog{path: path, changed: make(chan struct{})} }

// run reads what is written until ctx ends.
func (l *nodeLog) run(ctx context.Context) {
	f, err := os.Open(l.path)
	if err != nil {
		l.take(nil, err)
		return
	}
	defer f.Close()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	lines := bufio.NewReader(f)
	var pending []byte
	for {
		chunk, err := lines.ReadBytes('\n')
		pending = append(pending, chunk...)
		switch {
		case err == nil:
			l.take(parseLine(string(bytes.TrimSpace(pending))), nil)
			pending = nil
			continue
		case !errors.Is(err, io.EOF):
			l.take(nil, err)
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func (l *nodeLog) take(r record, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if r != nil {
		l.records = append(l.records, r)
	}
	l.err = errors.Join(l.err, err)
	close(l.changed)
	l.changed = make(chan struct{})
}

// mark is a place in the log: what is written from now on.
func (l *nodeLog) mark() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.records)
}

// find returns the first record after a mark that match accepts, among those that are there.
func (l *nodeLog) find(from int, match func(record) bool) record {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, r := range l.records[from:] {
		if match(r) {
			return r
		}
	}
	return nil
}

// await returns the first record after a mark that match accepts.
func (l *nodeLog) await(ctx context.Context, from int, match func(record) bool) (record, error) {
	for {
		l.mu.Lock()
		seen, changed, err := l.records[from:], l.changed, l.err
		l.mu.Unlock()
		for _, r := range seen {
			if match(r) {
				return r, nil
			}
		}
		if err != nil {
			return nil, err
		}
		from += len(seen)
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-changed:
		}
	}
}
