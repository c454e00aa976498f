package webhook

import (
	"testing"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// warnings counts what is logged as a warning.
type warnings struct {
	log.Logger
	seen *int
}

func (w warnings) WithField(string, any) log.Logger { return w }
func (w warnings) Warn(...any)                      { *w.seen++ }

func TestAProbeOfThePortIsNoComplaint(t *testing.T) {
	for line, want := range map[string]int{
		"http: TLS handshake error from 10.0.0.1:4711: EOF\n":                              0,
		"http: TLS handshake error from 10.0.0.1:4711: remote error: tls: bad certificate": 1,
		"http: panic serving 10.0.0.1:4711: EOF":                                           1,
	} {
		seen := 0
		if n, err := (complaints{warnings{seen: &seen}}).Write([]byte(line)); n != len(line) || err != nil || seen != want {
			t.Errorf("%q: %d warnings, want %d (%d, %v)", line, seen, want, n, err)
		}
	}
}
