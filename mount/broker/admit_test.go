package broker

import (
	"errors"
	"io"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sirupsen/logrus"
	logtest "github.com/sirupsen/logrus/hooks/test"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// restored is a session that a new broker has found in its journal.
func restored(t *testing.T, generation int) *session {
	t.Helper()
	log := logrus.New()
	log.SetOutput(io.Discard)
	b := &Broker{o: Options{Log: log}, sessions: map[mount.SessionID]*session{}, journal: &journal{dir: t.TempDir(), log: log}}
	b.o.setDefaults()
	return b.newSession(Request{ID: "s", Target: t.TempDir(), Generation: generation}, "m")
}

func TestAgentOfAnotherGenerationCannotLoseASession(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := restored(t, 3)
		a := &agent{generation: 2}
		if err := s.claim(t.Context(), a, wire.Message{Type: wire.Hello, Generation: 2}); !errors.Is(err, errNotTurn) {
			t.Errorf("got %v, want errNotTurn", err)
		}
		if s.ending {
			t.Error("the session is lost")
		}
	})
}

func TestAgentsAreAcceptedAfterAShortageOfFiles(t *testing.T) {
	s := restored(t, 0)
	log, lines := logtest.NewNullLogger()
	failed := make(chan struct{}, 8)
	log.AddHook(told(func() { failed <- struct{}{} }))
	s.log = log
	s.request.UID = 1 << 30 // so that this process is refused
	path := filepath.Join(t.TempDir(), "agent.sock")
	var err error
	if s.listener, err = wire.Listen(path, 0, 0); err != nil {
		t.Fatal(err)
	}
	peer, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(peer)
	restore := forbidFiles(t)
	var running sync.WaitGroup
	running.Go(func() { s.accept(t.Context(), &running) })
	defer running.Wait()
	defer s.listener.Close()
	if err := unix.Connect(peer, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-failed:
	case <-time.After(5 * time.Second):
		t.Fatal("an accept without a file to spare does not fail")
	}
	restore()
	timeout := unix.Timeval{Sec: 5}
	if err := unix.SetsockoptTimeval(peer, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &timeout); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 1024)
	if n, err := unix.Read(peer, b); err != nil || n == 0 {
		t.Errorf("the peer is not answered afterwards: %v", err)
	}
	if len(lines.AllEntries()) == 0 || lines.AllEntries()[0].Message != "accept agents" {
		t.Error("the shortage is not told")
	}
}

// told is a hook of a logger that calls a function at every error.
type told func()

func (told) Levels() []logrus.Level { return []logrus.Level{logrus.ErrorLevel} }

func (f told) Fire(*logrus.Entry) error {
	f()
	return nil
}

// forbidFiles lets this process open none until the returned function is called, or the test ends.
func forbidFiles(t *testing.T) (restore func()) {
	t.Helper()
	var before unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
		t.Fatal(err)
	}
	restore = func() {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &before); err != nil {
			t.Error(err)
		}
	}
	t.Cleanup(restore)
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 0, Max: before.Max}); err != nil {
		t.Fatal(err)
	}
	return restore
}
