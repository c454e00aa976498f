package preflight

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// propagation looks whether mounts below dir are seen in other mount namespaces, as those of containers are.
func (h *Host) propagation(name, dir string) Check {
	return func(context.Context) Result {
		check := "propagation of " + name
		m, err := h.mountOf(dir)
		if err != nil {
			return unread(check, err)
		}
		if !m.shared {
			return missing(check, dir+" is on "+m.point+", which is a private mount: containers would not see volumes that are mounted later",
				"mount --make-rshared "+m.point+" at every boot, before the runtime; in a container, mountPropagation: Bidirectional")
		}
		return ok(check, "%s is on the shared mount %s", dir, m.point)
	}
}

// mounted is a mount of the table.
type mounted struct {
	point    string
	kind     string
	shared   bool
	readOnly bool
}

// mountOf returns the mount that a path is on; the path need not exist. Links are followed as far as it does.
func (h *Host) mountOf(path string) (mounted, error) {
	table, err := os.ReadFile(h.path("/proc/thread-self/mountinfo"))
	if err != nil {
		return mounted{}, err
	}
	return mountAt(string(table), h.canonical(path)), nil
}

// canonical follows the links of what exists of a path.
func (h *Host) canonical(path string) string {
	rest := ""
	for dir := filepath.Clean(path); ; dir = filepath.Dir(dir) {
		if real, err := filepath.EvalSymlinks(h.path(dir)); err == nil {
			if rel, err := filepath.Rel(h.o.Root, real); err == nil && !strings.HasPrefix(rel, "..") {
				return filepath.Join("/", rel, rest)
			}
		}
		if dir == "/" {
			return filepath.Clean(path)
		}
		rest = filepath.Join(filepath.Base(dir), rest)
	}
}

// mountAt finds the mount of a canonical path in a table in proc(5)'s format, of which the last with the longest mount point is on top:
//
//	36 35 98:0 /mnt1 /mnt2 rw,noatime shared:7 - ext3 /dev/root rw,errors=continue
func mountAt(table, path string) mounted {
	best := mounted{}
	for line := range strings.Lines(table) {
		front, back, ok := strings.Cut(line, " - ")
		f, b := strings.Fields(front), strings.Fields(back)
		if !ok || len(f) < 6 || len(b) < 1 {
			continue
		}
		point := unescape.Replace(f[4])
		inside := path == point || strings.HasPrefix(path, strings.TrimSuffix(point, "/")+"/")
		if !inside || len(point) < len(best.point) {
			continue
		}
		best = mounted{
			point: point, kind: b[0],
			shared:   slices.ContainsFunc(f[6:], func(o string) bool { return strings.HasPrefix(o, "shared:") }),
			readOnly: slices.Contains(strings.Split(f[5], ","), "ro"),
		}
	}
	return best
}

// unescape undoes the table's octal escapes.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
