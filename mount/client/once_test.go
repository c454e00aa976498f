package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"
)

// names is a file system of one directory that holds only names, and counts what is executed.
type names struct {
	fuse.RawFileSystem
	nodes    map[string]uint64
	next     uint64
	executed int
	known    int // references that the kernel was given
}

func newNames() *names {
	return &names{RawFileSystem: fuse.NewDefaultRawFileSystem(), nodes: map[string]uint64{}, next: 100}
}

func (n *names) Lookup(_ <-chan struct{}, _ *fuse.InHeader, name string, out *fuse.EntryOut) fuse.Status {
	node, ok := n.nodes[name]
	if !ok {
		return fuse.ENOENT
	}
	out.NodeId = node
	n.known++
	return fuse.OK
}

func (n *names) Forget(_, count uint64) { n.known -= int(count) }

func (n *names) make(name string, out *fuse.EntryOut) fuse.Status {
	n.executed++
	if n.nodes[name] != 0 {
		return fuse.Status(unix.EEXIST)
	}
	n.next++
	n.nodes[name] = n.next
	return n.Lookup(nil, nil, name, out)
}

func (n *names) Mkdir(_ <-chan struct{}, _ *fuse.MkdirIn, name string, out *fuse.EntryOut) fuse.Status {
	return n.make(name, out)
}

func (n *names) Symlink(_ <-chan struct{}, _ *fuse.InHeader, _, name string, out *fuse.EntryOut) fuse.Status {
	return n.make(name, out)
}

func (n *names) Create(_ <-chan struct{}, _ *fuse.CreateIn, name string, out *fuse.CreateOut) fuse.Status {
	out.Fh = 1
	return n.make(name, &out.EntryOut)
}

func (n *names) Open(_ <-chan struct{}, in *fuse.OpenIn, out *fuse.OpenOut) fuse.Status {
	out.Fh = in.NodeId + 1000
	return fuse.OK
}

func (n *names) Unlink(_ <-chan struct{}, _ *fuse.InHeader, name string) fuse.Status {
	n.executed++
	if n.nodes[name] == 0 {
		return fuse.ENOENT
	}
	delete(n.nodes, name)
	return fuse.OK
}

func (n *names) Rename(_ <-chan struct{}, in *fuse.RenameIn, from, to string) fuse.Status {
	n.executed++
	if n.nodes[from] == 0 {
		return fuse.ENOENT
	}
	if in.Flags&unix.RENAME_EXCHANGE != 0 {
		n.nodes[from], n.nodes[to] = n.nodes[to], n.nodes[from]
		return fuse.OK
	}
	n.nodes[to] = n.nodes[from]
	delete(n.nodes, from)
	return fuse.OK
}

// request is a change that an application asks for; run sends it with a number.
type request struct {
	name   string
	before []string
	run    func(*once, uint64) (fuse.Status, uint64)
	after  []string
	// wrong is a status that the request gets if something else was in its way from the start.
	inWay string
	wrong fuse.Status
}

var requests = []request{
	{"mkdir", nil, func(o *once, unique uint64) (fuse.Status, uint64) {
		var out fuse.EntryOut
		in := fuse.MkdirIn{InHeader: fuse.InHeader{Unique: unique, NodeId: 1}}
		return o.Mkdir(nil, &in, "a", &out), out.NodeId
	}, []string{"a"}, "a", fuse.Status(unix.EEXIST)},
	{"symlink", nil, func(o *once, unique uint64) (fuse.Status, uint64) {
		var out fuse.EntryOut
		return o.Symlink(nil, &fuse.InHeader{Unique: unique, NodeId: 1}, "to", "a", &out), out.NodeId
	}, []string{"a"}, "a", fuse.Status(unix.EEXIST)},
	{"create", nil, func(o *once, unique uint64) (fuse.Status, uint64) {
		var out fuse.CreateOut
		in := fuse.CreateIn{InHeader: fuse.InHeader{Unique: unique, NodeId: 1}, Flags: unix.O_EXCL | unix.O_CREAT}
		s := o.Create(nil, &in, "a", &out)
		if s == fuse.OK && out.Fh == 0 {
			s = fuse.EBADF
		}
		return s, out.NodeId
	}, []string{"a"}, "a", fuse.Status(unix.EEXIST)},
	{"unlink", []string{"a"}, func(o *once, unique uint64) (fuse.Status, uint64) {
		return o.Unlink(nil, &fuse.InHeader{Unique: unique, NodeId: 1}, "a"), 1
	}, nil, "", 0},
	{"rename", []string{"a"}, func(o *once, unique uint64) (fuse.Status, uint64) {
		return o.Rename(nil, &fuse.RenameIn{InHeader: fuse.InHeader{Unique: unique, NodeId: 1}, Newdir: 1}, "a", "b"), 1
	}, []string{"b"}, "", 0},
}

// The points at which a client can die: before it executes a request, after that, and after it has noted the result.
const (
	diesBefore = iota
	diesAfterExecution
	diesAfterResult
	points
)

