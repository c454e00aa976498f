package filesystem_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"github.com/juicedata/juicefs/pkg/object"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/client"
	"github.com/sidemount/sidemount/mount/clients/juicefs/engine"
	"github.com/sidemount/sidemount/mount/clients/juicefs/filesystem"
)

// stuckEnv makes the test binary run one test in time of its own, where minutes pass as soon as everything waits. JuiceFS never
// ends all it has started, as that time wants at a test's end, so the process ends instead.
const stuckEnv = "SIDEMOUNT_TEST_STUCK"

// stuckStore is an object storage that takes no block while its gate is shut: a request waits, and fails if the gate stays shut.
type stuckStore struct {
	object.ObjectStorage
	gate chan struct{}
}

func (s *stuckStore) Put(key string, in io.Reader, getters ...object.AttrGetter) error {
	if !strings.HasPrefix(key, "testfs/chunks/") {
		return s.ObjectStorage.Put(key, in, getters...)
	}
	select {
	case <-s.gate:
		return s.ObjectStorage.Put(key, in, getters...)
	case <-time.After(time.Hour):
		return errors.New("no answer")
	}
}

// stuck is a file with one write on an object storage that does not answer.
type stuck struct {
	t       *testing.T
	fs      *filesystem.FileSystem
	session *testSession
	store   *stuckStore
	file    fuse.InHeader
	handle  uint64
}

const stuckText = "acknowledged"

func newStuck(t *testing.T, dir string) *stuck {
	blocks, err := object.CreateStorage("mem", "testfs", "", "", "")
	check(t, err)
	s := &stuck{t: t, store: &stuckStore{ObjectStorage: blocks, gate: make(chan struct{})}}
	object.Register("stuck", func(string, string, string, string) (object.ObjectStorage, error) { return s.store, nil })
	spec, err := engine.Parse(mount.Volume{
		ID: "test", Name: "data", Client: mount.JuiceFS,
		Secret: mount.Secret{
			"name": "testfs", "metaurl": "sqlite3://" + filepath.Join(dir, "meta.db"), "storage": "stuck", "bucket": "testfs",
		},
		Options: []string{"no-bgjob", "cache-size=0"},
	})
	check(t, err)
	s.session, err = newTestSession()
	check(t, err)
	s.fs, err = filesystem.New(filesystem.Options{
		Session: s.session,
		Open: func(ctx context.Context, before engine.Earlier) (*engine.Engine, error) {
			c, err := engine.Connect(ctx, spec, before)
			if err != nil {
				return nil, err
			}
			return c.Start(engine.Options{MemoryLimit: 1 << 30})
		},
		Fatal: func(err error) { t.Fatal(err) },
	})
	check(t, err)
	s.fs.Init(nil)
	s.write()
	return s
}

func (s *stuck) write() {
	s.t.Helper()
	var made fuse.CreateOut
	in := fuse.CreateIn{InHeader: fuse.InHeader{NodeId: 1}, Flags: syscall.O_RDWR, Mode: 0o600}
	if st := s.fs.Create(nil, &in, "file", &made); !st.Ok() {
		s.t.Fatal("create: ", st)
	}
	s.file, s.handle = fuse.InHeader{NodeId: made.NodeId}, made.Fh
	if _, st := s.fs.Write(nil, &fuse.WriteIn{InHeader: s.file, Fh: s.handle}, []byte(stuckText)); !st.Ok() {
		s.t.Fatal("write: ", st)
	}
}

func (s *stuck) fsync() fuse.Status {
	return s.fs.Fsync(nil, &fuse.FsyncIn{InHeader: s.file, Fh: s.handle})
}

func (s *stuck) truncate() fuse.Status { return s.set(fuse.FATTR_SIZE) }

// set makes an attribute zero.
func (s *stuck) set(attribute uint32) fuse.Status {
	in := fuse.SetAttrIn{SetAttrInCommon: fuse.SetAttrInCommon{InHeader: s.file, Valid: attribute}}
	return s.fs.SetAttr(nil, &in, new(fuse.AttrOut))
}

func (s *stuck) want(action string, got, want fuse.Status) {
	s.t.Helper()
	if got != want {
		s.t.Errorf("%s: %v, want %v", action, got, want)
	}
}

// wantReplay checks what a process would write again that took over now. The memory has the handle table first.
func (s *stuck) wantReplay(when, want string) {
	s.t.Helper()
	log, err := client.OpenWriteLog(bytes.Clone(s.session.memory[1<<20 : 33<<20]))
	check(s.t, err)
	var got []byte
	check(s.t, log.Replay(func(_ *client.Record, data []byte) error {
		got = append(got, data...)
		return nil
	}))
	if string(got) != want {
		s.t.Errorf("%s, a replay would write %q, want %q", when, got, want)
	}
}

// inOwnTime runs a test with a stuck file in a process that may pass hours in no time.
func inOwnTime(t *testing.T, test func(s *stuck)) {
	if os.Getenv(stuckEnv) == "" {
		cmd := exec.Command("/proc/self/exe", "-test.v", "-test.run=^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), stuckEnv+"=1", "_FUSE_STATE_PATH=/proc/self/no-state", "TMPDIR="+t.TempDir())
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	dir, err := os.MkdirTemp("", "stuck")
	check(t, err)
	synctest.Test(t, func(t *testing.T) {
		defer func() {
			if t.Failed() {
				os.Exit(1)
			}
			os.Exit(0)
		}()
		test(newStuck(t, dir))
	})
}

func TestWritesOutliveAFlushThatJuiceFSGivesUp(t *testing.T) {
	inOwnTime(t, func(s *stuck) {
		<-time.After(5*time.Minute + 30*time.Second)
		s.wantReplay("after the file system's own flush", stuckText)
		s.want("truncate", s.truncate(), fuse.EIO)
		s.wantReplay("after a truncation that failed", stuckText)
		close(s.store.gate)
		s.want("fsync once the storage answers", s.fsync(), fuse.OK)
		s.wantReplay("after fsync", "")
	})
}

func TestATimeMayBeSetWhileTheStorageIsAway(t *testing.T) {
	inOwnTime(t, func(s *stuck) {
		<-time.After(5*time.Minute + 30*time.Second)
		s.want("set the time of change", s.set(fuse.FATTR_MTIME), fuse.OK)
		s.wantReplay("afterwards", stuckText)
	})
}

func TestLostWritesAreKeptUntilARequestFails(t *testing.T) {
	inOwnTime(t, func(s *stuck) {
		<-time.After(3 * time.Hour)
		s.wantReplay("after the upload has failed for good", stuckText)
		begin := time.Now()
		s.want("fsync", s.fsync(), fuse.EIO)
		if took := time.Since(begin); took > time.Second {
			s.t.Errorf("fsync took %s, though the upload has failed before", took)
		}
		s.wantReplay("after fsync", "")
		s.want("truncate", s.truncate(), fuse.OK)
	})
}
