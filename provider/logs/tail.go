package logs

import (
	"bytes"
	"errors"
	"io"
	"os"
)

// tailBlock is how much of a file is read at a time, in bytes, on the way back from its end.
const tailBlock = 16 << 10

// tailStart returns where the last n lines of a container begin in its log file of the given size. A line may be many records;
// it is counted by the record that ends it, and an unended one at the end of the file counts as well.
func tailStart(f io.ReaderAt, size, n int64) (int64, error) {
	if n <= 0 {
		return size, nil
	}
	// One line more is looked for, because the first of the last n begins after the end of the one before it.
	found := int64(0)
	back := newBackward(f, size)
	for {
		start, line, err := back.previous()
		if errors.Is(err, io.EOF) {
			return 0, nil
		}
		if err != nil {
			return 0, err
		}
		end := start + int64(len(line))
		unended := end == size && found == 0 && isPartial(line)
		if !unended && isPartial(line) {
			continue
		}
		if found == n {
			return end, nil
		}
		found++
	}
}

// isPartial also holds for a record that is being written; malformed lines stand for themselves.
func isPartial(line []byte) bool {
	r, err := parse(line)
	if err != nil {
		return false
	}
	return !r.ends()
}

// backward reads a file line by line from its end.
type backward struct {
	f io.ReaderAt
	// buf holds the file from start; end is where the line that was returned last begins.
	buf   []byte
	start int64
	end   int64
}

func newBackward(f io.ReaderAt, size int64) *backward {
	return &backward{f: f, start: size, end: size}
}

// previous returns the line before the last one and where it begins; io.EOF before the first line. The line is valid until the
// next call.
func (b *backward) previous() (int64, []byte, error) {
	for {
		if b.end == 0 {
			return 0, nil, io.EOF
		}
		have := b.buf[:b.end-b.start]
		// The line's own newline is its last byte.
		if len(have) > 1 {
			if i := bytes.LastIndexByte(have[:len(have)-1], newline); i >= 0 {
				line := have[i+1:]
				b.end -= int64(len(line))
				return b.end, line, nil
			}
		}
		if b.start == 0 {
			b.end = 0
			return 0, have, nil
		}
		if err := b.fill(have); err != nil {
			return 0, nil, err
		}
	}
}

// fill puts the block before the buffer into it. A line longer than the buffer makes it grow by doubling.
func (b *backward) fill(have []byte) error {
	n := min(max(tailBlock, int64(len(have))), b.start)
	buf := make([]byte, n+int64(len(have)))
	copy(buf[n:], have)
	if _, err := b.f.ReadAt(buf[:n], b.start-n); err != nil {
		return err
	}
	b.buf, b.start = buf, b.start-n
	return nil
}

// Last returns what a container wrote last, at most the given number of lines and bytes, both streams together: the message of a
// container that ended without leaving one. A log that does not exist has no last words.
func Last(path string, lines int64, bytesMax int) (string, error) {
	f, err := os.Open(path)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", err
	}
	start, err := tailStart(f, info.Size(), lines)
	if err != nil {
		return "", err
	}
	var out []byte
	scan := newScanner(io.NewSectionReader(f, start, info.Size()-start))
	for {
		line, err := scan.line()
		if r, bad := parse(line); len(line) > 0 && bad == nil {
			out = append(out, r.text...)
			out = out[max(0, len(out)-bytesMax):]
		}
		if errors.Is(err, io.EOF) {
			return string(out), nil
		}
		if err != nil {
			return "", err
		}
	}
}
