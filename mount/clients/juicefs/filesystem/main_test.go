package filesystem_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
	"github.com/sidemount/sidemount/mount/clients/juicefs/filesystem"
)

// childEnv makes the test binary a file server: it mounts and serves the volume on standard input at the directory it names.
// A mount must not be used from the process that serves it: a page fault or a fork of the test would wait for itself.
const childEnv = "SIDEMOUNT_TEST_SERVE_AT"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := serveAt(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// testSession keeps its values and its memory as long as the process.
type testSession struct {
	mu     sync.Mutex
	values map[string][]byte
	memory []byte
}

func newTestSession() (*testSession, error) {
	memory, err := unix.Mmap(-1, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	return &testSession{values: make(map[string][]byte), memory: memory}, err
}

func (s *testSession) Memory() []byte { return s.memory }

func (s *testSession) Get(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	return v, ok
}

func (s *testSession) Put(key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.values[key] = value
	return nil
}

func serveAt(dir string) error {
	var v mount.Volume
	if err := json.NewDecoder(os.Stdin).Decode(&v); err != nil {
		return err
	}
	spec, err := engine.Parse(v)
	if err != nil {
		return err
	}
	session, err := newTestSession()
	if err != nil {
		return err
	}
	fs, err := filesystem.New(filesystem.Options{
		Session: session,
		Open: func(ctx context.Context, before engine.Earlier) (*engine.Engine, error) {
			c, err := engine.Connect(ctx, spec, before)
			if err != nil {
				return nil, err
			}
			return c.Start(engine.Options{MemoryLimit: 1 << 30})
		},
		Fatal:    func(err error) { fmt.Fprintln(os.Stderr, err); os.Exit(1) },
		Features: spec.Features(),
	})
	if err != nil {
		return err
	}
	server, err := fuse.NewServer(fs, dir, &fuse.MountOptions{
		AllowOther: true, DirectMount: true, DirectMountStrict: true, EnableLocks: true, Options: []string{"default_permissions"},
		FsName: "sidemount-test", Name: "juicefs", MaxWrite: 1 << 20,
	})
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	served := make(chan struct{})
	go func() {
		defer close(served)
		server.Serve()
	}()
	select {
	case <-ctx.Done():
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			return err
		}
	case <-served:
	}
	return fs.Shutdown(context.Background())
}

// needFUSE skips a test that cannot mount here, and says why.
func needFUSE(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("there is no /dev/fuse: ", err)
	}
}

// sqliteVolume describes a new volume in a directory: SQLite and files.
func sqliteVolume(dir string, options ...string) mount.Volume {
	return mount.Volume{
		ID: "test", Name: "data", Client: mount.JuiceFS,
		Secret: mount.Secret{
			"name": "testfs", "metaurl": "sqlite3://" + filepath.Join(dir, "meta.db"), "storage": "file",
			"bucket": filepath.Join(dir, "objects"), "trash-days": "0",
		},
		Options: append([]string{"enable-xattr", "no-bgjob"}, options...),
	}
}

// startMount serves a volume in a process of its own and returns the mount point once it answers.
func startMount(t testing.TB, v mount.Volume) string {
	t.Helper()
	needFUSE(t)
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"="+dir, "_FUSE_STATE_PATH=/proc/self/no-state")
	cmd.Stdin = strings.NewReader(string(text))
	log := &strings.Builder{}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()
	t.Cleanup(func() { stopMount(t, cmd.Process, exited, dir, log) })
	awaitMount(t, dir, exited, log)
	return dir
}

func awaitMount(t testing.TB, dir string, exited chan error, log *strings.Builder) {
	t.Helper()
	deadline := time.After(30 * time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err == nil && st.Type == unix.FUSE_SUPER_MAGIC {
			return
		}
		select {
		case err := <-exited:
			exited <- err
			t.Fatalf("the server ended: %v\n%s", err, log)
		case <-deadline:
			t.Fatal("the mount does not come up")
		case <-ticker.C:
		}
	}
}

func stopMount(t testing.TB, p *os.Process, exited chan error, dir string, log *strings.Builder) {
	_ = p.Signal(syscall.SIGTERM)
	select {
	case err := <-exited:
		if err != nil || t.Failed() {
			t.Errorf("the server ended: %v\n%s", err, log)
		}
	case <-time.After(30 * time.Second):
		t.Error("the server does not end on SIGTERM")
		_ = p.Kill()
		<-exited
	}
	_ = unix.Unmount(dir, unix.MNT_DETACH)
}
