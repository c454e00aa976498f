package broker_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/mount/fuse"
)

// container returns the directory by which a process sees this host's files that receives mounts from it, as a container does that has bound a volume.
func (n *node) container() string {
	GinkgoHelper()
	Expect(unix.Mount(n.dir, n.dir, "", unix.MS_BIND, "")).To(Succeed())
	DeferCleanup(func() { Expect(unix.Unmount(n.dir, unix.MNT_DETACH)).To(Succeed()) })
	Expect(unix.Mount("", n.dir, "", unix.MS_SHARED, "")).To(Succeed())
	cmd := exec.Command("unshare", "--mount", "--propagation", "slave", "--", "sleep", "120")
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	Expect(cmd.Start()).To(Succeed())
	DeferCleanup(func() {
		Expect(cmd.Process.Kill()).To(Succeed())
		Expect(cmd.Wait()).NotTo(Succeed())
	})
	own, err := os.Readlink("/proc/self/ns/mnt")
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() (string, error) {
		// Propagation is set before the program is run.
		command, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", cmd.Process.Pid))
		return string(command), err
	}).WithTimeout(10 * time.Second).Should(Equal("sleep\n"))
	Expect(os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", cmd.Process.Pid))).NotTo(Equal(own))
	return fmt.Sprintf("/proc/%d/root", cmd.Process.Pid)
}

// lose has broker and agent die together, and returns when the next broker knows.
func (n *node) lose(s *sidecar) {
	GinkgoHelper()
	n.stop()
	s.kill()
	n.startBroker()
	Eventually(func() []broker.Event { return n.seen(broker.SessionLost) }).WithTimeout(10 * time.Second).Should(HaveLen(1))
	Eventually(n.Sessions).Should(BeEmpty())
}

var _ = Describe("A lost session that may be covered", func() {
	covering := func(o *broker.Options) { o.Reconnect, o.Cover = time.Second, true }

	It("is opened again on top of its dead mount, and containers that run see the new one", func() {
		n := newNode(covering)
		root := n.container()
		target, s := n.open("cover")
		inside := filepath.Join(root, target)
		Expect(os.WriteFile(filepath.Join(inside, "f"), []byte("kept"), 0o644)).To(Succeed())
		n.lose(s)
		_, err := os.ReadDir(inside)
		Expect(err).To(MatchError(unix.ENOTCONN))
		n.open("cover")
		Expect(os.ReadFile(filepath.Join(inside, "f"))).To(Equal([]byte("kept")))
		Expect(n.Close(context.Background(), "cover", time.Second)).To(Succeed())
		_, err = fuse.Find(target)
		Expect(err).To(MatchError(fuse.ErrNotMounted), "both mounts go with the session")
	})

	It("leaves nothing behind when it is closed instead, also by the next broker", func() {
		n := newNode(covering)
		target, s := n.open("bury")
		n.lose(s)
		_, err := fuse.Find(target)
		Expect(err).NotTo(HaveOccurred(), "the dead mount stays for the next one")
		n.stop()
		n.startBroker()
		Expect(n.Close(context.Background(), "bury", time.Second)).To(Succeed())
		_, err = fuse.Find(target)
		Expect(err).To(MatchError(fuse.ErrNotMounted))
		Expect(os.ReadDir(n.options.StateDir)).To(BeEmpty())
		Expect(n.SocketDir("bury")).NotTo(BeADirectory())
	})
})
