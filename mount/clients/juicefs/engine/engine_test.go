package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"

	"github.com/sidemount/sidemount/mount"
)

// localVolume keeps metadata in SQLite and objects in files below dir.
func localVolume(dir string) mount.Volume {
	return mount.Volume{Secret: mount.Secret{
		"name": "testfs", "metaurl": "sqlite3://" + filepath.Join(dir, "meta.db"), "storage": "file", "bucket": filepath.Join(dir, "objects"),
	}}
}

func mustParse(t *testing.T, v mount.Volume) *Spec {
	t.Helper()
	s, err := Parse(v)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// settingOf connects and returns the volume's identity.
func settingOf(t *testing.T, v mount.Volume) (uuid string) {
	t.Helper()
	c, err := Connect(context.Background(), mustParse(t, v), Earlier{})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.effective.UUID
}

func TestAnEarlierFileSystemIsNotExchanged(t *testing.T) {
	mine, other, empty := localVolume(t.TempDir()), localVolume(t.TempDir()), localVolume(t.TempDir())
	before := Earlier{UUID: settingOf(t, mine)}
	settingOf(t, other)
	c, err := Connect(context.Background(), mustParse(t, mine), before)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	for name, v := range map[string]mount.Volume{"another file system": other, "none": empty} {
		_, err := Connect(context.Background(), mustParse(t, v), before)
		if !errors.Is(err, mount.ErrConfig) || !strings.Contains(err.Error(), before.UUID) || !strings.Contains(err.Error(), "metaurl") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := os.Stat(filepath.Join(empty.Secret["bucket"], "testfs", "juicefs_uuid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a file system was made: %v", err)
	}
}

func TestAVolumeIsFormattedOnce(t *testing.T) {
	v := localVolume(t.TempDir())
	if err := Format(context.Background(), mustParse(t, v)); err != nil {
		t.Fatal(err)
	}
	first := settingOf(t, v)
	if text, err := os.ReadFile(filepath.Join(v.Secret["bucket"], "testfs", "juicefs_uuid")); err != nil || string(text) != first {
		t.Errorf("the bucket says %q (%v), want %q", text, err, first)
	}

	// Neither another bucket nor other format options change what is there.
	v.Secret["bucket"] = filepath.Join(t.TempDir(), "other")
	v.Secret["block-size"] = "1M"
	if err := Format(context.Background(), mustParse(t, v)); err != nil {
		t.Fatal(err)
	}
	if again := settingOf(t, v); again != first {
		t.Errorf("the volume is %s, it was %s", again, first)
	}
	if _, err := os.Stat(v.Secret["bucket"]); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the other bucket was touched: %v", err)
	}
	delete(v.Secret, "storage")
	delete(v.Secret, "bucket")
	if again := settingOf(t, v); again != first {
		t.Errorf("without storage the volume is %s, it was %s", again, first)
	}
}

func TestAChangedPlaceOfObjectsIsToldAndOnlyAnOptionChangesIt(t *testing.T) {
	v := localVolume(t.TempDir())
	s := mustParse(t, v)
	setting := settingFor(t, s)
	elsewhere := filepath.Join(t.TempDir(), "other")
	tests := []struct {
		name   string
		change func(v *mount.Volume)
		want   []string // keys without effect
		bucket string
	}{
		{"nothing", func(*mount.Volume) {}, nil, setting.Bucket},
		{"spelling", func(v *mount.Volume) { v.Secret["bucket"] += "//"; v.Secret["storage"] = "File" }, nil, setting.Bucket},
		{"no place", func(v *mount.Volume) { delete(v.Secret, "bucket"); delete(v.Secret, "storage") }, nil, setting.Bucket},
		{"bucket", func(v *mount.Volume) { v.Secret["bucket"] = elsewhere }, []string{"bucket"}, setting.Bucket},
		{"both", func(v *mount.Volume) { v.Secret["storage"], v.Secret["bucket"] = "s3", "https://b.example" }, []string{"storage", "bucket"}, setting.Bucket},
		{"option", func(v *mount.Volume) { v.Secret["bucket"], v.Options = elsewhere, []string{"bucket=" + elsewhere} }, nil, elsewhere},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := mount.Volume{Secret: maps.Clone(v.Secret)}
			tt.change(&changed)
			s := mustParse(t, changed)
			if got := s.overlooked(setting); !slices.Equal(got, tt.want) {
				t.Errorf("keys without effect are %v, want %v", got, tt.want)
			}
			effective, err := s.effective(setting)
			if err != nil || effective.Bucket != tt.bucket {
				t.Errorf("objects are in %q (%v), want %q", effective.Bucket, err, tt.bucket)
			}
		})
	}
}

// settingFor is the setting of a new file system.
func settingFor(t *testing.T, s *Spec) meta.Format {
	t.Helper()
	setting, err := s.newSetting()
	if err != nil {
		t.Fatal(err)
	}
	return *setting
}

