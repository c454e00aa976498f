package mountpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Below returns the mount points at dir and below it in this process's mount namespace, deepest first; one with several
// mounts on top of each other stands there once for each. dir itself must not be a symbolic link; it is not looked at, since
// the file system that is mounted there may not answer.
func Below(dir string) ([]string, error) {
	real, err := filepath.EvalSymlinks(filepath.Dir(dir))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	real = filepath.Join(real, filepath.Base(dir))
	table, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return nil, err
	}
	points, err := parse(string(table), real)
	if err != nil {
		return nil, err
	}
	for i := range points {
		points[i] = dir + strings.TrimPrefix(points[i], real)
	}
	return points, nil
}

// parse returns the mount points at or below dir, deepest first. The format is that of proc(5): the fifth field is the
// mount point, with white space and backslashes in octal.
func parse(table, dir string) ([]string, error) {
	var points []string
	for line := range strings.Lines(table) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			return nil, fmt.Errorf("mount table: malformed line of %d fields", len(fields))
		}
		point := unescape.Replace(fields[4])
		if point == dir || strings.HasPrefix(point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, point)
		}
	}
	// The table is in the order of mounting, so that what lies on top comes later; a deeper path can only be on top.
	slices.Reverse(points)
	slices.SortStableFunc(points, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return points, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")
