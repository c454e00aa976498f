package passthrough

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/hanwen/go-fuse/v2/posixtest"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/client"
)

const inside = "SIDEMOUNT_TEST_NAMESPACE"

// serving and servingAt make this program a server of a directory. It is a process of its own, so that no end of the tests leaves one that waits for itself.
const (
	serving   = "SIDEMOUNT_TEST_SOURCE"
	servingAt = "SIDEMOUNT_TEST_TARGET"
)

// TestMain runs everything in a mount namespace of its own, so that no test can leave a mount on the machine.
func TestMain(m *testing.M) {
	if source := os.Getenv(serving); source != "" {
		if err := runServer(source, os.Getenv(servingAt)); err != nil {
			fmt.Fprintln(os.Stderr, "serve:", err)
			os.Exit(1)
		}
		return
	}
	if os.Geteuid() != 0 || os.Getenv(inside) != "" {
		os.Exit(m.Run())
	}
	cmd := exec.Command("/proc/self/exe", os.Args[1:]...)
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := cmd.Run()
	if exit, ok := err.(*exec.ExitError); ok {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "run the tests in a mount namespace:", err)
		os.Exit(1)
	}
}

// serve mounts a directory and returns where.
func serve(t *testing.T, source string) string {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("skipped: mounting needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skip("skipped: ", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	target := t.TempDir()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), serving+"="+source, servingAt+"="+target, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	ready, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(target, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("the server: %v", err)
		}
	})
	if _, err := ready.Read(make([]byte, 1)); err != nil {
		t.Fatalf("the server does not start: %v", err)
	}
	return target
}

// runServer mounts a directory and serves it until it is unmounted.
func runServer(source, target string) error {
	fs, err := New(mount.Volume{Config: map[string]string{"path": source}}, newMemory())
	if err != nil {
		return err
	}
	o, err := client.MountOptions(mount.Passthrough)
	if err != nil {
		return err
	}
	o.DirectMountStrict, o.AllowOther, o.Options = true, true, []string{"default_permissions"}
	server, err := fuse.NewServer(fs, target, o)
	if err != nil {
		return err
	}
	os.Stdout.Write([]byte{'\n'})
	server.Serve()
	return nil
}

func TestPosix(t *testing.T) {
	// The locks of one process conflict only in a file system that takes every handle for a process of its own.
	const notPosix = "FcntlFlockLocksFile"
	for name, test := range posixtest.All {
		if name != notPosix {
			t.Run(name, func(t *testing.T) { test(t, serve(t, t.TempDir())) })
		}
	}
}

func TestLargeDirectory(t *testing.T) {
	source := t.TempDir()
	const files = 5000
	for i := range files {
		if err := os.WriteFile(filepath.Join(source, fmt.Sprintf("file-%d", i)), nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	entries, err := os.ReadDir(serve(t, source))
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]bool{}
	for _, e := range entries {
		seen[e.Name()] = true
	}
	if len(entries) != files || len(seen) != files {
		t.Errorf("%d entries, %d different ones, want %d", len(entries), len(seen), files)
	}
}

func TestNothingLeadsOut(t *testing.T) {
	outside := t.TempDir()
	if err := os.WriteFile(filepath.Join(outside, "secret"), []byte("x"), 0o644); err != nil {
		t.Fatal(err)
	}
	source := t.TempDir()
	target := serve(t, source)
	if err := os.Mkdir(filepath.Join(target, "dir"), 0o755); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(filepath.Join(target, "dir"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	// Somebody with access to the directory itself puts a symbolic link in the place of a directory that is in use.
	if err := os.Remove(filepath.Join(source, "dir")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(outside, filepath.Join(source, "dir")); err != nil {
		t.Fatal(err)
	}
	var st unix.Stat_t
	if err := unix.Fstatat(int(f.Fd()), "secret", &st, 0); err != unix.ESTALE && err != unix.ENOENT {
		t.Errorf("got %v through a directory that was replaced", err)
	}
	// A mount below the directory is another file system.
	if err := os.Mkdir(filepath.Join(source, "mnt"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("none", filepath.Join(source, "mnt"), "tmpfs", 0, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(filepath.Join(source, "mnt"), unix.MNT_DETACH)
	if _, err := os.Stat(filepath.Join(target, "mnt")); err == nil || !strings.Contains(err.Error(), unix.EXDEV.Error()) {
		t.Errorf("got %v for another file system, want EXDEV", err)
	}
}

func TestVolumeIsChecked(t *testing.T) {
	for name, v := range map[string]mount.Volume{
		"no path":           {},
		"a missing path":    {Config: map[string]string{"path": "/no/such/place"}},
		"a file":            {Config: map[string]string{"path": "/proc/version"}},
		"an unknown option": {Config: map[string]string{"path": "/"}, Options: []string{"cache-size=1"}},
	} {
		_, err := New(v, newMemory())
		if err == nil || !strings.Contains(err.Error(), mount.ErrConfig.Error()) {
			t.Errorf("%s: got %v, want ErrConfig", name, err)
		}
	}
}
