package broker

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

func TestAuthorize(t *testing.T) {
	r := Request{ID: "s", UID: 65534, GID: 65533}
	for _, c := range []struct {
		name     string
		uid, gid uint32
		ok       bool
	}{
		{"its own identity", 65534, 65533, true},
		{"root", 0, 0, false},
		{"root with the group", 0, 65533, false},
		{"another user", 1000, 65533, false},
		{"another group", 65534, 65534, false},
		{"an identity that is not mapped", 1<<32 - 1, 1<<32 - 1, false},
	} {
		err := authorize(wire.Peer{PID: 1, UID: c.uid, GID: c.gid}, r)
		if (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
		if err != nil && !errors.Is(err, mount.ErrRefused) {
			t.Errorf("%s: got %v, want ErrRefused", c.name, err)
		}
	}
}

func TestRequestCheck(t *testing.T) {
	good := Request{ID: "a-1", Target: "/pods/x", Volume: mount.Volume{ID: "v", Client: mount.Passthrough}}
	if err := good.check(); err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*Request){
		"no id":               func(r *Request) { r.ID = "" },
		"an id with a slash":  func(r *Request) { r.ID = "a/b" },
		"an id that goes up":  func(r *Request) { r.ID = ".." },
		"upper case":          func(r *Request) { r.ID = "A" },
		"a long id":           func(r *Request) { r.ID = mount.SessionID(strings.Repeat("a", 64)) },
		"a leading dash":      func(r *Request) { r.ID = "-a" },
		"a relative target":   func(r *Request) { r.Target = "pods" },
		"an unclean target":   func(r *Request) { r.Target = "/pods/../etc" },
		"the root":            func(r *Request) { r.Target = "/" },
		"an unknown client":   func(r *Request) { r.Volume.Client = "nfs" },
		"a Secret too large":  func(r *Request) { r.Volume.Secret = mount.Secret{"k": strings.Repeat("x", wire.MaxVolume)} },
		"a volume of nothing": func(r *Request) { r.Volume = mount.Volume{} },
	} {
		r := good
		change(&r)
		if err := r.check(); !errors.Is(err, mount.ErrConfig) {
			t.Errorf("%s: got %v, want ErrConfig", name, err)
		}
	}
}

func TestJournalSetsAsideWhatItCannotRead(t *testing.T) {
	log := logrus.New()
	log.SetOutput(io.Discard)
	j := &journal{dir: t.TempDir(), log: log}
	want := record{ID: "good", Mount: "m", Target: "/pods/x", UID: 1, GID: 2, Volume: "v", Client: mount.JuiceFS, State: mount.Mounted, Device: 7}
	if err := j.write(want); err != nil {
		t.Fatal(err)
	}
	broken := map[string]string{
		"cut":     `{"version":1,"id":"cut","tar`,
		"empty":   ``,
		"future":  `{"version":9,"id":"future","target":"/x"}`,
		"liar":    `{"version":1,"id":"good","target":"/x"}`,
		"nowhere": `{"version":1,"id":"nowhere","target":"x"}`,
	}
	for name, content := range broken {
		if err := os.WriteFile(filepath.Join(j.dir, name+".json"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want.Version = recordVersion
	for range 2 {
		got, err := j.read()
		if err != nil || len(got) != 1 || got[0] != want {
			t.Fatalf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for name := range broken {
		if _, err := os.Stat(filepath.Join(j.dir, name+".json.corrupt")); err != nil {
			t.Errorf("%s is not set aside: %v", name, err)
		}
	}
	if err := j.remove("good"); err != nil {
		t.Fatal(err)
	}
	if err := j.remove("good"); err != nil {
		t.Errorf("removing twice: %v", err)
	}
}

// A session that is not known is aborted when it is opened again, so what cannot be read must not pass for nothing.
func TestJournalThatCannotBeReadIsNoEmptyOne(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("skipped: only root can become somebody who may not read")
	}
	log := logrus.New()
	log.SetOutput(io.Discard)
	dir := t.TempDir()
	for name, mode := range map[string]os.FileMode{"the directory": 0o700, "a record": 0o755} {
		j := &journal{dir: filepath.Join(dir, strings.ReplaceAll(name, " ", "-")), log: log}
		if err := os.Mkdir(j.dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := j.write(record{ID: "s", Target: "/pods/x"}); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(os.Chmod(j.dir, mode), os.Chmod(filepath.Dir(dir), 0o755), os.Chmod(dir, 0o755)); err != nil {
			t.Fatal(err)
		}
		b := &Broker{journal: j, sessions: map[mount.SessionID]*session{}}
		asNobody(func() {
			if found, err := b.restore(); !errors.Is(err, os.ErrPermission) {
				t.Errorf("%s: %d sessions, %v", name, len(found), err)
			}
		})
		if _, err := os.Stat(j.path("s")); err != nil {
			t.Errorf("%s: the record is gone: %v", name, err)
		}
	}
}

// asNobody does something without root's rights, on a thread that is thrown away.
func asNobody(do func()) {
	const nobody = 65534
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread()
		unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody)
		do()
	}()
	<-done
}

func FuzzJournal(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"s","target":"/x","mount":"m","state":"Mounted","device":3}`))
	f.Add([]byte(`{"version":1,"id":"s","target":"/x","device":-1}`))
	log := logrus.New()
	log.SetOutput(io.Discard)
	f.Fuzz(func(t *testing.T, b []byte) {
		j := &journal{dir: t.TempDir(), log: log}
		if err := os.WriteFile(j.path("s"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		records, err := j.read()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range records {
			if r.ID != "s" || !filepath.IsAbs(r.Target) {
				t.Errorf("took %+v", r)
			}
		}
	})
}

func TestFailureCarriesItsKind(t *testing.T) {
	for cause, want := range map[wire.Cause]error{wire.CauseConfig: mount.ErrConfig, wire.CauseUnavailable: mount.ErrUnavailable} {
		err := failureOf(wire.Client{Phase: wire.Waiting, Cause: cause, Text: "metaurl: wrong"})
		if !errors.Is(err, want) || err.Error() != "metaurl: wrong" {
			t.Errorf("%s: %v", cause, err)
		}
	}
	if err := failureOf(wire.Client{Phase: wire.Waiting, Ended: "oom"}); err == nil || errors.Is(err, mount.ErrConfig) {
		t.Errorf("a client that died: %v", err)
	}
	if err := failureOf(wire.Client{Phase: wire.InService, Ended: "oom"}); err != nil {
		t.Errorf("a client that serves: %v", err)
	}
}
