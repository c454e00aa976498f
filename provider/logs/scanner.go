package logs

import (
	"bufio"
	"errors"
	"io"
)

// maxRecord is how long a record may be, in bytes; runtimes cut lines at 16 to 32 KiB. Longer ones are skipped.
const maxRecord = 1 << 20

// scanner reads records as lines from a file that may grow.
type scanner struct {
	r *bufio.Reader
	// begun is the beginning of a line whose end had not been written at the last end of file.
	begun []byte
	// skipping says that what comes belongs to a line that is too long.
	skipping bool
}

func newScanner(r io.Reader) *scanner {
	return &scanner{r: bufio.NewReaderSize(r, 64<<10)}
}

// line returns the next line with its newline, valid until the next call. At the end of the file it returns io.EOF and the
// beginning of an unfinished line, which the next call continues.
func (s *scanner) line() ([]byte, error) {
	if n := len(s.begun); n > 0 && s.begun[n-1] == newline {
		s.begun = s.begun[:0]
	}
	for {
		part, err := s.r.ReadSlice(newline)
		if !s.skipping {
			s.begun = append(s.begun, part...)
		}
		if len(s.begun) > maxRecord {
			s.begun, s.skipping = s.begun[:0], true
		}
		switch {
		case errors.Is(err, bufio.ErrBufferFull):
		case err != nil:
			return s.begun, err
		case s.skipping:
			s.skipping = false
		default:
			return s.begun, nil
		}
	}
}
