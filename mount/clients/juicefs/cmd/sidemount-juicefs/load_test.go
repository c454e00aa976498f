package main

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
)

const (
	blockSize  = 4096
	blockCount = 256
)

// block is what a round writes at a block's place.
func block(index, round int) []byte {
	stamp := fmt.Sprintf("block %d round %d\n", index, round)
	return []byte(strings.Repeat(stamp, blockSize/len(stamp)+1)[:blockSize])
}

// writeBlocks overwrites blocks through one handle that stays open from the first round to the last, never syncs, and
// reads other blocks back. Every block's last round follows from the number of the round.
func (s *stand) writeBlocks(round int) error {
	f, err := s.longLived()
	if err != nil {
		return err
	}
	index := round * 7 % blockCount
	if _, err := f.WriteAt(block(index, round), int64(index)*blockSize); err != nil {
		return err
	}
	for _, back := range []int{0, 1, 50, blockCount - 1} {
		if round < back {
			continue
		}
		got := make([]byte, blockSize)
		index := (round - back) * 7 % blockCount
		if _, err := f.ReadAt(got, int64(index)*blockSize); err != nil {
			return err
		}
		if want := block(index, round-back); !bytes.Equal(got, want) {
			return fmt.Errorf("block %d holds %.40q, want %.40q", index, got, want)
		}
	}
	return nil
}

func (s *stand) longLived() (*os.File, error) {
	if s.file == nil {
		f, err := os.OpenFile(s.path("blocks"), os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
		if err != nil {
			return nil, err
		}
		s.file = f
	}
	return s.file, nil
}

// appendLines appends a line with a descriptor of its own and now and then reads the whole file.
func (s *stand) appendLines(round int) error {
	name := s.path("lines")
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "line %d\n", round)
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	if round%20 != 19 {
		return nil
	}
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var want strings.Builder
	for i := range round + 1 {
		fmt.Fprintf(&want, "line %d\n", i)
	}
	if string(text) != want.String() {
		return fmt.Errorf("the file has %d bytes, want %d", len(text), want.Len())
	}
	return nil
}

// useNames makes, renames and removes names. Each step must give exactly its own result, also when it is executed while the client
// dies.
func (s *stand) useNames(round int) error {
	dir := s.path(fmt.Sprintf("dir-%d", round))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	from, to := dir+"/from", dir+"/to"
	f, err := os.OpenFile(from, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	_, err = f.WriteString(dir)
	if err := errors.Join(err, f.Sync(), f.Close(), os.Rename(from, to), os.Symlink("to", dir+"/link")); err != nil {
		return err
	}
	if text, err := os.ReadFile(dir + "/link"); err != nil || string(text) != dir {
		return fmt.Errorf("read back %q: %w", text, err)
	}
	if _, err := os.Stat(from); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("stat of a renamed name: %w", err)
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 2 {
		return fmt.Errorf("directory has %d entries: %w", len(list), err)
	}
	if err := syscall.Rmdir(dir); err != syscall.ENOTEMPTY {
		return fmt.Errorf("rmdir of a full directory: %w", err)
	}
	return errors.Join(os.Remove(dir+"/link"), os.Remove(to), os.Remove(dir))
}
