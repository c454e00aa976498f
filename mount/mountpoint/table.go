package mountpoint

import (
	"errors"
	"io/fs"
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
	entries, err := Under(real)
	if err != nil {
		return nil, err
	}
	points := deepestFirst(entries)
	for i := range points {
		points[i] = dir + strings.TrimPrefix(points[i], real)
	}
	return points, nil
}

// deepestFirst returns the points of mounts that are in the order of mounting. What lies on top comes later there; a deeper path
// can only be on top.
func deepestFirst(entries []Entry) []string {
	points := make([]string, 0, len(entries))
	for _, e := range slices.Backward(entries) {
		points = append(points, e.Point)
	}
	slices.SortStableFunc(points, func(a, b string) int { return strings.Count(b, "/") - strings.Count(a, "/") })
	return points
}

var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`, `\043`, "#")
