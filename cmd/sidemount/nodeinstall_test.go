package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
)

var update = flag.Bool("update", false, "write golden files and the generated parts of the documentation anew")

// golden compares with a file in testdata.
func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s (-update writes it anew):\n%s", file, got)
	}
}

// nodeFlags returns a node's flags as a command line sets them.
func nodeFlags(t *testing.T, args ...string) (*nodeOptions, *pflag.FlagSet) {
	t.Helper()
	o, flags := &nodeOptions{}, pflag.NewFlagSet("install", pflag.ContinueOnError)
	o.addTo(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o, flags
}

func TestUnitIsAsAccepted(t *testing.T) {
	for name, args := range map[string][]string{
		"unit-containerd.golden": {"--node-name", "vn-1", "--kubeconfig", "/etc/sidemount/kubeconfig", "--cluster-dns", "10.96.0.10",
			"--driver-name", "csi.sidemount.io,csi.juicefs.com", "--capacity", "memory=16Gi", "--taints", "none"},
		"unit-crio.golden": {"--node-name", "vn-2", "--runtime-endpoint", "unix:///run/crio/crio.sock", "--root-dir", "/data/sidemount", "--resolv-conf", `/etc/"a" $b\c`},
	} {
		node, flags := nodeFlags(t, args...)
		o := &installOptions{program: "/usr/local/bin/sidemount", unitDir: "/etc/systemd/system", envFile: "/etc/sidemount/node.env"}
		u, err := newUnit(o, node, flags, &pflag.FlagSet{})
		if err != nil {
			t.Fatal(err)
		}
		var b bytes.Buffer
		if err := u.print(&b); err != nil {
			t.Fatal(err)
		}
		golden(t, name, b.String())
	}
}

// systemd passes over what it does not understand with a warning, so what the golden files hold must have been read by it once.
func TestSystemdUnderstandsTheUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("there is no systemd: ", err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	node, flags := nodeFlags(t, "--node-name", "vn-1")
	dir := t.TempDir()
	o := &installOptions{program: program, unitDir: dir, envFile: filepath.Join(dir, "node.env")}
	u, err := newUnit(o, node, flags, &pflag.FlagSet{})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "sidemount-node.service")
	if err := os.WriteFile(path, []byte(u.text), 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", "--recursive-errors=no", path).CombinedOutput()
	if err != nil || len(out) > 0 {
		t.Errorf("%v: %s", err, out)
	}
}

// What is written is what the node reads: every flag's value survives the file.
func TestEnvironmentFileIsReadBack(t *testing.T) {
	args := []string{"--capacity", "cpu=8,memory=16Gi", "--cluster-dns", "10.0.0.1,10.0.0.2", "--node-name", "vn-1", "--seccomp-default", "--port", "10260"}
	_, flags := nodeFlags(t, args...)
	text, err := environmentOf(flags, &pflag.FlagSet{})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(text) {
		if name, value, ok := strings.Cut(strings.TrimSpace(line), "="); ok && !strings.HasPrefix(line, "#") {
			t.Setenv(name, strings.Trim(value, `"`))
		}
	}
	got, again := nodeFlags(t)
	if err := fromEnvironment(again); err != nil {
		t.Fatal(err)
	}
	if got.nodeName != "vn-1" || got.port != 10260 || !got.seccompDefault || got.capacity["memory"] != "16Gi" || got.capacity["cpu"] != "8" ||
		!slices.Equal(got.clusterDNS, []string{"10.0.0.1", "10.0.0.2"}) {
		t.Errorf("read back %+v from\n%s", got, text)
	}
}

func TestUnitRefusesPathsThatSystemdWouldReadOtherwise(t *testing.T) {
	node, flags := nodeFlags(t, "--root-dir", "/var/lib/side mount")
	if _, err := newUnit(&installOptions{program: "/sidemount", envFile: "/env"}, node, flags, &pflag.FlagSet{}); err == nil {
		t.Error("a path with a blank was accepted")
	}
}

// place is a directory to install into, and what systemctl was asked for.
type place struct {
	*installOptions
	asked [][]string
	fails error
}

func newPlace(t *testing.T) *place {
	dir := t.TempDir()
	p := &place{installOptions: newInstallOptions()}
	p.program, p.unitDir, p.envFile, p.booted = "/usr/local/bin/sidemount", filepath.Join(dir, "units"), filepath.Join(dir, "etc", "node.env"), dir
	p.systemctl = func(_ context.Context, args ...string) error {
		p.asked = append(p.asked, args)
		return p.fails
	}
	return p
}

// install returns what was said and what systemctl was asked for.
func (p *place) run(t *testing.T, args ...string) (said string, asked string) {
	t.Helper()
	node, flags := nodeFlags(t, args...)
	u, err := newUnit(p.installOptions, node, flags, &pflag.FlagSet{})
	if err != nil {
		t.Fatal(err)
	}
	p.asked = nil
	var out bytes.Buffer
	if err := p.install(t.Context(), &out, u); err != nil {
		t.Fatal(err)
	}
	return out.String(), p.calls()
}

func (p *place) calls() string {
	var lines []string
	for _, a := range p.asked {
		lines = append(lines, strings.Join(a, " "))
	}
	return strings.Join(lines, "; ")
}

func TestInstallMayBeRepeated(t *testing.T) {
	p := newPlace(t)
	p.start = true
	const whole = "daemon-reload; enable sidemount-node.service; "
	said, asked := p.run(t, "--node-name", "vn-1")
	if strings.Count(said, ": written") != 2 || asked != whole+"restart sidemount-node.service" {
		t.Errorf("the first time: %q, %q", said, asked)
	}
	said, asked = p.run(t, "--node-name", "vn-1")
	if strings.Count(said, ": unchanged") != 2 || asked != whole+"start sidemount-node.service" {
		t.Errorf("the second time: %q, %q; a node that runs is not to be restarted", said, asked)
	}
	said, asked = p.run(t, "--node-name", "vn-2")
	if !strings.Contains(said, "node.env: written") || !strings.Contains(said, "service: unchanged") || asked != whole+"restart sidemount-node.service" {
		t.Errorf("with another setting: %q, %q", said, asked)
	}
	info, err := os.Stat(p.envFile)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: the settings are the administrator's", info, err)
	}
	left, err := filepath.Glob(filepath.Join(filepath.Dir(p.envFile), ".*"))
	if err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestInstallWithoutSystemdSaysSo(t *testing.T) {
	p := newPlace(t)
	p.booted = filepath.Join(p.booted, "absent")
	said, asked := p.run(t)
	if !strings.Contains(said, "systemd does not run this host") || asked != "" {
		t.Errorf("%q, %q", said, asked)
	}
	p.start = true
	node, flags := nodeFlags(t)
	u, err := newUnit(p.installOptions, node, flags, &pflag.FlagSet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.install(t.Context(), &bytes.Buffer{}, u); err == nil || !strings.Contains(err.Error(), "systemd does not run this host") {
		t.Errorf("got %v", err)
	}
}

func TestInstallTellsWhatSystemdSays(t *testing.T) {
	p := newPlace(t)
	p.fails = errors.New("no such unit")
	node, flags := nodeFlags(t)
	u, err := newUnit(p.installOptions, node, flags, &pflag.FlagSet{})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.install(t.Context(), &bytes.Buffer{}, u); !errors.Is(err, p.fails) {
		t.Errorf("got %v", err)
	}
}

func TestUninstallUndoesInstall(t *testing.T) {
	p := newPlace(t)
	p.run(t)
	p.asked = nil
	var out bytes.Buffer
	root := t.TempDir()
	if err := p.uninstall(t.Context(), &out, root); err != nil {
		t.Fatal(err)
	}
	if p.calls() != "disable --now sidemount-node.service; daemon-reload" {
		t.Errorf("systemctl %q", p.calls())
	}
	for _, file := range []string{p.unitPath(), p.envFile} {
		if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", file, err)
		}
	}
	out.Reset()
	if err := p.uninstall(t.Context(), &out, filepath.Join(root, "absent")); err != nil || strings.Count(out.String(), "not there") != 2 {
		t.Errorf("once more: %v, %q", err, out.String())
	}
}

func TestUninstallRefusesWhileVolumesAreMounted(t *testing.T) {
	root := t.TempDir()
	volume := filepath.Join(root, "pods", "uid", "volumes", "data")
	if err := os.MkdirAll(volume, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", volume, "tmpfs", 0, "size=4k"); err != nil {
		t.Skipf("mounts nothing here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(volume, unix.MNT_DETACH) })
	p := newPlace(t)
	p.run(t)
	err := p.uninstall(t.Context(), &bytes.Buffer{}, root)
	if err == nil || !strings.Contains(err.Error(), volume) {
		t.Errorf("got %v, want an error that names %s", err, volume)
	}
	if _, err := os.Stat(p.unitPath()); err != nil {
		t.Errorf("the unit was removed: %v", err)
	}
	p.force = true
	if err := p.uninstall(t.Context(), &bytes.Buffer{}, root); err != nil {
		t.Errorf("with --force: %v", err)
	}
}
