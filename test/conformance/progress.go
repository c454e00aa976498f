package main

import (
	"bytes"
	"fmt"
	"io"
)

// progress copies what ginkgo prints to a log, and counts its dots and letters for people.
type progress struct {
	log, screen io.Writer
	done        int
}

func newProgress(log, screen io.Writer) *progress { return &progress{log: log, screen: screen} }

// Write implements io.Writer. ginkgo prints a bullet for each test.
func (p *progress) Write(b []byte) (int, error) {
	if n := bytes.Count(b, []byte("•")); n > 0 {
		for range n {
			if p.done++; p.done%10 == 0 {
				fmt.Fprintf(p.screen, "conformance: %d tests done\n", p.done)
			}
		}
	}
	return p.log.Write(b)
}
