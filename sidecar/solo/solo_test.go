package solo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/sidecar/grant"
	"github.com/sidemount/sidemount/sidecar/readiness"
)

// inside marks the process that runs in a mount namespace of its own, so that no test can leave a mount on the machine.
const inside = "SIDEMOUNT_TEST_NAMESPACE"

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Run(); err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			os.Exit(exit.ExitCode())
		}
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		os.Exit(1)
	}
}

// patience is how long anything may take that takes a moment on an idle machine.
const patience = 30 * time.Second

// service grants what the test has put into it.
type service struct {
	mu     sync.Mutex
	volume *mount.Volume
	err    error
	asked  int
}

func (s *service) Ask(_ context.Context, volumes []string) ([]grant.Result, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.asked++
	if s.err != nil {
		return nil, s.err
	}
	results := make([]grant.Result, len(volumes))
	for i := range results {
		if s.volume == nil {
			results[i].Error = &grant.Failure{Message: "Secret a/b is not found"}
			continue
		}
		v := *s.volume
		results[i].Volume = &v
	}
	return results, nil
}

func (s *service) set(v *mount.Volume, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.volume, s.err = v, err
}

// trial is a pod: its directories, its holder and its one client's container.
type trial struct {
	t       *testing.T
	dir     string
	agent   string
	service *service
	stop    context.CancelFunc
	ended   chan error
}

func newTrial(t *testing.T) *trial {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("skipped: no /dev/fuse")
	}
	dir, err := os.MkdirTemp("", "solo-") // not t.TempDir: other users must get in
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	tr := &trial{t: t, dir: dir, agent: filepath.Join(dir, "agent"), service: &service{}}
	build := exec.CommandContext(t.Context(), "go", "build", "-o", tr.agent, "../../cmd/sidemount-agent")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the agent: %v: %s", err, out)
	}
	for _, name := range []string{"run", "mounts", "bin", "data"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	// The directory of the passthrough client's data belongs to its user.
	for _, path := range []string{dir, filepath.Join(dir, "data")} {
		if err := errors.Join(os.Chmod(path, 0o755), os.Chown(path, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func (tr *trial) start() {
	tr.t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	h, err := New(Options{
		Sessions: []Session{{ID: "data-1", Volume: "data", UID: 65534, GID: 65534}}, Granter: tr.service,
		RunDir: filepath.Join(tr.dir, "run"), MountsDir: filepath.Join(tr.dir, "mounts"), Agent: tr.agent, InstallDir: filepath.Join(tr.dir, "bin"),
		Retry: 20 * time.Millisecond, Log: log,
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	tr.stop, tr.ended = cancel, make(chan error, 1)
	go func() { tr.ended <- h.Run(ctx) }()
	tr.t.Cleanup(cancel)
}

func (tr *trial) end() {
	tr.t.Helper()
	tr.stop()
	select {
	case err := <-tr.ended:
		if err != nil {
			tr.t.Error(err)
		}
	case <-time.After(patience):
		tr.t.Fatal("the holder does not end")
	}
	if _, err := fuse.Find(filepath.Join(tr.dir, "mounts", "data")); !errors.Is(err, fuse.ErrNotMounted) {
		tr.t.Errorf("after the end: %v", err)
	}
}

// client starts what runs in the client's container.
func (tr *trial) client() *exec.Cmd {
	tr.t.Helper()
	agent := filepath.Join(tr.dir, "bin", "sidemount-agent")
	cmd := exec.Command(agent, "run", "-socket", filepath.Join(tr.dir, "run", "sessions", "data-1", "agent.sock"), "--", agent, "passthrough")
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Setpgid: true}
	if err := cmd.Start(); err != nil {
		tr.t.Fatal(err)
	}
	tr.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait() // again, if the test has waited
	})
	return cmd
}

// says waits until the holder answers so; "" means yes.
func (tr *trial) says(state, want string) {
	tr.t.Helper()
	var last error
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		ctx, cancel := context.WithTimeout(tr.t.Context(), patience)
		last = readiness.Ask(ctx, filepath.Join(tr.dir, "run", "status", "status.sock"), state)
		cancel()
		if want == "" && last == nil || want != "" && last != nil && strings.Contains(last.Error(), want) {
			return
		}
		select {
		case <-tr.t.Context().Done():
		case <-time.After(20 * time.Millisecond):
		}
	}
	tr.t.Fatalf("asked for %s: %v, want %q", state, last, want)
}

func (tr *trial) passthrough() *mount.Volume {
	return &mount.Volume{ID: "pv", Name: "data", Client: mount.Passthrough, Config: map[string]string{"path": filepath.Join(tr.dir, "data")}}
}

// touch makes a file through the mount, in a process that may hang.
func (tr *trial) touch(name string) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, "touch", filepath.Join(tr.dir, "mounts", "data", name))
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if out, err := cmd.CombinedOutput(); err != nil {
		tr.t.Fatalf("touch %s: %v: %s", name, err, out)
	}
	if _, err := os.Stat(filepath.Join(tr.dir, "data", name)); err != nil {
		tr.t.Error(err)
	}
}

