package volumes

import (
	"bufio"
	"context"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/utils"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
)

func TestMain(m *testing.M) {
	logrus.SetOutput(io.Discard)
	utils.SetOutput(io.Discard)
	os.Exit(m.Run())
}

// fileSystem is a JuiceFS file system of a test's own.
type fileSystem struct {
	t       testing.TB
	volume  mount.Volume
	options []string
}

// each runs a test on each kind of metadata engine that is there.
func each(t *testing.T, run func(t *testing.T, f *fileSystem)) {
	t.Run("sqlite", func(t *testing.T) { run(t, newFileSystem(t, "sqlite3://"+filepath.Join(t.TempDir(), "meta.db"))) })
	t.Run("redis", func(t *testing.T) { run(t, newFileSystem(t, "redis://"+startRedis(t)+"/1")) })
}

func newFileSystem(t testing.TB, metaURL string) *fileSystem {
	return &fileSystem{t: t, volume: mount.Volume{Client: mount.JuiceFS, Secret: mount.Secret{
		"name": "testfs", "metaurl": metaURL, "storage": "file", "bucket": filepath.Join(t.TempDir(), "objects"), "trash-days": "0",
	}}}
}

// connect opens the file system with a metadata client of its own, as each worker has.
func (f *fileSystem) connect() meta.Meta {
	f.t.Helper()
	f.volume.Options = f.options
	spec, err := engine.Parse(f.volume)
	if err != nil {
		f.t.Fatal(err)
	}
	a, err := engine.Administer(context.Background(), spec, true)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() {
		if err := a.Close(); err != nil {
			f.t.Error(err)
		}
	})
	return a.Meta
}

// serve starts a Service on a metadata client, with its trash being emptied.
func (f *fileSystem) serve(m meta.Meta) *Service {
	f.t.Helper()
	s := f.service(m)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.Run(ctx) }()
	f.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			f.t.Error(err)
		}
	})
	return s
}

// service is a Service whose trash nobody empties.
func (f *fileSystem) service(m meta.Meta) *Service {
	f.t.Helper()
	subdir := ""
	for _, o := range f.options {
		if dir, ok := strings.CutPrefix(o, "subdir="); ok {
			subdir = dir
		}
	}
	s, err := New(Options{Meta: m, Subdir: subdir, Patience: 30 * time.Second})
	if err != nil {
		f.t.Fatal(err)
	}
	return s
}

func startRedis(t testing.TB) string {
	t.Helper()
	server, err := exec.LookPath("redis-server")
	if err != nil {
		t.Skip("there is no redis-server: " + err.Error())
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := l.Addr().String()
	_, port, _ := net.SplitHostPort(address)
	l.Close()
	cmd := exec.Command(server, "--port", port, "--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", t.TempDir())
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	ready := make(chan struct{})
	go func() {
		told := false
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if !told && strings.Contains(lines.Text(), "eady to accept connections") {
				told = true
				close(ready)
			}
		}
	}()
	select {
	case <-ready:
	case <-time.After(20 * time.Second):
		t.Fatal("redis-server does not start")
	}
	return address
}

// tree reads the file system below a directory: path → "d" or "f", with the reserved directory left out unless it is the start.
func tree(t *testing.T, m meta.Meta, start string) map[string]string {
	t.Helper()
	ctx := meta.Background()
	ino := meta.RootInode
	for _, part := range strings.Split(start, "/") {
		if part == "" {
			continue
		}
		var attr meta.Attr
		if st := m.Lookup(ctx, ino, part, &ino, &attr, false); st != 0 {
			t.Fatalf("look up %s of %s: %v", part, start, st)
		}
	}
	all := make(map[string]string)
	var visit func(ino meta.Ino, path string)
	visit = func(ino meta.Ino, path string) {
		var entries []*meta.Entry
		if st := m.Readdir(ctx, ino, 1, &entries); st == syscall.ENOENT {
			return // it is being removed
		} else if st != 0 {
			t.Fatalf("list %s: %v", path, st)
		}
		for _, e := range entries {
			name := string(e.Name)
			if name == "." || name == ".." || name == admin.Reserved || name == meta.TrashName {
				continue
			}
			one := strings.TrimPrefix(path+"/"+name, "/")
			if e.Attr.Typ == meta.TypeDirectory {
				all[one] = "d"
				visit(e.Inode, one)
			} else {
				all[one] = "f"
			}
		}
	}
	visit(ino, "")
	return all
}

// touch makes an empty file with all directories above it.
func touch(t *testing.T, m meta.Meta, path string) {
	t.Helper()
	ctx := meta.Background()
	parts := strings.Split(path, "/")
	ino := meta.RootInode
	var attr meta.Attr
	for _, part := range parts[:len(parts)-1] {
		var next meta.Ino
		st := m.Lookup(ctx, ino, part, &next, &attr, false)
		if st == syscall.ENOENT {
			st = m.Mkdir(ctx, ino, part, 0o755, 0, 0, &next, &attr)
		}
		if st != 0 {
			t.Fatalf("%s: %v", path, st)
		}
		ino = next
	}
	var made meta.Ino
	if st := m.Mknod(ctx, ino, parts[len(parts)-1], meta.TypeFile, 0o644, 0, 0, "", &made, &attr); st != 0 {
		t.Fatalf("%s: %v", path, st)
	}
}

// eventually waits for a state that a goroutine brings about.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	deadline := time.After(30 * time.Second)
	for !ok() {
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatal(what + ": not within 30 s")
		}
	}
}
