package logs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

var epoch = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// rec is a record of the given second.
func rec(second int, stream, tag, text string) string {
	return epoch.Add(time.Duration(second)*time.Second).Format(time.RFC3339Nano) + " " + stream + " " + tag + " " + text + "\n"
}

var sample = rec(0, "stdout", "F", "one") + rec(1, "stderr", "F", "two") + "garbage\n" + rec(2, "stdout", "P", "long ") +
	rec(2, "stdout", "P", "longer ") + rec(2, "stdout", "F:x", "longest") + rec(3, "stdout", "F", "") + rec(4, "stderr", "F", "last")

func file(t *testing.T, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "0.log")
	if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func all() Options {
	return Options{Tail: -1, LimitBytes: -1}
}

func TestRead(t *testing.T) {
	for _, tt := range []struct {
		name    string
		options func(*Options)
		content string
		out     string
		err     string
	}{
		{name: "all", content: sample, out: "one\nlong longer longest\n\n", err: "two\nlast\n"},
		{name: "timestamps at the beginning of lines", content: sample, options: func(o *Options) { o.Timestamps = true },
			out: "2026-01-02T03:04:05.000000000Z one\n2026-01-02T03:04:07.000000000Z long longer longest\n2026-01-02T03:04:08.000000000Z \n",
			err: "2026-01-02T03:04:06.000000000Z two\n2026-01-02T03:04:09.000000000Z last\n"},
		{name: "since", content: sample, options: func(o *Options) { o.Since = epoch.Add(3 * time.Second) }, out: "\n", err: "last\n"},
		{name: "nothing since", content: sample, options: func(o *Options) { o.Since = epoch.Add(time.Hour) }},
		{name: "tail counts lines, not records", content: sample, options: func(o *Options) { o.Tail = 3 }, out: "long longer longest\n\n", err: "last\n"},
		{name: "tail of more than there is", content: sample, options: func(o *Options) { o.Tail = 100 }, out: "one\nlong longer longest\n\n", err: "two\nlast\n"},
		{name: "tail of nothing", content: sample, options: func(o *Options) { o.Tail = 0 }},
		{name: "tail of an unended line", content: sample + rec(5, "stdout", "P", "and"), options: func(o *Options) { o.Tail = 2 }, out: "and", err: "last\n"},
		{name: "limit", content: rec(0, "stdout", "F", "0123456789"), options: func(o *Options) { o.LimitBytes = 4 }, out: "0123"},
		{name: "limit of exactly all", content: rec(0, "stdout", "F", "0123"), options: func(o *Options) { o.LimitBytes = 5 }, out: "0123\n"},
		{name: "limit counts timestamps", content: sample, options: func(o *Options) { o.LimitBytes, o.Timestamps = 32, true },
			out: "2026-01-02T03:04:05.000000000Z o"},
		{name: "limit of nothing", content: sample, options: func(o *Options) { o.LimitBytes = 0 }},
		{name: "empty"},
		{name: "a record too long", content: rec(0, "stdout", "F", strings.Repeat("x", 2<<20)) + rec(1, "stdout", "F", "after"), out: "after\n"},
		{name: "a record being written", content: rec(0, "stdout", "F", "done") + "2026-01-02T03:04:05Z stdout F ha", out: "done\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o := all()
			if tt.options != nil {
				tt.options(&o)
			}
			var out, errOut bytes.Buffer
			var r Reader
			if err := r.Read(t.Context(), file(t, tt.content), o, nil, &out, &errOut); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.out, out.String()); diff != "" {
				t.Errorf("stdout (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(tt.err, errOut.String()); diff != "" {
				t.Errorf("stderr (-want +got):\n%s", diff)
			}
		})
	}
}

func TestReadOneStream(t *testing.T) {
	var errOut bytes.Buffer
	var r Reader
	o := all()
	o.LimitBytes = 6
	if err := r.Read(t.Context(), file(t, sample), o, nil, nil, &errOut); err != nil || errOut.String() != "two\nla" {
		t.Errorf("stderr alone: %q, %v", errOut.String(), err)
	}
}

