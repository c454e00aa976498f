package sidecar

import (
	"errors"
	"path"
	"slices"
	"strings"
	"testing"
)

func FuzzMetaURL(f *testing.F) {
	for _, s := range []string{"", "a", "redis://:p@h/1", "://", "sqlite3://", "x://y\n", "MySQL://u", "a b://c", "\x7f"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		url, problem := metaURL(in)
		if (url == "") == (problem == "") {
			t.Fatalf("%q: url %q and problem %q", in, url, problem)
		}
		if url != "" && (!strings.Contains(url, "://") || !strings.HasSuffix(url, in)) {
			t.Errorf("%q became %q", in, url)
		}
		if again, _ := metaURL(url); url != "" && again != url {
			t.Errorf("%q is not stable: %q", url, again)
		}
		if len(in) > 8 && problem != "" && strings.Contains(problem, in) {
			t.Errorf("the problem quotes the URL: %s", problem)
		}
	})
}

func FuzzMountOptions(f *testing.F) {
	for _, s := range []string{"", "a", "a=1,b", ",", "=", "a=b=c", " a = b ", "-o x", "subdir=..", "a\x00b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		options, problem := parseMountOptions([]string{in})
		if problem != "" {
			return
		}
		for _, o := range options {
			key, _, _ := strings.Cut(o, "=")
			if key == "" || strings.ContainsAny(o, ",\n\x00") || strings.TrimSpace(o) != o || strings.HasPrefix(o, "-") {
				t.Errorf("%q gave the option %q", in, o)
			}
		}
		again, problem := parseMountOptions(options)
		if problem != "" || !slices.Equal(again, options) {
			t.Errorf("%q is not stable: %q, then %q (%s)", in, options, again, problem)
		}
	})
}

func FuzzHostDir(f *testing.F) {
	for _, s := range []string{"", "/", "a", "/a", "/a/../b", "//a//b/.", "/proc/1", "/run", "/run/sidemount/x", "/a:b", "/developers"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		dir, problem := hostDir(in)
		if (dir == "") == (problem == "") {
			t.Fatalf("%q: directory %q and problem %q", in, dir, problem)
		}
		if dir == "" {
			return
		}
		if dir != path.Clean(dir) || !path.IsAbs(dir) || dir == "/" || strings.ContainsAny(dir, ":*\n\x00") {
			t.Errorf("%q became %q", in, dir)
		}
		for _, r := range reserved {
			if strings.HasPrefix(dir+"/", r+"/") || strings.HasPrefix(r+"/", dir+"/") {
				t.Errorf("%q is over or under %s", dir, r)
			}
		}
	})
}

func FuzzEmptyDir(f *testing.F) {
	for _, s := range []string{"", "Memory", "Memory:1Gi", ":1Gi", "a:b:c", "Memory:-1", ":1e400"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		cache, problem := emptyDir(in)
		if problem == "" && cache.SizeLimit != nil && cache.SizeLimit.Sign() <= 0 {
			t.Errorf("%q has the size %s", in, cache.SizeLimit)
		}
		if problem == "" && cache.Medium != "" && cache.Medium != "Memory" {
			t.Errorf("%q has the medium %q", in, cache.Medium)
		}
	})
}

// FuzzDescribe looks for attributes that make the parser panic, that leak a secret, or that give a subdirectory outside the
// file system.
func FuzzDescribe(f *testing.F) {
	f.Add(attrMountOptions, "subdir=a,cache-dir=/x:/y", attrSubPath, "b/c", "redis://h/1", `{"A":"b"}`, false)
	f.Add(attrCacheEmptyDir, "Memory:1Gi", attrCPULimit, "0", "h:6379", "", true)
	f.Add(attrHostPath, "/a,/b", attrMountLabels, "{a: b}", "sqlite3:///a/x.db", "- x", false)
	f.Add(attrClient, "passthrough", attrPath, "/srv", "", "", false)
	r, err := NewResolver(Options{Objects: &cluster{}})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, k1, v1, k2, v2, url, envs string, tenant bool) {
		const password = "correct-horse-battery"
		m, err := r.Describe(Source{
			Name: "data", Handle: "h", Object: "PersistentVolume p", SecretObject: "Secret a/b", Tenant: tenant,
			Attributes: map[string]string{k1: v1, k2: v2},
			Secret:     map[string]string{"name": "myjfs", "metaurl": url, "envs": envs, "secret-key": password, "token": password},
		})
		var e *Error
		if err != nil && (!errors.As(err, &e) || e.Cure == "" || strings.Contains(err.Error(), password)) {
			t.Fatalf("error %v", err)
		}
		if err != nil {
			return
		}
		if subdir, ok := mountOptions(m.Volume.Options).last(optSubdir); ok && (subdir != path.Clean(subdir) || !path.IsAbs(subdir)) {
			t.Errorf("subdirectory %q", subdir)
		}
		if tenant && (len(m.HostPaths) != 0 || m.UID != DefaultUID) {
			t.Errorf("a tenant has got %+v", m)
		}
	})
}
