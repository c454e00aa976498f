package admin

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// socketEnv makes the test binary ask the worker at a socket, as another user.
const socketEnv = "SIDEMOUNT_TEST_SOCKET"

func TestMain(m *testing.M) {
	if socket := os.Getenv(socketEnv); socket != "" {
		_, err := NewClient(socket).Capacity(context.Background(), CapacityQuery{})
		fmt.Print(err)
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// recorder is a Service that remembers what it was asked, and answers what it is told to.
type recorder struct {
	asked  any
	volume Volume
	shots  []Snapshot
	err    error
	block  bool
}

func (r *recorder) note(ctx context.Context, asked any) error {
	r.asked = asked
	if r.block {
		<-ctx.Done()
		return ctx.Err()
	}
	return r.err
}

func (r *recorder) CreateVolume(ctx context.Context, c CreateVolume) (Volume, error) {
	return r.volume, r.note(ctx, c)
}
func (r *recorder) DeleteVolume(ctx context.Context, c DeleteVolume) error { return r.note(ctx, c) }
func (r *recorder) Volume(ctx context.Context, q VolumeQuery) (Volume, error) {
	return r.volume, r.note(ctx, q)
}
func (r *recorder) ExpandVolume(ctx context.Context, c ExpandVolume) (Volume, error) {
	return r.volume, r.note(ctx, c)
}
func (r *recorder) CreateSnapshot(ctx context.Context, c CreateSnapshot) (Snapshot, error) {
	return r.shots[0], r.note(ctx, c)
}
func (r *recorder) DeleteSnapshot(ctx context.Context, c DeleteSnapshot) error { return r.note(ctx, c) }
func (r *recorder) Snapshots(ctx context.Context, q SnapshotsQuery) ([]Snapshot, error) {
	return r.shots, r.note(ctx, q)
}
func (r *recorder) Capacity(ctx context.Context, q CapacityQuery) (Capacity, error) {
	return Capacity{TotalBytes: 2, AvailableBytes: 1}, r.note(ctx, q)
}

// lines is a log.
type lines struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lines) Infof(format string, args ...any) {
	l.mu.Lock()
	defer l.mu.Unlock()
	fmt.Fprintf(&l.text, format+"\n", args...)
}
func (l *lines) Warnf(format string, args ...any) { l.Infof(format, args...) }
func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

func serve(t *testing.T, s Service) (socket string, log *lines) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), strings.Repeat("d", 120), "admin.sock")
	l, err := Listen(socket, nil)
	if err != nil {
		t.Fatal(err)
	}
	log = &lines{}
	server := &http.Server{Handler: NewHandler(s, log)}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	t.Cleanup(func() {
		_ = server.Close()
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return socket, log
}

const secret = "very-secret-value"

func system() FileSystem {
	return FileSystem{
		Client: mount.JuiceFS, Config: map[string]string{"a": "b"}, Options: []string{"subdir=x"}, Secret: mount.Secret{"metaurl": secret},
	}
}

func TestCommandsArriveAsTheyWereGiven(t *testing.T) {
	now := time.Now().UTC().Truncate(time.Second)
	r := &recorder{
		volume: Volume{ID: "v", Path: "p", CapacityBytes: 1, UsedBytes: 2, UsedInodes: 3, Source: &Source{SnapshotID: "s"}, Created: now},
		shots:  []Snapshot{{ID: "s", SourceVolumeID: "v", SizeBytes: 4, Created: now, Ready: true}},
	}
	socket, log := serve(t, r)
	c, ctx, f := NewClient(socket), context.Background(), system()
	for name, try := range map[string]struct {
		want any // what the service is asked
		run  func() (got, want any, err error)
	}{
		"CreateVolume": {CreateVolume{f, "v", "p", 5, 0o750, &Source{VolumeID: "w"}}, func() (any, any, error) {
			got, err := c.CreateVolume(ctx, CreateVolume{f, "v", "p", 5, 0o750, &Source{VolumeID: "w"}})
			return got, r.volume, err
		}},
		"DeleteVolume": {DeleteVolume{f, "v"}, func() (any, any, error) { return nil, nil, c.DeleteVolume(ctx, DeleteVolume{f, "v"}) }},
		"Volume": {VolumeQuery{f, "v"}, func() (any, any, error) {
			got, err := c.Volume(ctx, VolumeQuery{f, "v"})
			return got, r.volume, err
		}},
		"ExpandVolume": {ExpandVolume{f, "v", 9}, func() (any, any, error) {
			got, err := c.ExpandVolume(ctx, ExpandVolume{f, "v", 9})
			return got, r.volume, err
		}},
		"CreateSnapshot": {CreateSnapshot{f, "s", "v"}, func() (any, any, error) {
			got, err := c.CreateSnapshot(ctx, CreateSnapshot{f, "s", "v"})
			return got, r.shots[0], err
		}},
		"DeleteSnapshot": {DeleteSnapshot{f, "s"}, func() (any, any, error) { return nil, nil, c.DeleteSnapshot(ctx, DeleteSnapshot{f, "s"}) }},
		"Snapshots": {SnapshotsQuery{f, "s", "v"}, func() (any, any, error) {
			got, err := c.Snapshots(ctx, SnapshotsQuery{f, "s", "v"})
			return got, r.shots, err
		}},
		"Capacity": {CapacityQuery{f}, func() (any, any, error) {
			got, err := c.Capacity(ctx, CapacityQuery{f})
			return got, Capacity{TotalBytes: 2, AvailableBytes: 1}, err
		}},
	} {
		r.asked = nil
		got, want, err := try.run()
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s: answer %+v, %v; want %+v", name, got, err, want)
		}
		if !reflect.DeepEqual(r.asked, try.want) {
			t.Errorf("%s: asked %+v, want %+v", name, r.asked, try.want)
		}
	}
	if text := log.String(); strings.Contains(text, secret) || strings.Count(text, "done") != 8 {
		t.Errorf("log: %s", text)
	}
}

