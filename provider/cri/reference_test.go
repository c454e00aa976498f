package cri

import (
	"errors"
	"strings"
	"testing"
)

func TestParseImage(t *testing.T) {
	digest := "sha256:" + strings.Repeat("ab", 32)
	for _, tt := range []struct{ name, want, normalized string }{
		{"busybox", "docker.io/library/busybox:latest", "busybox:latest"},
		{"busybox:1.37", "docker.io/library/busybox:1.37", "busybox:1.37"},
		{"juicedata/mount:v1", "docker.io/juicedata/mount:v1", "juicedata/mount:v1"},
		{"index.docker.io/busybox", "docker.io/library/busybox:latest", "index.docker.io/busybox:latest"},
		{"localhost/pause:1", "localhost/pause:1", "localhost/pause:1"},
		{"localhost:5000/a/b", "localhost:5000/a/b:latest", "localhost:5000/a/b:latest"},
		{"registry.k8s.io/e2e-test-images/agnhost:2.59", "registry.k8s.io/e2e-test-images/agnhost:2.59", "registry.k8s.io/e2e-test-images/agnhost:2.59"},
		{"[2001:db8::1]:5000/a", "[2001:db8::1]:5000/a:latest", "[2001:db8::1]:5000/a:latest"},
		{"Registry/a", "Registry/a:latest", "Registry/a:latest"},
		{"a@" + digest, "docker.io/library/a@" + digest, "a@" + digest},
		{"a:t@" + digest, "docker.io/library/a:t@" + digest, "a:t@" + digest},
		{"a__b/c--d.e", "docker.io/a__b/c--d.e:latest", "a__b/c--d.e:latest"},
	} {
		ref, err := ParseImage(tt.name)
		if err != nil || ref.String() != tt.want {
			t.Errorf("ParseImage(%q) = %v, %v; want %s", tt.name, ref, err, tt.want)
		}
		if got, err := NormalizeImage(tt.name); err != nil || got != tt.normalized {
			t.Errorf("NormalizeImage(%q) = %q, %v; want %q", tt.name, got, err, tt.normalized)
		}
	}
}

func TestParseImageRefuses(t *testing.T) {
	for _, name := range []string{
		"", ":tag", "a:", "a@", "Uppercase", "a/Upper", "a//b", "/a", "a/", "a b", "-a", "a..b", "a:t:u", "a:-t",
		"a@sha256:short", "a@sha256:" + strings.Repeat("AB", 32), strings.Repeat("a", 64), "ex ample.com/a",
		strings.Repeat("a", 250) + "b", "https://example.com/a", "a:" + strings.Repeat("t", 129),
	} {
		if ref, err := ParseImage(name); !errors.Is(err, ErrInvalidImageName) {
			t.Errorf("ParseImage(%q) = %v, %v; want ErrInvalidImageName", name, ref, err)
		}
	}
}

func FuzzParseImage(f *testing.F) {
	for _, s := range []string{"busybox", "a:1@sha256:" + strings.Repeat("0", 64), "[::1]:5/a", "x.y/z", "a/b/c:d"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		ref, err := ParseImage(name)
		if err != nil {
			return
		}
		again, err := ParseImage(ref.String())
		if err != nil || again != ref {
			t.Errorf("ParseImage(%q) = %+v, but its String parses to %+v, %v", name, ref, again, err)
		}
	})
}
