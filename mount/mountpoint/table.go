package mountpoint

import (
	"errors"
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
	table, err := os.ReadFile(mountinfo)
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

// parse returns the mount points at or below dir, deepest first.
func parse(table, dir string) ([]string, error) {
	entries, err := parseEntries(table)
	if err != nil {
		return nil, err
	}
	var points []string
	for _, e := range entries {
		if e.Point == dir || strings.HasPrefix(e.Point, strings.TrimSuffix(dir, "/")+"/") {
			points = append(points, e.Point)
		}
	}
	// The table is in the order of mounting, so that what lies on top comes later; a deeper path can only be on top.
	slices.Reverse(points)
	slices.SortStableFunc(points, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return points, nil
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")
