package preflight

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// machine is a file tree that looks like a good host's.
type machine struct {
	t    *testing.T
	root string
	fuse func(context.Context) (Kernel, error)
}

func newMachine(t *testing.T) *machine {
	m := &machine{t: t, root: t.TempDir(), fuse: func(context.Context) (Kernel, error) { return Kernel{Resend: true, Passthrough: true}, nil }}
	m.write("proc/thread-self/status", "Name:\tsidemount\nCapEff:\t000001ffffffffff\n")
	m.write("proc/thread-self/mountinfo",
		"1 0 8:1 / / rw,relatime shared:1 - ext4 /dev/root rw\n2 1 0:5 / /run rw shared:2 - tmpfs tmpfs rw\n3 1 0:6 / /mnt/with\\040blank rw - ext4 /dev/vdb rw\n")
	m.write("proc/thread-self/limits", "Limit  Soft Limit  Hard Limit  Units\nMax open files            1024                 1048576              files     \n")
	m.write("proc/sys/kernel/osrelease", "6.12.41-generic\n")
	m.write("proc/sys/fs/inotify/max_user_instances", "8192\n")
	m.write("proc/sys/fs/inotify/max_user_watches", "524288\n")
	m.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma\n")
	m.write("var/lib/kubelet/plugins_registry/x", "")
	m.write("var/lib/kubelet/pods/x", "")
	if err := os.MkdirAll(m.path("dev"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/dev/null", m.path("dev/fuse")); err != nil {
		t.Fatal(err)
	}
	m.program("usr/local/bin/sidemount-agent", false)
	return m
}

func (m *machine) path(p string) string { return filepath.Join(m.root, p) }

func (m *machine) write(path, content string) {
	m.t.Helper()
	if err := os.MkdirAll(filepath.Dir(m.path(path)), 0o755); err != nil {
		m.t.Fatal(err)
	}
	if err := os.WriteFile(m.path(path), []byte(content), 0o644); err != nil {
		m.t.Fatal(err)
	}
}

// program writes the head of an ELF file with one program header, which names an interpreter if it is dynamic.
func (m *machine) program(path string, dynamic bool) {
	header := make([]byte, 64+56)
	copy(header, "\x7fELF\x02\x01\x01")
	header[16], header[18], header[20] = 2, 62, 1 // ET_EXEC, x86-64, version
	header[32], header[52], header[54], header[56] = 64, 64, 56, 1
	header[64] = 1 // PT_LOAD
	if dynamic {
		header[64] = 3 // PT_INTERP
	}
	m.write(path, string(header))
	if err := os.Chmod(m.path(path), 0o755); err != nil {
		m.t.Fatal(err)
	}
}

func (m *machine) examine(role Role) Report {
	m.t.Helper()
	h, err := New(Options{
		Role: role, Root: m.root, StateDir: "/var/lib/sidemount", RunDir: "/run/sidemount", KubeletDir: "/var/lib/kubelet",
		AgentPath: "/usr/local/bin/sidemount-agent", FUSE: m.fuse, Control: func() error { return nil },
	})
	if err != nil {
		m.t.Fatal(err)
	}
	return h.Examine(m.t.Context())
}

func TestGoodHostLacksNothing(t *testing.T) {
	for _, role := range Roles {
		r := newMachine(t).examine(role)
		for _, c := range r.Results {
			// The disk is that of the test.
			if c.Status != OK && !strings.HasPrefix(c.Check, "disk") {
				t.Errorf("%s: %+v", role, c)
			}
		}
		if !r.Usable() {
			t.Errorf("%s is not usable", role)
		}
	}
}

func TestWhatIsWrongIsFoundAndCured(t *testing.T) {
	for _, tt := range []struct {
		name   string
		role   Role
		spoil  func(m *machine)
		check  string
		status Status
		found  string
		cure   string
	}{
		{"an old kernel", VirtualNode, func(m *machine) { m.write("proc/sys/kernel/osrelease", "5.10.0-28-amd64\n") }, "kernel", Missing, "5.10.0", "5.12"},
		{"no capability", VirtualNode, func(m *machine) { m.write("proc/thread-self/status", "CapEff:\t00000000a80425fb\n") }, "privilege", Missing, "CAP_SYS_ADMIN", "root"},
		{"no device", VirtualNode, func(m *machine) { os.Remove(m.path("dev/fuse")) }, "/dev/fuse", Missing, "not there", "modprobe fuse"},
		{"a file for a device", VirtualNode, func(m *machine) { os.Remove(m.path("dev/fuse")); m.write("dev/fuse", "") }, "/dev/fuse", Missing, "not a device", "modprobe"},
		{"no resend", CSINode, func(m *machine) { m.fuse = func(context.Context) (Kernel, error) { return Kernel{}, nil } }, "FUSE", Warning, "cannot be sent again", "6.9"},
		{"mounts forbidden", CSINode, func(m *machine) {
			m.fuse = func(context.Context) (Kernel, error) { return Kernel{}, fmt.Errorf("fsopen fuse: %w", unix.EPERM) }
		}, "FUSE", Missing, "operation not permitted", "root"},
		{"no FUSE in the kernel", CSINode, func(m *machine) {
			m.fuse = func(context.Context) (Kernel, error) { return Kernel{}, fmt.Errorf("fsopen fuse: %w", unix.ENODEV) }
		}, "FUSE", Missing, "no such device", "modprobe fuse"},
		{"a private root", VirtualNode, func(m *machine) {
			m.write("proc/thread-self/mountinfo", "1 0 8:1 / / rw - ext4 /dev/root rw\n2 1 0:5 / /run rw - tmpfs tmpfs rw\n")
		}, "propagation of --root-dir", Missing, "private mount", "make-rshared /"},
		{"a private mount for the kubelet", CSINode, func(m *machine) {
			m.write("proc/thread-self/mountinfo", "1 0 8:1 / / rw shared:1 - ext4 /dev/root rw\n2 1 0:5 / /run rw - tmpfs tmpfs rw\n4 1 0:7 / /var/lib/kubelet rw - ext4 /dev/vdc rw\n")
		}, "propagation of kubelet directory", Missing, "/var/lib/kubelet is on /var/lib/kubelet", "make-rshared /var/lib/kubelet"},
		{"a link to a private mount", VirtualNode, func(m *machine) {
			if err := os.MkdirAll(m.path("mnt/with blank/sidemount"), 0o755); err != nil {
				m.t.Fatal(err)
			}
			if err := os.Symlink("../../mnt/with blank/sidemount", m.path("var/lib/sidemount")); err != nil {
				m.t.Fatal(err)
			}
		}, "propagation of --root-dir", Missing, "on /mnt/with blank", "make-rshared"},
		{"another kubelet directory", CSINode, func(m *machine) { os.RemoveAll(m.path("var/lib/kubelet")) }, "kubelet directory", Missing, "plugins_registry", "k0s"},
		{"control groups without memory", VirtualNode, func(m *machine) { m.write("sys/fs/cgroup/cgroup.controllers", "cpu pids\n") }, "control groups", Missing, "without memory", "cgroup_enable=memory"},
		{"control groups of version 1", VirtualNode, func(m *machine) {
			os.Remove(m.path("sys/fs/cgroup/cgroup.controllers"))
			for _, c := range []string{"cpu", "memory", "pids"} {
				m.write("sys/fs/cgroup/"+c+"/tasks", "")
			}
		}, "control groups", Warning, "version 1", "version 2"},
		{"no control groups", VirtualNode, func(m *machine) { os.RemoveAll(m.path("sys/fs/cgroup")) }, "control groups", Missing, "cpu, memory, pids", "mount cgroup2"},
		{"no agent", VirtualNode, func(m *machine) { os.Remove(m.path("usr/local/bin/sidemount-agent")) }, "agent", Missing, "not there", "--agent-path"},
		{"a dynamic agent", VirtualNode, func(m *machine) { m.program("usr/local/bin/sidemount-agent", true) }, "agent", Missing, "dynamically", "CGO_ENABLED=0"},
		{"a script for an agent", VirtualNode, func(m *machine) { m.write("usr/local/bin/sidemount-agent", "#!/bin/sh\n") }, "agent", Missing, "not a program", "beside"},
		{"few inotify instances", VirtualNode, func(m *machine) { m.write("proc/sys/fs/inotify/max_user_instances", "128\n") }, "inotify", Warning, "128", "fs.inotify.max_user_instances=512"},
		{"few open files", VirtualNode, func(m *machine) {
			m.write("proc/thread-self/limits", "Max open files            1024                 4096              files\n")
		}, "open files", Warning, "4096", "LimitNOFILE"},
		{"sockets on a disk", VirtualNode, func(m *machine) {
			m.write("proc/thread-self/mountinfo", "1 0 8:1 / / rw shared:1 - ext4 /dev/root rw\n")
		}, "sockets in /run/sidemount", Warning, "ext4", "/run"},
		{"a read-only disk", VirtualNode, func(m *machine) {
			m.write("proc/thread-self/mountinfo", "1 0 8:1 / / ro shared:1 - ext4 /dev/root ro\n2 1 0:5 / /run rw - tmpfs tmpfs rw\n")
		}, "disk of /var/lib/sidemount", Missing, "read-only", "written"},
	} {
		m := newMachine(t)
		tt.spoil(m)
		r := m.examine(tt.role)
		var got Result
		for _, c := range r.Results {
			if c.Check == tt.check {
				got = c
			}
		}
		if got.Status != tt.status || !strings.Contains(got.Found, tt.found) || !strings.Contains(got.Cure, tt.cure) {
			t.Errorf("%s: got %+v", tt.name, got)
		}
		if r.Usable() == (tt.status == Missing) {
			t.Errorf("%s: usable is %v", tt.name, r.Usable())
		}
	}
}

func TestEveryTroubleHasACure(t *testing.T) {
	h, err := New(Options{Role: VirtualNode, Root: t.TempDir(), StateDir: "/s", RunDir: "/r", AgentPath: "/a",
		FUSE: func(context.Context) (Kernel, error) { return Kernel{}, errors.New("broken") }, Control: func() error { return errors.New("broken") }})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range h.Examine(t.Context()).Results {
		if c.Status != OK && c.Cure == "" {
			t.Errorf("%+v has no cure", c)
		}
	}
}

func TestCheckHasADeadline(t *testing.T) {
	m := newMachine(t)
	h, err := New(Options{Role: VirtualNode, Root: m.root, StateDir: "/s", RunDir: "/r", AgentPath: "/a", Control: func() error { return nil }, Timeout: time.Millisecond,
		FUSE: func(ctx context.Context) (Kernel, error) {
			<-ctx.Done()
			return Kernel{}, ctx.Err()
		}})
	if err != nil {
		t.Fatal(err)
	}
	if h.Examine(t.Context()).Usable() {
		t.Error("a mount that never came is no trouble")
	}
}

func TestReportIsPrinted(t *testing.T) {
	r := Report{Role: CSINode, Results: []Result{ok("kernel", "Linux 6.12"), missing("FUSE", "no", "modprobe fuse")}}
	var table, text bytes.Buffer
	if err := errors.Join(r.WriteTable(&table), r.WriteJSON(&text)); err != nil {
		t.Fatal(err)
	}
	if want := "CHECK   STATUS   FOUND\nkernel  ok       Linux 6.12\nFUSE    missing  no\n                 cure: modprobe fuse\n"; table.String() != want {
		t.Errorf("got\n%s", table.String())
	}
	var back Report
	if err := json.Unmarshal(text.Bytes(), &back); err != nil || len(back.Results) != 2 || back.Results[1] != r.Results[1] || back.Role != CSINode {
		t.Errorf("got %+v, %v", back, err)
	}
}

func TestHostWantsAbsolutePaths(t *testing.T) {
	for _, o := range []Options{
		{Role: "pet", StateDir: "/s", RunDir: "/r", AgentPath: "/a"},
		{Role: VirtualNode, StateDir: "s", RunDir: "/r", AgentPath: "/a"},
		{Role: CSINode, StateDir: "/s", RunDir: "/r", AgentPath: "/a"},
	} {
		if _, err := New(o); !errors.Is(err, ErrRole) && !errors.Is(err, ErrPath) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

// This machine, where the other tests make FUSE mounts too.
func TestTryFUSEOnThisMachine(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes mounts: needs root")
	}
	if _, err := os.Stat("/dev/fuse"); err != nil {
		t.Skipf("makes FUSE mounts: %v", err)
	}
	before, err := os.ReadFile("/proc/thread-self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	found, err := TryFUSE(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("this kernel: %+v", found)
	if err := TryControl(); err != nil {
		t.Error(err)
	}
	if after, err := os.ReadFile("/proc/thread-self/mountinfo"); err != nil || bytes.Contains(after, []byte("sidemount-preflight")) || len(before) == 0 {
		t.Errorf("a mount is left, or %v:\n%s", err, after)
	}
	if left, _ := filepath.Glob(filepath.Join(os.TempDir(), "sidemount-preflight-*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// The propagation that the kernel shows for a mount of this machine is the one that mount(8) has set.
func TestPropagationOfARealMount(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("makes mounts: needs root")
	}
	if _, err := exec.LookPath("mount"); err != nil {
		t.Skip("needs mount(8)")
	}
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounts nothing here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	h := &Host{Options{Root: "/", StateDir: dir}}
	for flag, want := range map[uintptr]Status{unix.MS_SHARED: OK, unix.MS_PRIVATE: Missing} {
		if err := unix.Mount("", dir, "", flag, ""); err != nil {
			t.Fatal(err)
		}
		if got := h.propagation("it", filepath.Join(dir, "not", "yet"))(t.Context()); got.Status != want || !strings.Contains(got.Found, dir) {
			t.Errorf("got %+v, want %s", got, want)
		}
	}
}