func TestTwoClientsFormattingAtOnceAgree(t *testing.T) {
	v := localVolume(t.TempDir())
	errs := make(chan error, 4)
	for range cap(errs) {
		go func() {
			s, err := Parse(v)
			if err == nil {
				err = Format(context.Background(), s)
			}
			errs <- err
		}()
	}
	formatted := 0
	for range cap(errs) {
		// The one that is late may find the other's object; it is told so and tries again, as the agent does.
		if err := <-errs; err == nil {
			formatted++
		} else if !errors.Is(err, mount.ErrConfig) && !errors.Is(err, mount.ErrUnavailable) {
			t.Error(err)
		}
	}
	if formatted == 0 {
		t.Error("nobody could format")
	}
	if settingOf(t, v) == "" {
		t.Error("the volume has no identity")
	}
}

func TestWhatCannotBeMountedSaysWhy(t *testing.T) {
	formatted := localVolume(t.TempDir())
	if err := Format(context.Background(), mustParse(t, formatted)); err != nil {
		t.Fatal(err)
	}
	used := t.TempDir()
	if err := os.MkdirAll(filepath.Join(used, "objects", "testfs", "chunks"), 0o755); err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name    string
		volume  func() mount.Volume
		kind    error
		message string
	}{
		{"another file system", func() mount.Volume {
			v := mount.Volume{Secret: mount.Secret{"name": "other-fs", "metaurl": formatted.Secret["metaurl"]}}
			return v
		}, mount.ErrConfig, `holds the file system "testfs", but Secret key "name" is "other-fs"`},
		{"not formatted, no storage", func() mount.Volume {
			v := localVolume(t.TempDir())
			delete(v.Secret, "bucket")
			return v
		}, mount.ErrConfig, `the Secret lacks "storage" and "bucket"`},
		{"not formatted, read-only", func() mount.Volume {
			v := localVolume(t.TempDir())
			v.ReadOnly = true
			return v
		}, mount.ErrConfig, "a read-only mount does not format"},
		{"storage of another volume", func() mount.Volume { return localVolume(used) }, mount.ErrConfig, "already holds objects"},
		{"no such directory", func() mount.Volume { return localVolume("/nonexistent") }, mount.ErrConfig, "its directory must exist"},
		{"not a database", func() mount.Volume {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "meta.db"), []byte(strings.Repeat("no database", 100)), 0o600); err != nil {
				t.Fatal(err)
			}
			return localVolume(dir)
		}, mount.ErrConfig, "is not an SQLite database"},
		{"unknown storage", func() mount.Volume {
			v := localVolume(t.TempDir())
			v.Secret["storage"] = "tape"
			return v
		}, mount.ErrConfig, `object storage "tape"`},
		{"encryption key that is none", func() mount.Volume {
			v := localVolume(t.TempDir())
			v.Secret["encrypt_rsa_key"] = "no key"
			return v
		}, mount.ErrConfig, `"encrypt_rsa_key" is not PEM`},
		{"nobody listens", func() mount.Volume {
			v := localVolume(t.TempDir())
			v.Secret["metaurl"] = "redis://:geheim-123@" + closedPort(t) + "/1"
			return v
		}, mount.ErrUnavailable, "connection refused"},
		{"no such host", func() mount.Volume {
			v := localVolume(t.TempDir())
			v.Secret["metaurl"] = "postgres://jfs:geheim-123@nowhere.invalid/jfs"
			return v
		}, mount.ErrUnavailable, "nowhere.invalid:5432"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			c, err := Connect(context.Background(), mustParse(t, tt.volume()), Earlier{})
			if err == nil {
				c.Close()
				t.Fatal("it can be mounted")
			}
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.message) {
				t.Errorf("error is %q, want %q with %q", err, tt.kind, tt.message)
			}
			if strings.Contains(err.Error(), "geheim") {
				t.Errorf("error %q holds a secret", err)
			}
		})
	}
}

// TestASilentEngineIsGivenUp runs in a process of its own: what is left behind by a connection that was given up blocks the next
// one, and in the client nothing comes next.
func TestASilentEngineIsGivenUp(t *testing.T) {
	const alone = "SIDEMOUNT_TEST_ALONE"
	if os.Getenv(alone) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), alone+"=1")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	v := localVolume(t.TempDir())
	v.Secret["metaurl"] = fmt.Sprintf("redis://:geheim-123@%s/1", l.Addr())
	begin := time.Now()
	_, err = Connect(context.Background(), mustParse(t, v), Earlier{})
	if !errors.Is(err, mount.ErrUnavailable) || !strings.Contains(err.Error(), "does not answer") {
		t.Errorf("error is %v, want that nobody answers", err)
	}
	if took := time.Since(begin); took > connectTimeout+5*time.Second {
		t.Errorf("it took %s", took)
	}
}

// closedPort is an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}
