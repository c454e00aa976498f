package broker_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// loadDir makes this program an application that uses a mount. It is a process of its own: one that holds files of a mount open cannot fork while nobody answers for
// the mount, because the child flushes its copies of them when it executes another program.
const loadDir = "SIDEMOUNT_TEST_LOAD"

// filesOnly is an argument of the application that makes no names, whose calls can all be repeated.
const filesOnly = "files"

// load is the application's process.
type load struct {
	cmd    *exec.Cmd
	stop   io.Closer
	result io.Reader
	ended  chan error
}

// loadResult is what the application says when it is stopped.
type loadResult struct {
	Operations int64
	Longest    time.Duration
	Errors     []string
}

// startLoad runs the application on a mount until finish.
func startLoad(dir string, args ...string) *load {
	GinkgoHelper()
	l := &load{cmd: exec.Command("/proc/self/exe", args...), ended: make(chan error, 1)}
	l.cmd.Env = append(os.Environ(), loadDir+"="+dir, "GORACE=atexit_sleep_ms=0")
	l.cmd.Stderr = GinkgoWriter
	l.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	stdin, err := l.cmd.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	stdout, err := l.cmd.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	l.stop, l.result = stdin, stdout
	Expect(l.cmd.Start()).To(Succeed())
	DeferCleanup(func() { l.cmd.Process.Kill() })
	started := make([]byte, 1)
	_, err = io.ReadFull(stdout, started)
	Expect(err).NotTo(HaveOccurred(), "the application does not start")
	return l
}

// finish stops the application and fails the spec if any answer that it got was wrong.
func (l *load) finish() {
	GinkgoHelper()
	Expect(l.stop.Close()).To(Succeed())
	go func() {
		var r loadResult
		err := json.NewDecoder(l.result).Decode(&r)
		err = errors.Join(err, l.cmd.Wait())
		fmt.Fprintf(GinkgoWriter, "load: %d operations, longest %s\n", r.Operations, r.Longest)
		for _, e := range r.Errors {
			err = errors.Join(err, errors.New(e))
		}
		if r.Operations < 20 {
			err = errors.Join(err, fmt.Errorf("only %d operations", r.Operations))
		}
		l.ended <- err
	}()
	var err error
	Eventually(l.ended).WithTimeout(20*time.Second).Should(Receive(&err), "the application hangs")
	Expect(err).NotTo(HaveOccurred(), "the application got a wrong answer")
}

// runLoad is the application: workers that know what every answer must be.
func runLoad(dir string) {
	ctx, cancel := context.WithCancel(context.Background())
	var l workers
	// Files are created before the first kill: a create must not be repeated, and on an old kernel it would have to be.
	file := func(i int) {
		w := newFileWork(dir, i)
		l.running.Go(func() { l.run(ctx, "file", w) })
	}
	for i := range 2 {
		file(i)
		if len(os.Args) > 1 && os.Args[1] == filesOnly {
			file(i + 2)
			continue
		}
		l.running.Go(func() { l.run(ctx, "names", newNameWork(dir, i)) })
	}
	os.Stdout.Write([]byte{'\n'})
	io.Copy(io.Discard, os.Stdin)
	cancel()
	l.running.Wait()
	json.NewEncoder(os.Stdout).Encode(loadResult{l.ops.Load(), time.Duration(l.longest.Load()), l.errs})
}

type workers struct {
	ops     atomic.Int64
	longest atomic.Int64 // nanoseconds
	mu      sync.Mutex
	errs    []string
	running sync.WaitGroup
}

// run repeats a round of steps; a step that fails ends the worker.
func (l *workers) run(ctx context.Context, what string, w work) {
	defer w.close()
	for round := 0; ctx.Err() == nil; round++ {
		for _, step := range w.steps(round) {
			start := time.Now()
			err := step.do()
			for took := time.Since(start); ; {
				old := l.longest.Load()
				if int64(took) <= old || l.longest.CompareAndSwap(old, int64(took)) {
					break
				}
			}
			if err != nil {
				l.mu.Lock()
				l.errs = append(l.errs, fmt.Sprintf("%s round %d: %s: %v", what, round, step.name, err))
				l.mu.Unlock()
				return
			}
			l.ops.Add(1)
		}
	}
}

type step struct {
	name string
	do   func() error
}

type work interface {
	steps(round int) []step
	close()
}

// fileWork writes, syncs, reads and verifies through one file that stays open all the time.
type fileWork struct {
	f     *os.File
	block [4096]byte
}

func newFileWork(dir string, i int) *fileWork {
	f, err := os.OpenFile(filepath.Join(dir, fmt.Sprintf("long-lived-%d", i)), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		panic(err)
	}
	return &fileWork{f: f}
}

func (w *fileWork) close() { w.f.Close() }

func (w *fileWork) steps(round int) []step {
	at := int64(round%256) * int64(len(w.block))
	for i := 0; i < len(w.block); i += 8 {
		binary.LittleEndian.PutUint64(w.block[i:], uint64(round)*31+uint64(i))
	}
	return []step{
		{"pwrite", func() error { _, err := w.f.WriteAt(w.block[:], at); return err }},
		{"fsync", w.f.Sync},
		{"pread", func() error {
			got := make([]byte, len(w.block))
			if _, err := w.f.ReadAt(got, at); err != nil {
				return err
			}
			if !bytes.Equal(got, w.block[:]) {
				return errors.New("other data than written")
			}
			return nil
		}},
	}
}

// nameWork makes, renames and removes names.
type nameWork struct{ dir string }

func newNameWork(dir string, i int) *nameWork {
	w := &nameWork{filepath.Join(dir, fmt.Sprintf("names-%d", i))}
	if err := os.Mkdir(w.dir, 0o755); err != nil {
		panic(err)
	}
	return w
}

func (w *nameWork) close() {}

func (w *nameWork) steps(round int) []step {
	a, b := filepath.Join(w.dir, fmt.Sprintf("a%d", round)), filepath.Join(w.dir, fmt.Sprintf("b%d", round))
	c, d, sub := b+".link", b+".symlink", filepath.Join(w.dir, fmt.Sprintf("sub%d", round))
	content := []byte(fmt.Sprint("round ", round))
	return []step{
		{"create", func() error {
			f, err := os.OpenFile(a, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
			if err != nil {
				return err
			}
			_, err = f.Write(content)
			return errors.Join(err, f.Close())
		}},
		{"rename", func() error { return os.Rename(a, b) }},
		{"stat", func() error {
			if _, err := os.Stat(a); !errors.Is(err, os.ErrNotExist) {
				return fmt.Errorf("the old name is there: %v", err)
			}
			_, err := os.Stat(b)
			return err
		}},
		{"link", func() error { return os.Link(b, c) }},
		{"symlink", func() error { return os.Symlink("target", d) }},
		{"read", func() error {
			got, err := os.ReadFile(c)
			if err == nil && !bytes.Equal(got, content) {
				err = fmt.Errorf("read %q", got)
			}
			return err
		}},
		{"mkdir", func() error { return os.Mkdir(sub, 0o755) }},
		{"readdir", func() error {
			entries, err := os.ReadDir(w.dir)
			if err == nil && len(entries) != 4 {
				err = fmt.Errorf("%d entries", len(entries))
			}
			return err
		}},
		{"rmdir", func() error { return os.Remove(sub) }},
		{"unlink", func() error { return errors.Join(os.Remove(b), os.Remove(c), os.Remove(d)) }},
	}
}
