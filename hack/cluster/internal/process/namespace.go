package process

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// PIDNamespace returns the inode of the pid namespace that the process runs in.
func PIDNamespace(pid int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Stat(fmt.Sprintf("/proc/%d/ns/pid", pid), &st); err != nil {
		return 0, fmt.Errorf("read pid namespace of %d: %w", pid, err)
	}
	return st.Ino, nil
}

// InNamespace lists the live processes, by their pids in ours, of the pid namespace that first is or was the first process
// of. When the namespace is gone the kernel gives its number to a new one: that has another first process, and none of
// its processes is listed.
func InNamespace(inode uint64, first Ref) []int {
	var found []int
	for _, pid := range pids() {
		ns, err := PIDNamespace(pid)
		if err != nil || ns != inode {
			continue
		}
		ref, err := Lookup(pid)
		if err != nil {
			continue
		}
		if innermost(pid) == 1 && ref != first {
			return nil
		}
		found = append(found, pid)
	}
	return found
}

// FindInner translates the pid that a process has inside a pid namespace to the one that it has in ours.
func FindInner(inode uint64, inner int) (Ref, error) {
	for _, pid := range pids() {
		if innermost(pid) != inner {
			continue
		}
		if ns, err := PIDNamespace(pid); err == nil && ns == inode {
			return Lookup(pid)
		}
	}
	return Ref{}, fmt.Errorf("inner pid %d: %w", inner, ErrGone)
}

// innermost reads the last number of the NSpid line, 0 when there is none.
func innermost(pid int) int {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(b)) {
		if rest, ok := strings.CutPrefix(line, "NSpid:"); ok {
			fields := strings.Fields(rest)
			n, _ := strconv.Atoi(fields[len(fields)-1])
			return n
		}
	}
	return 0
}

func pids() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	var all []int
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			all = append(all, pid)
		}
	}
	return all
}

// FindCommand looks for a process with exactly these arguments in the namespaces, pid and mount, of the process holder.
func FindCommand(holder Ref, argv []string) (Ref, bool) {
	want := []byte(strings.Join(argv, "\x00") + "\x00")
	mount := mountNamespace(holder.PID)
	ns, err := PIDNamespace(holder.PID)
	if err != nil || mount == "" || !holder.Alive() {
		return Ref{}, false
	}
	for _, pid := range pids() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		if err != nil || !bytes.Equal(b, want) || mountNamespace(pid) != mount {
			continue
		}
		if in, err := PIDNamespace(pid); err != nil || in != ns {
			continue
		}
		if ref, err := Lookup(pid); err == nil {
			return ref, true
		}
	}
	return Ref{}, false
}

func mountNamespace(pid int) string {
	name, _ := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	return name
}
