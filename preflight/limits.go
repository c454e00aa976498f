package preflight

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// What a node with a hundred pods uses with room to spare; all programs of a user share the inotify limits.
const (
	inotifyInstances = 512
	inotifyWatches   = 65536
	openFiles        = 65536
)

// controllers are what a pod's limits need.
var controllers = []string{"cpu", "memory", "pids"}

// cgroups looks for the controllers, and whether groups can be made.
func (h *Host) cgroups(context.Context) Result {
	const root = "/sys/fs/cgroup"
	text, err := os.ReadFile(h.path(filepath.Join(root, "cgroup.controllers")))
	if errors.Is(err, os.ErrNotExist) {
		return h.cgroupsV1(root)
	}
	const check = "control groups"
	if err != nil {
		return unread(check, err)
	}
	if lacking := without(controllers, strings.Fields(string(text))); len(lacking) > 0 {
		return missing(check, "version 2 without "+strings.Join(lacking, ", "),
			"boot with cgroup_enable="+strings.Join(lacking, " cgroup_enable=")+", or delegate them to this container or machine")
	}
	return h.writable(check, root, "version 2 with "+strings.Join(controllers, ", "))
}

func (h *Host) cgroupsV1(root string) Result {
	const check = "control groups"
	var lacking []string
	for _, c := range controllers {
		if _, err := os.Stat(h.path(filepath.Join(root, c))); err != nil {
			lacking = append(lacking, c)
		}
	}
	if len(lacking) > 0 {
		return missing(check, "neither version 2 nor version 1 with "+strings.Join(lacking, ", "), "mount cgroup2 at "+root+", as systemd does")
	}
	for _, c := range controllers {
		if r := h.writable(check, filepath.Join(root, c), ""); r.Status != OK {
			return r
		}
	}
	return warning(check, "version 1", "version 2 is the one that distributions and kubelets go on with: boot with systemd.unified_cgroup_hierarchy=1")
}

// writable looks whether groups can be made below dir.
func (h *Host) writable(check, dir, found string) Result {
	if err := unix.Access(h.path(dir), unix.W_OK); err != nil {
		return missing(check, fmt.Sprintf("%s cannot be written: %v", dir, err), "mount it writable, and delegate it to this container or machine")
	}
	return ok(check, "%s", found)
}

func without(want, have []string) []string {
	return slices.DeleteFunc(slices.Clone(want), func(w string) bool { return slices.Contains(have, w) })
}

// inotify looks at limits whose exhaustion shows as "too many open files" where nobody looks for it.
func (h *Host) inotify(context.Context) Result {
	const check = "inotify"
	low := []string{}
	var found []string
	for _, l := range []struct {
		name  string
		least int
	}{{"max_user_instances", inotifyInstances}, {"max_user_watches", inotifyWatches}} {
		text, err := os.ReadFile(h.path("/proc/sys/fs/inotify/" + l.name))
		if err != nil {
			return unread(check, err)
		}
		n, err := strconv.Atoi(strings.TrimSpace(string(text)))
		if err != nil {
			return unread(check, err)
		}
		found = append(found, fmt.Sprintf("%s %d", l.name, n))
		if n < l.least {
			low = append(low, fmt.Sprintf("fs.inotify.%s=%d", l.name, l.least))
		}
	}
	if len(low) > 0 {
		return warning(check, strings.Join(found, ", "), "sysctl -w "+strings.Join(low, " ")+", and the same in /etc/sysctl.d: each `kubectl logs -f` needs one")
	}
	return ok(check, "%s", strings.Join(found, ", "))
}

// openFiles looks at the limit of this process, which is the unit's or the container's. The broker holds a few files for each volume.
func (h *Host) openFiles(context.Context) Result {
	const check = "open files"
	text, err := os.ReadFile(h.path("/proc/thread-self/limits"))
	if err != nil {
		return unread(check, err)
	}
	for line := range strings.Lines(string(text)) {
		rest, found := strings.CutPrefix(line, "Max open files")
		f := strings.Fields(rest)
		if !found || len(f) < 2 {
			continue
		}
		hard, err := strconv.Atoi(f[1])
		if err == nil && hard < openFiles {
			return warning(check, fmt.Sprintf("at most %d", hard), fmt.Sprintf("LimitNOFILE=%d in the unit, or ulimit -Hn %d", openFiles, openFiles))
		}
		return ok(check, "at most %s", f[1])
	}
	return missing(check, "/proc/thread-self/limits does not tell", "mount /proc")
}
