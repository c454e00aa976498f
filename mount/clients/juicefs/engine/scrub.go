package engine

import (
	"bytes"
	"io"
	"sync"
)

// minSecret is the length from which a value is hidden. Hiding shorter ones would garble the log without protecting anything.
const minSecret = 4

// Scrub returns a writer that replaces the given values by asterisks before they reach w. Libraries below put addresses with
// passwords into some of their messages. A value is found only within one Write, which is how loggers write.
func Scrub(w io.Writer, secrets []string) io.Writer {
	s := &scrubber{w: w}
	for _, v := range secrets {
		s.secrets = append(s.secrets, []byte(v))
	}
	return s
}

type scrubber struct {
	mu      sync.Mutex
	w       io.Writer
	secrets [][]byte
}

func (s *scrubber) Write(p []byte) (int, error) {
	out := p
	for _, v := range s.secrets {
		if bytes.Contains(out, v) {
			out = bytes.ReplaceAll(out, v, []byte("****"))
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.w.Write(out); err != nil {
		return 0, err
	}
	return len(p), nil
}
