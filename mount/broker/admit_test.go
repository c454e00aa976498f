package broker

import (
	"errors"
	"io"
	"testing"
	"testing/synctest"

	"github.com/sirupsen/logrus"

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