func TestErrorsSurviveTheWire(t *testing.T) {
	r := &recorder{}
	socket, _ := serve(t, r)
	c := NewClient(socket)
	for _, kind := range []error{ErrNotFound, ErrExists, ErrInvalid, ErrBusy, ErrInUse, ErrFull, mount.ErrConfig, mount.ErrUnavailable} {
		r.err = fmt.Errorf("volume v: %w: because", kind)
		err := c.DeleteVolume(context.Background(), DeleteVolume{system(), "v"})
		if !errors.Is(err, kind) || err.Error() != r.err.Error() || !Answered(err) {
			t.Errorf("%v arrives as %v", r.err, err)
		}
		for _, other := range codes {
			if other.err != kind && errors.Is(err, other.err) {
				t.Errorf("%v arrives as %v too", kind, other.err)
			}
		}
	}
	r.err = errors.New("something else")
	if err := c.DeleteVolume(context.Background(), DeleteVolume{system(), "v"}); err == nil || err.Error() != "something else" {
		t.Errorf("an internal error arrives as %v", err)
	}
}

func TestDeadlinesAreKept(t *testing.T) {
	r := &recorder{block: true}
	socket, _ := serve(t, r)
	ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
	defer cancel()
	began := time.Now()
	err := NewClient(socket).DeleteVolume(ctx, DeleteVolume{system(), "v"})
	if !errors.Is(err, context.DeadlineExceeded) || time.Since(began) > 5*time.Second {
		t.Errorf("%v after %s", err, time.Since(began))
	}
}

func TestAWorkerThatIsNotThere(t *testing.T) {
	for _, socket := range []string{filepath.Join(t.TempDir(), "none"), "/nonexistent/admin.sock"} {
		_, err := NewClient(socket).Capacity(context.Background(), CapacityQuery{system()})
		if !errors.Is(err, mount.ErrUnavailable) || Answered(err) {
			t.Errorf("%s: %v", socket, err)
		}
	}
}

func TestBadBodiesAreRefusedAndNotQuoted(t *testing.T) {
	socket, log := serve(t, &recorder{})
	h := &http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx, socket) }}}
	defer h.CloseIdleConnections()
	for name, body := range map[string]string{
		"no JSON": secret, "another type": `{"id": {"` + secret + `": 1}}`, "unknown field": `{"` + secret + `": 1}`, "nothing": "",
		"too large": `{"id": "` + strings.Repeat("x", MaxBody) + `"}`,
	} {
		answer, err := h.Post("http://worker/v1/DeleteVolume", "application/json", strings.NewReader(body))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		text, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != http.StatusBadRequest || strings.Contains(string(text), secret) {
			t.Errorf("%s: %d %s", name, answer.StatusCode, text)
		}
	}
	if strings.Contains(log.String(), secret) {
		t.Errorf("log: %s", log)
	}
}

func TestOtherUsersAreHungUpOn(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to become another user")
	}
	base, err := os.MkdirTemp("", "admin-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(base) })
	if err := os.Chmod(base, 0o755); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(base, "program")
	text, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, text, 0o755); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(base, "admin.sock")
	l, err := Listen(socket, []uint32{1234})
	if err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(socket)
	if err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket has mode %v, %v", info.Mode(), err)
	}
	if err := os.Chmod(socket, 0o666); err != nil { // so that only the check of the peer stands in the way
		t.Fatal(err)
	}
	server := &http.Server{Handler: NewHandler(&recorder{}, &lines{})}
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	defer func() {
		_ = server.Close()
		<-ended
	}()
	for uid, want := range map[uint32]string{0: "<nil>", 1234: "<nil>", 1235: mount.ErrUnavailable.Error()} {
		cmd := exec.Command(program)
		cmd.Env = []string{socketEnv + "=" + socket}
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.HasPrefix(string(out), want) {
			t.Errorf("user %d: %s, %v; want %s", uid, out, err, want)
		}
	}
}

func TestCleanPath(t *testing.T) {
	for path, want := range map[string]string{"a": "a", "/a/b/": "a/b", "a b/ü.x": "a b/ü.x", "...": "...", "x/.sidemount": "x/.sidemount"} {
		if got, err := CleanPath(path); err != nil || got != want {
			t.Errorf("%q: %q, %v; want %q", path, got, err, want)
		}
	}
	for _, path := range []string{"", "/", "//", ".", "..", "a/..", "../a", "a//b", "a/./b", ".sidemount", "/.sidemount/x", "a\nb", "a\x00", "\xff", strings.Repeat("x", 256), strings.Repeat("x/", 600)} {
		if got, err := CleanPath(path); !errors.Is(err, ErrInvalid) {
			t.Errorf("%q: %q, %v; want %v", path, got, err, ErrInvalid)
		}
	}
}

func FuzzCleanPath(f *testing.F) {
	f.Add("a/b")
	f.Add("/../x")
	f.Fuzz(func(t *testing.T, path string) {
		clean, err := CleanPath(path)
		if err != nil {
			return
		}
		if again, err := CleanPath(clean); err != nil || again != clean {
			t.Errorf("%q becomes %q, and that %q, %v", path, clean, again, err)
		}
		if filepath.Clean("/"+clean) != "/"+clean || !filepath.IsLocal(clean) {
			t.Errorf("%q becomes %q", path, clean)
		}
	})
}
