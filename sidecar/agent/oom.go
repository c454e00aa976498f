package agent

import (
	"os"
	"strconv"
	"strings"
)

// ownOOMScore is the file with this process's oom_score_adj (proc(5)). Raising it needs no privilege, nor does lowering it to what a
// privileged process has set last.
const ownOOMScore = "/proc/self/oom_score_adj"

// raiseOOMScore makes what is started until the returned function is called a likelier victim than this process when memory is short. It is
// inherited, because a child that got it later would for some moments be the smaller of two with the same score, and the kernel takes the
// larger one. The child before its execve(2) is none of the kernel's candidates, so the score of this process does not matter meanwhile.
func raiseOOMScore(by int) (lower func()) {
	const highest = 1000
	b, err := os.ReadFile(ownOOMScore)
	if err != nil {
		return func() {}
	}
	now, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		return func() {}
	}
	// Without it the kernel still picks by size, and a client that has run for a while is the larger one.
	_ = os.WriteFile(ownOOMScore, []byte(strconv.Itoa(min(now+by, highest))), 0)
	return func() { _ = os.WriteFile(ownOOMScore, []byte(strconv.Itoa(now)), 0) }
}

// countOOMs reads how many processes of this container the kernel has killed for want of memory (cgroup v2, then v1).
func countOOMs() int {
	for _, path := range []string{"/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"} {
		b, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(b)) {
			if value, ok := strings.CutPrefix(line, "oom_kill "); ok {
				n, _ := strconv.Atoi(strings.TrimSpace(value))
				return n
			}
		}
	}
	return 0
}