func TestReadFails(t *testing.T) {
	var r Reader
	if err := r.Read(t.Context(), filepath.Join(t.TempDir(), "0.log"), all(), nil, io.Discard, io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	broken, w := io.Pipe()
	broken.Close()
	if err := r.Read(t.Context(), file(t, sample), all(), nil, w, w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("client gone: %v", err)
	}
}

// TestTailEverywhere compares the backward search with counting forward, for files longer than a block.
func TestTailEverywhere(t *testing.T) {
	var content strings.Builder
	var lines []string
	for i := range 400 {
		text := fmt.Sprintf("%d %s", i, strings.Repeat("y", i*7%900))
		if i%5 == 0 {
			content.WriteString(rec(i, "stdout", "P", text[:len(text)/2]))
			content.WriteString(rec(i, "stdout", "F", text[len(text)/2:]))
		} else {
			content.WriteString(rec(i, "stdout", "F", text))
		}
		lines = append(lines, text)
	}
	path := file(t, content.String())
	for n := 0; n <= len(lines); n += 3 {
		o := all()
		o.Tail = int64(n)
		var out bytes.Buffer
		var r Reader
		if err := r.Read(t.Context(), path, o, nil, &out, nil); err != nil {
			t.Fatal(err)
		}
		want := strings.Join(lines[len(lines)-n:], "\n")
		if got := strings.TrimSuffix(out.String(), "\n"); got != want {
			t.Fatalf("the last %d lines are %d characters, want %d", n, len(got), len(want))
		}
	}
}

func TestLast(t *testing.T) {
	path := file(t, sample)
	for _, tt := range []struct {
		lines int64
		bytes int
		want  string
	}{{80, 2048, "one\ntwo\nlong longer longest\n\nlast\n"}, {2, 2048, "\nlast\n"}, {80, 4, "ast\n"}} {
		if got, err := Last(path, tt.lines, tt.bytes); err != nil || got != tt.want {
			t.Errorf("Last(%d, %d) = %q, %v; want %q", tt.lines, tt.bytes, got, err, tt.want)
		}
	}
	if got, err := Last(path+".none", 80, 2048); err != nil || got != "" {
		t.Errorf("Last of nothing = %q, %v", got, err)
	}
}

func TestFromPodOptions(t *testing.T) {
	n, huge := int64(7), int64(1)<<62
	at := metav1.NewTime(epoch)
	got := FromPodOptions(&corev1.PodLogOptions{TailLines: &n, LimitBytes: &n, SinceSeconds: &n, Follow: true, Timestamps: true}, epoch)
	want := Options{Tail: 7, LimitBytes: 7, Since: epoch.Add(-7 * time.Second), Follow: true, Timestamps: true}
	if got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := FromPodOptions(&corev1.PodLogOptions{SinceTime: &at}, time.Now()); got != (Options{Tail: -1, LimitBytes: -1, Since: epoch}) {
		t.Errorf("%+v", got)
	}
	if got := FromPodOptions(&corev1.PodLogOptions{SinceSeconds: &huge}, epoch); !got.Since.IsZero() {
		t.Errorf("since %s", got.Since)
	}
}

// client collects what a follower is sent and lets a test wait for it.
type client struct {
	mu      sync.Mutex
	text    strings.Builder
	changed chan struct{}
}

func newClient() *client {
	return &client{changed: make(chan struct{}, 1)}
}

func (c *client) Write(p []byte) (int, error) {
	c.mu.Lock()
	c.text.Write(p)
	c.mu.Unlock()
	select {
	case c.changed <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (c *client) String() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.text.String()
}

func (c *client) expect(t *testing.T, want string) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for c.String() != want {
		select {
		case <-c.changed:
		case <-deadline:
			t.Fatalf("the client has %q, want %q", c.String(), want)
		}
	}
}

// container writes a log and can end.
type container struct {
	t    *testing.T
	path string
	file *os.File
	end  chan struct{}
}

func newContainer(t *testing.T) *container {
	c := &container{t: t, path: filepath.Join(t.TempDir(), "0.log"), end: make(chan struct{})}
	if err := c.reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.file.Close() })
	return c
}

