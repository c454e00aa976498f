package fuse

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
)

// Entry is a mount in the mount table.
type Entry struct {
	// Target is the mount point.
	Target string
	// Type is the file system's type with its subtype, "fuse.juicefs".
	Type string
	// Source is what was mounted.
	Source string
	// Device is the minor number of the superblock's device, by which the control file system names the connection.
	Device uint32
}

// Find returns the topmost mount at target, or ErrNotMounted if there is none or if it is not FUSE. It reads the mount table only and so never waits
// for a client.
func Find(target string) (Entry, error) {
	entries, err := Table()
	if err != nil {
		return Entry{}, err
	}
	for i := len(entries) - 1; i >= 0; i-- {
		if entries[i].Target != target {
			continue
		}
		if e := entries[i]; e.Type == "fuse" || strings.HasPrefix(e.Type, "fuse.") {
			return e, nil
		}
		break
	}
	return Entry{}, ErrNotMounted
}

// Table returns the mounts of this process's mount namespace, in the order in which they were made.
func Table() ([]Entry, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	defer f.Close()
	return parseTable(f)
}

// parseTable reads proc(5)'s mountinfo:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseTable(r io.Reader) ([]Entry, error) {
	var entries []Entry
	scanner := bufio.NewScanner(r)
	scanner.Buffer(nil, 1<<20)
	for scanner.Scan() {
		front, back, ok := strings.Cut(scanner.Text(), " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 6 || len(b) < 2 {
			continue
		}
		_, minor, _ := strings.Cut(f[2], ":")
		device, err := strconv.ParseUint(minor, 10, 32)
		if err != nil {
			continue
		}
		entries = append(entries, Entry{
			Target: unescape(f[4]),
			Type:   b[0],
			Source: unescape(b[1]),
			Device: uint32(device),
		})
	}
	if err := scanner.Err(); err != nil {
		return nil, fmt.Errorf("read the mount table: %w", err)
	}
	return entries, nil
}

// unescape undoes the kernel's octal escapes of space, tab, newline and backslash.
func unescape(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+4 <= len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