func TestAPodsLife(t *testing.T) {
	tr := newTrial(t)
	tr.start()
	tr.says("nonsense", "no such state")
	tr.says(readiness.Mounted, "Secret a/b is not found")
	tr.service.set(nil, errors.New("nobody answers"))
	tr.says(readiness.Mounted, "nobody answers")
	tr.service.set(tr.passthrough(), nil)
	tr.says(readiness.Mounted, "")
	tr.says(readiness.Serving, `volume "data"`)
	first := tr.client()
	tr.says(readiness.Serving, "")
	tr.touch("first")

	// The client's container dies as a whole.
	if err := syscall.Kill(-first.Process.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	_ = first.Wait()
	second := tr.client()
	tr.says(readiness.Serving, "")
	tr.touch("second")

	// The pod ends: clients first, as their containers do.
	if err := second.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("client's container: %v", err)
	}
	tr.end()
}

func TestTheEndDoesNotWaitForAClientThatNeverCame(t *testing.T) {
	tr := newTrial(t)
	tr.service.set(tr.passthrough(), nil)
	tr.start()
	tr.says(readiness.Mounted, "")
	began := time.Now()
	tr.end()
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("took %s, and a kubelet may give two seconds", took)
	}
}

func TestAMendedVolumeReachesAClientThatCouldNotServe(t *testing.T) {
	tr := newTrial(t)
	wrong := tr.passthrough()
	wrong.Config["path"] = filepath.Join(tr.dir, "absent")
	tr.service.set(wrong, nil)
	tr.start()
	tr.says(readiness.Mounted, "")
	tr.client()
	tr.says(readiness.Serving, "absent")
	tr.service.set(tr.passthrough(), nil)
	tr.says(readiness.Serving, "")
	tr.end()
}

func TestAnotherVolumesDescriptionIsNotUsed(t *testing.T) {
	tr := newTrial(t)
	other := tr.passthrough()
	other.Name = "other"
	tr.service.set(other, nil)
	tr.start()
	tr.says(readiness.Mounted, `got "other"`)
	tr.end()
}

func TestOptions(t *testing.T) {
	whole := Options{Sessions: []Session{{ID: "a"}}, Granter: &service{}, RunDir: "r", MountsDir: "m", Agent: "a", InstallDir: "i"}
	for i, spoil := range []func(*Options){
		func(o *Options) { o.Sessions = nil }, func(o *Options) { o.Granter = nil }, func(o *Options) { o.RunDir = "" },
		func(o *Options) { o.MountsDir = "" }, func(o *Options) { o.Agent = "" }, func(o *Options) { o.InstallDir = "" },
	} {
		o := whole
		spoil(&o)
		if _, err := New(o); err == nil {
			t.Errorf("%d: no error", i)
		}
	}
	if _, err := New(whole); err != nil {
		t.Error(err)
	}
}
