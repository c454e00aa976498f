// Package images holds the images that are built from this tree to their names: the chart, the programs and the build have to mean the same ones.
package images

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// root is the repository, seen from this package.
const root = "../.."

// builder stands in for the program that writes an image: its name is all that the file has.
const builder = `#!/bin/sh
while [ $# -gt 0 ]; do
  case $1 in --name) name=$2 ;; --tar) tar=$2 ;; esac
  shift
done
echo "$name" >"$tar"
`

// workshop is a directory of programs and one of images.
type workshop struct{ bin, images string }

func newWorkshop(t *testing.T) workshop {
	t.Helper()
	w := workshop{t.TempDir(), t.TempDir()}
	if err := os.WriteFile(filepath.Join(w.bin, "cluster"), []byte(builder), 0o755); err != nil {
		t.Fatal(err)
	}
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"sidemount", "sidemount-agent", "sidemount-juicefs"} {
		if err := os.Symlink(program, filepath.Join(w.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return w
}

// build returns the images that were built, not those that were there.
func (w workshop) build(t *testing.T, environment ...string) []string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "build-images.sh"))
	cmd.Env = append(os.Environ(), "IMAGE_TAG=", "VERSION=", "BIN="+w.bin, "IMAGES="+w.images)
	cmd.Env = append(cmd.Env, environment...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var built []string
	for _, m := range regexp.MustCompile(`(?m)^image (\S+)$`).FindAllSubmatch(out, -1) {
		built = append(built, string(m[1]))
	}
	return built
}

func TestImagesAreBuiltForEachTagOnce(t *testing.T) {
	w := newWorkshop(t)
	for _, c := range []struct {
		environment []string
		want        string
	}{
		{[]string{"VERSION=0.1.0+abcdef0"}, "0.1.0"},
		{[]string{"VERSION=0.1.0+abcdef1"}, ""},
		{[]string{"VERSION=0.1.0+abcdef1", "IMAGE_TAG=mine"}, "mine"},
		{[]string{"IMAGE_TAG=mine"}, ""},
		{nil, "dev"},
	} {
		built := w.build(t, c.environment...)
		want := 0
		if c.want != "" {
			want = 2
		}
		if len(built) != want {
			t.Errorf("%q built %q, want %d images", c.environment, built, want)
		}
		for _, name := range built {
			if !strings.HasSuffix(name, ":"+c.want) {
				t.Errorf("%q built %s, want the tag %s", c.environment, name, c.want)
			}
		}
	}
}

// A chart without values asks for the images that a build without settings makes.
func TestTagIsTheChartsVersion(t *testing.T) {
	chart, err := os.ReadFile(filepath.Join(root, "charts", "sidemount", "Chart.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.CommandContext(t.Context(), filepath.Join(root, "hack", "version.sh")).Output()
	if err != nil {
		t.Fatal(err)
	}
	release, _, _ := strings.Cut(strings.TrimSpace(string(out)), "+")
	if !strings.Contains(string(chart), "\nappVersion: \""+release+"\"\n") {
		t.Errorf("hack/version.sh says %s, which is not the chart's appVersion", release)
	}
}
