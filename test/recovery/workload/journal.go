package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// The journal is a file that one process appends to and another one, in another container of the pod, follows. Each line has its
// number, some text and a checksum; the last one says that it is the last.
const (
	journalName = "journal"
	lastLine    = "end"
	// journalPatience is how long the follower waits for the last line, or for a first one.
	journalPatience = 2 * time.Minute
)

func journalLine(number int, text string) []byte {
	head := fmt.Sprintf("%d %s", number, text)
	return fmt.Appendf(nil, "%s %08x\n", head, crc32.ChecksumIEEE([]byte(head)))
}

// appendJournal appends lines, and syncs now and then.
func appendJournal(ctx context.Context, s *scene) {
	r := rand.New(rand.NewPCG(s.seed, 1))
	f, err := s.open(s.dir+"/"+journalName, unix.O_WRONLY|unix.O_APPEND|unix.O_CREAT|unix.O_EXCL)
	if err != nil {
		s.fail(err)
		return
	}
	number := 0
	err = s.repeat(ctx, func() error {
		if err := f.append(journalLine(number, strings.Repeat("x", r.IntN(200)))); err != nil {
			return err
		}
		number++
		if r.IntN(50) == 0 {
			return f.sync()
		}
		return nil
	})
	if err := errors.Join(err, f.append(journalLine(number, lastLine)), f.close()); err != nil {
		s.fail(err)
	}
}

// followJournal reads to the last line, whatever ctx says: the appender decides where that is.
func followJournal(_ context.Context, s *scene) {
	patience, cancel := context.WithTimeout(context.Background(), journalPatience)
	defer cancel()
	f, err := s.openJournal(patience)
	if err != nil {
		s.fail(err)
		return
	}
	if err := errors.Join(s.followLines(f), f.close()); err != nil {
		s.fail(err)
	}
}

// openJournal waits until there is a journal.
func (s *scene) openJournal(ctx context.Context) (*file, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		f, err := s.open(s.dir+"/"+journalName, unix.O_RDONLY)
		if err == nil || !errors.Is(err, unix.ENOENT) {
			return f, err
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-tick.C:
		}
	}
}

// followLines checks each line once it is whole. The appender writes all the time, so a long silence means that it is gone.
func (s *scene) followLines(f *file) error {
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	silent := time.Now()
	var pending []byte
	buf := make([]byte, 64<<10)
	for number := 0; ; {
		n, err := f.next(buf)
		switch {
		case errors.Is(err, io.EOF):
			if time.Since(silent) > journalPatience {
				return fmt.Errorf("the journal ends after line %d, without its last line", number)
			}
			<-tick.C
			continue
		case err != nil:
			return err
		}
		silent = time.Now()
		pending = append(pending, buf[:n]...)
		for {
			line, rest, whole := bytes.Cut(pending, []byte("\n"))
			if !whole {
				break
			}
			last, err := checkLine(line, number)
			if err != nil || last {
				return err
			}
			pending = rest
			number++
		}
	}
}

func checkLine(line []byte, number int) (last bool, err error) {
	var got int
	var text string
	var sum uint32
	head := line[:max(0, len(line)-9)]
	if _, err := fmt.Sscanf(string(line[len(head):]), " %08x", &sum); err != nil || sum != crc32.ChecksumIEEE(head) {
		return false, &damage{fmt.Sprintf("journal line %d, %.40q: wrong checksum", number, line), int64(len(line))}
	}
	// A line may have no text.
	_, _ = fmt.Sscanf(string(head), "%d %s", &got, &text)
	if got != number {
		return false, &damage{fmt.Sprintf("journal: line %d where %d must be", got, number), int64(len(line))}
	}
	return text == lastLine, nil
}