// reopen keeps the old file open for one more record, as a runtime may.
func (c *container) reopen(context.Context) error {
	old := c.file
	f, err := os.OpenFile(c.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	if old != nil {
		if _, err := old.WriteString(rec(9, "stdout", "F", "straggler")); err != nil {
			return err
		}
		if err := old.Close(); err != nil {
			return err
		}
	}
	c.file = f
	return nil
}

func (c *container) write(s string) {
	c.t.Helper()
	if _, err := c.file.WriteString(s); err != nil {
		c.t.Fatal(err)
	}
}

// writeUntil writes lines until a follower that begins at the end has seen one.
func (c *container) writeUntil(followed <-chan struct{}) {
	c.t.Helper()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(20 * time.Second)
	for {
		select {
		case <-followed:
			return
		case <-ticker.C:
			c.write(rec(1, "stdout", "F", "abc"))
		case <-deadline:
			c.t.Fatal("nothing was followed")
		}
	}
}

func (c *container) running(context.Context) (bool, error) {
	select {
	case <-c.end:
		return false, nil
	default:
		return true, nil
	}
}

// follow starts a follower and returns where it writes and what it returns at the end.
func follow(ctx context.Context, t *testing.T, r *Reader, c *container, o Options) (*client, chan error) {
	t.Helper()
	o.Follow = true
	cl, done := newClient(), make(chan error, 1)
	go func() { done <- r.Read(ctx, c.path, o, c.running, cl, cl) }()
	return cl, done
}

func TestFollow(t *testing.T) {
	var r Reader
	c := newContainer(t)
	c.write(rec(0, "stdout", "F", "before"))
	cl, done := follow(t.Context(), t, &r, c, all())
	cl.expect(t, "before\n")
	c.write("2026-01-02T03:04:05Z stdout F in two")
	c.write(" parts\n")
	cl.expect(t, "before\nin two parts\n")
	c.write(rec(1, "stdout", "F", "end"))
	close(c.end)
	if err := <-done; err != nil || cl.String() != "before\nin two parts\nend\n" {
		t.Errorf("follower ended with %q, %v", cl.String(), err)
	}
	r.Close()
}

func TestFollowAcrossRotations(t *testing.T) {
	var r Reader
	c := newContainer(t)
	c.write(rec(0, "stdout", "F", "0"))
	cl, done := follow(t.Context(), t, &r, c, all())
	want := "0\n"
	cl.expect(t, want)
	for i := 1; i <= 5; i++ {
		if err := rotate(t.Context(), c.path, 3, epoch.Add(time.Duration(i)*time.Second), c.reopen); err != nil {
			t.Fatal(err)
		}
		c.write(rec(i, "stdout", "F", fmt.Sprint(i)))
		want += fmt.Sprintf("straggler\n%d\n", i)
		cl.expect(t, want)
	}
	close(c.end)
	if err := <-done; err != nil {
		t.Error(err)
	}
	r.Close()
}

func TestFollowCatchesUpOverManyRotations(t *testing.T) {
	c := newContainer(t)
	f, err := os.Open(c.path)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	l := &reading{path: c.path, file: f, scanner: newScanner(f), writer: newWriter(all(), &out, &out)}
	defer func() { l.file.Close() }()
	c.write(rec(0, "stdout", "F", "0"))
	for i := 1; i <= 2; i++ {
		c.reopenAs(t, i)
	}
	if err := l.last(t.Context()); err != nil {
		t.Fatal(err)
	}
	if want := "0\nstraggler\n1\nstraggler\n2\n"; out.String() != want {
		t.Errorf("a slow follower has %q, want %q", out.String(), want)
	}
}

func TestFollowOutlivesTheRuntimeAndEndsWithTheContainer(t *testing.T) {
	var r Reader
	c := newContainer(t)
	c.write(rec(0, "stdout", "F", "a"))
	asked := make(chan error)
	running := func(context.Context) (bool, error) { return false, <-asked }
	o := all()
	o.Follow = true
	cl, done := newClient(), make(chan error, 1)
	go func() { done <- r.Read(t.Context(), c.path, o, running, cl, cl) }()
	cl.expect(t, "a\n")
	asked <- fmt.Errorf("status: %w", cri.ErrUnavailable)
	c.write(rec(1, "stdout", "F", "b"))
	cl.expect(t, "a\nb\n")
	if err := os.RemoveAll(filepath.Dir(c.path)); err != nil {
		t.Fatal(err)
	}
	asked <- fmt.Errorf("status: %w", cri.ErrNotFound)
	if err := <-done; err != nil {
		t.Errorf("a container that was removed: %v", err)
	}
	r.Close()
}

// reopenAs moves the log aside without compressing others, and writes a line to the new one.
func (c *container) reopenAs(t *testing.T, i int) {
	t.Helper()
	if err := os.Rename(c.path, c.path+"."+epoch.Add(time.Duration(i)*time.Second).Format(stampFormat)); err != nil {
		t.Fatal(err)
	}
	if err := c.reopen(t.Context()); err != nil {
		t.Fatal(err)
	}
	c.write(rec(i, "stdout", "F", fmt.Sprint(i)))
}

func TestFollowEndsWithItsClient(t *testing.T) {
	var r Reader
	c := newContainer(t)
	ctx, cancel := context.WithCancel(t.Context())
	o := all()
	o.Tail = 0
	cl, done := follow(ctx, t, &r, c, o)
	c.writeUntil(cl.changed)
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("follower ended with %v", err)
	}
	o.LimitBytes = 2
	cl, done = follow(t.Context(), t, &r, c, o)
	c.writeUntil(cl.changed)
	if err := <-done; err != nil || cl.String() != "ab" {
		t.Errorf("follower with a limit ended with %q, %v", cl.String(), err)
	}
	r.Close()
}

