package engine

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount"
)

func goodSecret() mount.Secret {
	return mount.Secret{
		"name": "myjfs", "metaurl": "redis://:geheim-123@redis.example:6380/1", "storage": "s3",
		"bucket": "https://bucket.s3.example", "access-key": "AKIA123", "secret-key": "sehr-geheim",
	}
}

func TestParseNamesWhatIsWrong(t *testing.T) {
	tests := []struct {
		name    string
		key     string // of the Secret; "options" for the mount options
		value   string
		message string
	}{
		{"no metadata engine", "metaurl", "", `lacks the key "metaurl"`},
		{"no name", "name", "", `lacks the key "name"`},
		{"bad name", "name", "My_FS", `"My_FS"`},
		{"unknown engine", "metaurl", "etcd://host/jfs", "starts with none of redis://"},
		{"no host", "metaurl", "redis://:geheim-123@/1", "names no host"},
		{"bad escape", "metaurl", "redis://:geheim-123%zz@host/1", "is not a URL"},
		{"relative file", "metaurl", "sqlite3://meta.db", "absolute path"},
		{"bad environment", "envs", "[1, 2", `"envs"`},
		{"bad trash", "trash-days", "-1", `"trash-days"`},
		{"bad compression", "compress", "rar", "none of none, lz4, zstd"},
		{"bad format option", "format-options", "shards=1000", `"shards"`},
		{"unknown option", "options", "cache-sise=10", `unknown mount option "cache-sise"; the nearest known one is "cache-size"`},
		{"bad option", "options", "buffer-size=much", `mount option "buffer-size": "much"`},
		{"bad choice", "options", "atime-mode=sometimes", "none of noatime, relatime, strictatime"},
		{"no value", "options", "subdir", "needs a value"},
		{"bad umask", "options", "umask=9", "not an octal umask"},
		{"relative cache", "options", "cache-dir=cache", "absolute paths"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			v := mount.Volume{Secret: goodSecret()}
			if tt.key == "options" {
				v.Options = []string{tt.value}
			} else {
				v.Secret[tt.key] = tt.value
			}
			_, err := Parse(v)
			if !errors.Is(err, mount.ErrConfig) {
				t.Fatalf("error is %v, want one that wraps ErrConfig", err)
			}
			if !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error is %q, want it to contain %q", err, tt.message)
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("error %q holds a secret", err)
			}
		})
	}
}

func TestParseTakesOptionsOfJuiceFS(t *testing.T) {
	s, err := Parse(mount.Volume{Secret: goodSecret(), Options: []string{
		"cache-size=1024", "buffer-size=1G,attr-cache=2.5,entry-cache=300ms", "writeback", "writeback=false", "open-cache=1d",
		"upload-limit=1G", "subdir=a/b", "metrics=0.0.0.0:9567", "allow_other", "max-uploads=3", "no-bgjob", "backup-meta=0", "cache-size=2048",
	}})
	if err != nil {
		t.Fatal(err)
	}
	o := s.options
	got := []any{o.cacheSize, o.bufferSize, o.attrCache, o.entryCache, o.writeback, o.openCache, o.uploadLimit, o.subdir, o.maxUploads, o.noBGJob}
	want := []any{uint64(2048 << 20), uint64(1 << 30), 2500 * time.Millisecond, 300 * time.Millisecond, false, 24 * time.Hour, int64(1000), "a/b", 3, true}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("option %d is %v, want %v", i, got[i], want[i])
		}
	}
	if s.ReadOnly {
		t.Error("the volume is read-only")
	}
	if s, err = Parse(mount.Volume{Secret: goodSecret(), Options: []string{"ro"}}); err != nil || !s.ReadOnly {
		t.Errorf("with ro: %v, read-only %t", err, s.ReadOnly)
	}
}

func TestParseFormatOptionsWin(t *testing.T) {
	secret := goodSecret()
	secret["trash-days"] = "7"
	secret["block-size"] = "1M"
	secret["format-options"] = "trash-days=3,compress=lz4,shards=4,enable-acl"
	secret["envs"] = `{"AWS_REGION": "eu-central-1", "RETRIES": 3}`
	s, err := Parse(mount.Volume{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	f := s.format
	if f.trashDays != 3 || f.compression != "lz4" || f.shards != 4 || f.blockSize != 1024 || !f.enableACL {
		t.Errorf("format options are %+v", f)
	}
	if s.Env["AWS_REGION"] != "eu-central-1" || s.Env["RETRIES"] != "3" {
		t.Errorf("environment is %v", s.Env)
	}
}

func TestAddressShowsHostsOnly(t *testing.T) {
	tests := []struct{ url, want string }{
		{"redis://:pass-word@host/1", "host:6379"},
		{"host:7000/3", "host:7000"},
		{"rediss://user:pass-word@a:7000,b:7000,c:7000/1", "a:7000,b:7000,c:7000"},
		{"rediss://user:pass-word@mymaster,b,c:7000/1", "b:7000,c:7000"},
		{"postgres://user:pass-word@a,b/jfs", "a:5432,b:5432"},
		{"redis://:pass-word@mymaster,s1,s2/1", "s1:26379,s2:26379"},
		{"redis://:p@ss-word@[::1]:6379/1", "[::1]:6379"},
		{"unix://:pass-word@/run/redis.sock?db=1", "/run/redis.sock"},
		{"mysql://user:pass-word@(db:3307)/jfs", "db:3307"},
		{"mysql://user:pass-word@tcp(db)/jfs", "db:3306"},
		{"mysql://user:pass-word@unix(/run/mysql.sock)/jfs", "/run/mysql.sock"},
		{"postgres://user:pass-word@db/jfs?sslmode=disable", "db:5432"},
		{"sqlite3:///data/meta.db?_timeout=1000", "/data/meta.db"},
	}
	for _, tt := range tests {
		secret := goodSecret()
		secret["metaurl"] = tt.url
		s, err := Parse(mount.Volume{Secret: secret})
		if err != nil {
			t.Errorf("%s: %v", tt.url, err)
			continue
		}
		if got := s.Address().String(); got != tt.want {
			t.Errorf("%s is shown as %q, want %q", tt.url, got, tt.want)
		}
	}
}

func TestScrubHidesSecrets(t *testing.T) {
	secret := goodSecret()
	secret["metaurl"] = "redis://:pass%2Fword@host/1"
	secret["envs"] = "TOKEN: abcdefgh"
	s, err := Parse(mount.Volume{Secret: secret})
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	w := Scrub(&out, s.Secrets())
	line := "redis://:pass%2Fword@host/1 pass/word sehr-geheim abcdefgh stays\n"
	if n, err := fmt.Fprint(w, line); err != nil || n != len(line) {
		t.Fatalf("wrote %d of %d bytes: %v", n, len(line), err)
	}
	for _, v := range []string{"word", "geheim", "abcdefgh"} {
		if strings.Contains(out.String(), v) {
			t.Errorf("%q holds %q", out.String(), v)
		}
	}
	if !strings.Contains(out.String(), "stays") {
		t.Errorf("%q lost what is no secret", out.String())
	}
}