// dying executes a request as a client that dies at a point.
func dying(region []byte, n *names, unique uint64, r request, point int) {
	switch point {
	case diesBefore:
	case diesAfterExecution:
		openJournal(region, true).begin(unique, 0)
		r.run(&once{RawFileSystem: n, journal: openJournal(make([]byte, journalSize), false)}, unique)
	case diesAfterResult:
		r.run(&once{RawFileSystem: n, journal: openJournal(region, true)}, unique)
	}
}

func TestRequestIsExecutedOnce(t *testing.T) {
	for _, r := range requests {
		for first := range points {
			for second := range points {
				n, region := newNames(), make([]byte, journalSize)
				for _, name := range r.before {
					n.make(name, &fuse.EntryOut{})
				}
				n.known = 0
				// Two clients die over the same request; the third one must answer it as if nothing had happened.
				dying(region, n, 8, r, first)
				n.known = 0
				dying(region, n, 8|resent, r, second)
				n.known = 0
				status, node := r.run(&once{RawFileSystem: n, journal: openJournal(region, true)}, 8|resent)
				if status != fuse.OK || node == 0 {
					t.Errorf("%s, deaths at %d and %d: status %v, node %d", r.name, first, second, status, node)
				}
				if len(n.nodes) != len(r.after) {
					t.Errorf("%s, deaths at %d and %d: names are %v, want %v", r.name, first, second, n.nodes, r.after)
				}
				for _, name := range r.after {
					if n.nodes[name] == 0 {
						t.Errorf("%s, deaths at %d and %d: no %s", r.name, first, second, name)
					}
				}
				if want := len(r.after) - len(r.before); want > 0 && n.known != want {
					t.Errorf("%s, deaths at %d and %d: %d references given out, want %d", r.name, first, second, n.known, want)
				}
			}
		}
	}
}

func TestGenuineErrorStaysAnError(t *testing.T) {
	for _, r := range requests {
		if r.inWay == "" {
			continue
		}
		n, region := newNames(), make([]byte, journalSize)
		n.make(r.inWay, &fuse.EntryOut{})
		// Never begun: the name was there before, whoever asks.
		if status, _ := r.run(&once{RawFileSystem: n, journal: openJournal(region, true)}, 8|resent); status != r.wrong {
			t.Errorf("%s, never begun: %v, want %v", r.name, status, r.wrong)
		}
		// Executed and refused: the journal has the refusal.
		if status, _ := r.run(&once{RawFileSystem: n, journal: openJournal(region, true)}, 10); status != r.wrong {
			t.Errorf("%s: %v, want %v", r.name, status, r.wrong)
		}
		n.nodes = map[string]uint64{}
		before := n.executed
		if status, _ := r.run(&once{RawFileSystem: n, journal: openJournal(region, true)}, 10|resent); status != r.wrong || n.executed != before {
			t.Errorf("%s, refused before: %v after %d executions, want %v after none", r.name, status, n.executed-before, r.wrong)
		}
	}
}

func TestExchangeIsNotUndone(t *testing.T) {
	exchange := fuse.RenameIn{InHeader: fuse.InHeader{Unique: 8 | resent, NodeId: 1}, Newdir: 1, Flags: unix.RENAME_EXCHANGE}
	for executed := range 2 {
		n, region := newNames(), make([]byte, journalSize)
		n.make("a", &fuse.EntryOut{})
		n.make("b", &fuse.EntryOut{})
		a, b := n.nodes["a"], n.nodes["b"]
		openJournal(region, true).begin(8, a)
		if executed == 1 {
			n.nodes["a"], n.nodes["b"] = b, a
		}
		status := (&once{RawFileSystem: n, journal: openJournal(region, true)}).Rename(nil, &exchange, "a", "b")
		if status != fuse.OK || n.nodes["a"] != b || n.nodes["b"] != a {
			t.Errorf("executed %d times before: %v, names %v", executed, status, n.nodes)
		}
	}
}

func TestJournalGoesRound(t *testing.T) {
	region := make([]byte, journalHeader+16*entrySize)
	j := openJournal(region, false)
	slow := j.begin(2, 0)
	for unique := uint64(4); unique < 200; unique += 2 {
		j.done(j.begin(unique, 0), fuse.OK)
	}
	if f := openJournal(region, true).fate(2 | resent); f.state != fateBegun {
		t.Errorf("a request that takes long was overwritten: %+v", f)
	}
	if f := openJournal(region, true).fate(198 | resent); f.state != fateDone {
		t.Errorf("the last request: %+v", f)
	}
	j.done(slow, fuse.EIO)
	if f := openJournal(region, true).fate(2 | resent); f.state != fateDone || f.status != fuse.EIO {
		t.Errorf("the slow request: %+v", f)
	}
	if f := openJournal(region, true).fate(2); f.state != fateUnknown {
		t.Errorf("a request that is sent for the first time has a past: %+v", f)
	}
}

func TestGateHoldsNewcomersBack(t *testing.T) {
	var g gate
	g.enter()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := g.shut(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Fatalf("the gate shut with somebody inside: %v", err)
	}
	entered := make(chan struct{})
	go func() {
		g.enter()
		close(entered)
	}()
	g.leave()
	if err := g.shut(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case <-entered:
		t.Error("somebody passed the shut gate")
	case <-time.After(20 * time.Millisecond):
	}
}