func TestManyFollowersShareOneWatcher(t *testing.T) {
	var r Reader
	c := newContainer(t)
	other := newContainer(t)
	var dones []chan error
	var clients []*client
	// Beyond what a user may have of inotify instances.
	for range 200 {
		cl, done := follow(t.Context(), t, &r, c, all())
		clients, dones = append(clients, cl), append(dones, done)
	}
	cl, done := follow(t.Context(), t, &r, other, all())
	clients, dones = append(clients, cl), append(dones, done)
	c.write(rec(0, "stdout", "F", "all"))
	other.write(rec(0, "stdout", "F", "all"))
	for _, cl := range clients {
		cl.expect(t, "all\n")
	}
	close(c.end)
	close(other.end)
	for _, done := range dones {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	r.Close()
	if r.watches.watcher != nil || len(r.watches.readers) != 0 {
		t.Error("a watch is left")
	}
}

func TestReadWaitsForARotationToFinish(t *testing.T) {
	path := file(t, "")
	if err := os.Rename(path, path+".20260102-030405"); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	var r Reader
	done := make(chan error, 1)
	go func() { done <- r.Read(t.Context(), path, all(), nil, &out, nil) }()
	tmp := path + ".new"
	if err := os.WriteFile(tmp, []byte(rec(0, "stdout", "F", "new")), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(tmp, path); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil || out.String() != "new\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}

func FuzzParse(f *testing.F) {
	for line := range strings.Lines(sample) {
		f.Add([]byte(line))
	}
	f.Fuzz(func(t *testing.T, line []byte) {
		if end := bytes.IndexByte(line, newline); end >= 0 && end != len(line)-1 {
			t.Skip("more than a line")
		}
		r, err := parse(line)
		if err == nil && !bytes.HasSuffix(bytes.TrimSuffix(line, []byte("\n")), bytes.TrimSuffix(r.text, []byte("\n"))) {
			t.Errorf("the text of %q is %q", line, r.text)
		}
	})
}

func FuzzTail(f *testing.F) {
	f.Add([]byte(sample), int64(2))
	f.Fuzz(func(t *testing.T, content []byte, n int64) {
		start, err := tailStart(bytes.NewReader(content), int64(len(content)), n)
		if err != nil || start < 0 || start > int64(len(content)) || (start > 0 && start < int64(len(content)) && content[start-1] != newline) {
			t.Errorf("tailStart(%q, %d) = %d, %v", content, n, start, err)
		}
	})
}
