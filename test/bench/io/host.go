package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// memory is a file system in memory, at a path that host and cluster share.
type memory struct{ root string }

func newMemory() (*memory, error) {
	const root, size = "/var/lib/sidemount-io", "size=4g"
	if err := os.Mkdir(root, 0o755); err != nil {
		return nil, err
	}
	if err := unix.Mount("tmpfs", root, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, size); err != nil {
		return nil, errors.Join(fmt.Errorf("mount a file system in memory at %s: %w", root, err), os.Remove(root))
	}
	return &memory{root}, nil
}

func (m *memory) path(name string) string { return filepath.Join(m.root, name) }

func (m *memory) remove() error {
	return errors.Join(unix.Unmount(m.root, unix.MNT_DETACH), os.Remove(m.root))
}

// stockMount is a volume that stock JuiceFS serves on this host.
type stockMount struct {
	point string
	cmd   *exec.Cmd
	log   *os.File
	ended chan error
}

// mountStock formats a volume like that of the pod, in dir, and mounts it.
func mountStock(ctx context.Context, program, dir string) (*stockMount, error) {
	m := &stockMount{point: filepath.Join(dir, "mnt"), ended: make(chan error, 1)}
	meta := "sqlite3://" + filepath.Join(dir, "meta.db")
	if err := os.MkdirAll(m.point, 0o755); err != nil {
		return nil, err
	}
	format := exec.CommandContext(ctx, program, "format", "--storage", "file", "--bucket", filepath.Join(dir, "bucket")+"/", "--trash-days", "0", meta, "lab")
	if out, err := format.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("format a stock volume: %w: %s", err, out)
	}
	args := []string{"mount", "--no-usage-report", "--no-syslog"}
	for _, o := range clientOptions {
		key, value, _ := strings.Cut(o, "=")
		args = append(args, "--"+key, value)
	}
	var err error
	if m.log, err = os.Create(filepath.Join(dir, "log")); err != nil {
		return nil, err
	}
	m.cmd = exec.Command(program, append(args, meta, m.point)...)
	m.cmd.Stdout, m.cmd.Stderr = m.log, m.log
	if err := m.cmd.Start(); err != nil {
		return nil, errors.Join(err, m.log.Close())
	}
	go func() { m.ended <- m.cmd.Wait() }()
	if err := m.awaitMount(ctx); err != nil {
		return nil, errors.Join(err, m.end())
	}
	return m, nil
}

// awaitMount waits until the mount point is another file system than its parent.
func (m *stockMount) awaitMount(ctx context.Context) error {
	return until(ctx, "stock JuiceFS at "+m.point, func() (bool, error) {
		select {
		case err := <-m.ended:
			m.ended <- err
			said, _ := os.ReadFile(m.log.Name())
			return false, fmt.Errorf("stock JuiceFS has ended: %w: %s", err, said)
		default:
		}
		var above, here unix.Stat_t
		if err := errors.Join(unix.Stat(filepath.Dir(m.point), &above), unix.Stat(m.point, &here)); err != nil {
			return false, err
		}
		return above.Dev != here.Dev, nil
	})
}

// end unmounts and waits for the process.
func (m *stockMount) end() error {
	defer m.log.Close()
	if err := m.cmd.Process.Signal(unix.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-m.ended: //nolint:errcheck // a process that was asked to end says so by its exit status
	case <-time.After(20 * time.Second):
		_ = m.cmd.Process.Kill()
		<-m.ended //nolint:errcheck // it was killed
	}
	// It usually unmounts itself.
	if err := unix.Unmount(m.point, unix.MNT_DETACH); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount stock JuiceFS: %w", err)
	}
	return nil
}
