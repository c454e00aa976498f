package broker_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/broker"
)

// whyNoPassthrough says why the kernel cannot read and write files by itself here, "" if it can.
func whyNoPassthrough() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err.Error()
	}
	var major, minor int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		return err.Error()
	}
	if major < 6 || major == 6 && minor < 9 {
		return fmt.Sprintf("Linux %d.%d has no FUSE passthrough", major, minor)
	}
	return ""
}

// patient is for specs that stop an agent for a while.
func patient(o *broker.Options) { o.Liveness = 10 * time.Second }

// useOwnData puts the node's data on a file system of its own, whose free space tells whether somebody keeps a removed file.
func (n *node) useOwnData() {
	GinkgoHelper()
	Expect(unix.Mount("data", n.data, "tmpfs", 0, "mode=777")).To(Succeed())
	DeferCleanup(func() { Expect(unix.Unmount(n.data, unix.MNT_DETACH)).To(Succeed()) })
}

// held is how many bytes of the data belong to files that have no name any more: somebody has them open.
func (n *node) held() (bytes int64) {
	var fs unix.Statfs_t
	if err := unix.Statfs(n.data, &fs); err != nil {
		return -1
	}
	bytes = int64(fs.Blocks-fs.Bfree) * fs.Bsize
	_ = filepath.WalkDir(n.data, func(path string, _ os.DirEntry, _ error) error {
		var st unix.Stat_t
		if unix.Lstat(path, &st) == nil {
			bytes -= st.Blocks * 512
		}
		return nil
	})
	return bytes
}

// files are the paths of the node's data, without directories.
func (n *node) files() (all []string, err error) {
	err = filepath.WalkDir(n.data, func(path string, e os.DirEntry, err error) error {
		if err == nil && !e.IsDir() {
			all = append(all, path)
		}
		return err
	})
	return all, err
}

// down stops the agent and kills its client: nobody serves the session until the agent goes on.
func (s *sidecar) down() (up func()) {
	GinkgoHelper()
	pid := s.client()
	Expect(pid).NotTo(BeZero())
	Expect(unix.Kill(s.cmd.Process.Pid, unix.SIGSTOP)).To(Succeed())
	Expect(unix.Kill(pid, unix.SIGKILL)).To(Succeed())
	Eventually(func() string { return state(pid) }).WithTimeout(5 * time.Second).WithPolling(time.Millisecond).Should(Equal("Z"))
	return func() {
		GinkgoHelper()
		Expect(unix.Kill(s.cmd.Process.Pid, unix.SIGCONT)).To(Succeed())
	}
}

func state(pid int) string {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return err.Error()
	}
	for line := range strings.Lines(string(b)) {
		if state, ok := strings.CutPrefix(line, "State:\t"); ok {
			return state[:1]
		}
	}
	return ""
}

var _ = Describe("A passthrough session", func() {
	BeforeEach(func() {
		if reason := whyNoPassthrough(); reason != "" {
			Skip("skipped: " + reason)
		}
	})

	It("lets the kernel read and write while no client runs", func() {
		n := newNode(patient)
		target, s := n.open("alone")
		app := startStepper(filepath.Join(target, "file"))
		// The first write after a look at the attributes asks the client whether there are file capabilities.
		app.step("write")
		up := s.down()
		for _, step := range []string{"write", "read", "map", "read", "write", "see", "append", "read"} {
			app.step(step)
		}
		up()
		for _, step := range []string{"size", "sync", "truncate", "size", "read", "see", "append", "size", "read"} {
			app.step(step)
		}
		// The next client knows how the file is open, and opens it in the same way for somebody else.
		other := startStepper(filepath.Join(target, "other"))
		got, err := os.ReadFile(filepath.Join(target, "file"))
		Expect(err).NotTo(HaveOccurred())
		Expect(os.ReadFile(filepath.Join(n.data, "file"))).To(Equal(got))
		app.step("write")
		other.step("write")
		up = s.down()
		app.step("write")
		app.step("read")
		other.step("write")
		other.step("read")
		app.step("close")
		up()
		n.waitReady("alone")
	})

	It("goes on when the whole sidecar is killed, and the next one knows what is open", func() {
		n := newNode()
		n.useOwnData()
		target, s := n.open("sidecar-dies")
		app := startStepper(filepath.Join(target, "file"))
		app.step("write")
		s.kill()
		for _, step := range []string{"write", "read", "map", "append", "read", "see"} {
			app.step(step)
		}
		n.runAgent("sidecar-dies")
		app.step("size")
		app.step("close")
		Expect(os.Remove(filepath.Join(target, "file"))).To(Succeed())
		Eventually(n.held).WithTimeout(5*time.Second).Should(BeZero(), "somebody keeps the removed file")
		// The file has a hidden name until the kernel forgets it.
		Eventually(n.files).WithTimeout(20 * time.Second).Should(BeEmpty())
	})

	It("keeps no file that was removed, however often clients die", func() {
		n := newNode()
		n.useOwnData()
		target, s := n.open("tidy")
		l := startLoad(target)
		for range 40 {
			n.killClient("tidy", s)
		}
		l.finish()
		Expect(os.RemoveAll(filepath.Join(target, "names-0"))).To(Succeed())
		Expect(os.RemoveAll(filepath.Join(target, "names-1"))).To(Succeed())
		Expect(os.Remove(filepath.Join(target, "long-lived-0"))).To(Succeed())
		Expect(os.Remove(filepath.Join(target, "long-lived-1"))).To(Succeed())
		Eventually(n.held).WithTimeout(5*time.Second).Should(BeZero(), "somebody keeps a removed file")
	})

	It("serves new files itself while the broker is away, and lets the kernel do it again later", func() {
		n := newNode(patient)
		target, s := n.open("no-broker")
		before := startStepper(filepath.Join(target, "before"))
		n.stop()
		during := startStepper(filepath.Join(target, "during"))
		for _, step := range []string{"write", "map", "append", "read", "size"} {
			before.step(step)
			during.step(step)
		}
		before.step("close")
		n.startBroker()
		n.waitReady("no-broker")
		after := startStepper(filepath.Join(target, "after"))
		during.step("read")
		after.step("write")
		up := s.down()
		after.step("write")
		after.step("read")
		up()
		n.waitReady("no-broker")
		during.step("read")
	})
})
