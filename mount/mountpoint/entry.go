package mountpoint

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// mountinfo is the table of this process's mount namespace.
const mountinfo = "/proc/self/mountinfo"

// Entry is a mount as the mount table shows it.
type Entry struct {
	// Point is where it is mounted.
	Point string
	// Device is the superblock's, "major:minor". As long as a mount of it is left, no other superblock has the same.
	Device string
	// Type is the file system's type with its subtype, "fuse.juicefs", and Source is what was mounted.
	Type, Source string
	// ReadOnly is about this mount; the file system may be writable elsewhere.
	ReadOnly bool
}

// At returns the mounts at path, the uppermost first. path must be canonical. The file system that is mounted there is not
// asked, so that a dead one cannot hold up the caller.
func At(path string) ([]Entry, error) {
	at, err := Under(path)
	if err != nil {
		return nil, err
	}
	at = slices.DeleteFunc(at, func(e Entry) bool { return e.Point != path })
	slices.Reverse(at)
	return at, nil
}

// Under returns the mounts at dir and below it in the order in which they were made. dir must be canonical.
func Under(dir string) ([]Entry, error) {
	table, err := os.ReadFile(mountinfo)
	if err != nil {
		return nil, err
	}
	return parseEntries(string(table), dir)
}

// parseEntries returns the mounts at dir and below it of a mount table in the format of proc(5), where white space and backslashes are in octal:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime master:1 - ext3 /dev/root rw,errors=continue
func parseEntries(table, dir string) ([]Entry, error) {
	var entries []Entry
	for line := range strings.Lines(table) {
		front, back, ok := strings.Cut(line, " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 6 || len(b) < 2 {
			return nil, fmt.Errorf("mount table: malformed line of %d fields", len(f)+len(b))
		}
		point := unescape.Replace(f[4])
		if point != dir && !strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			continue
		}
		entries = append(entries, Entry{
			Point: point, Device: f[2], Type: b[0], Source: unescape.Replace(b[1]),
			ReadOnly: slices.Contains(strings.Split(f[5], ","), "ro"),
		})
	}
	return entries, nil
}
