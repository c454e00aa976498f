package broker_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/mount/fuse"
)

var _ = Describe("A session", func() {
	It("serves a directory through an agent without any privilege", func() {
		n := newNode()
		target, s := n.open("first")
		Expect(os.ReadFile("/proc/" + itoa(s.client()) + "/status")).To(And(
			ContainSubstring("CapEff:\t0000000000000000"), ContainSubstring("CapBnd:\t0000000000000000"), ContainSubstring("NoNewPrivs:\t1")))
		Expect(os.WriteFile(filepath.Join(target, "hello"), []byte("world"), 0o644)).To(Succeed())
		Expect(os.ReadFile(filepath.Join(n.data, "hello"))).To(BeEquivalentTo("world"))
		Eventually(func() []broker.Event { return n.seen(broker.ClientStarted) }).Should(HaveLen(1))
		Expect(n.Close(context.Background(), "first", 5*time.Second)).To(Succeed())
		Expect(n.Sessions()).To(BeEmpty())
		Expect(os.ReadDir(target)).To(BeEmpty())
		_, err := n.Status("first")
		Expect(err).To(MatchError(mount.ErrNotFound))
		Eventually(s.ended).Should(Receive(BeNil()), "the agent ends without an error")
		Expect(n.seen(broker.SessionClosed)).To(ConsistOf(HaveField("Cause", "")))
		Expect(n.Close(context.Background(), "first", time.Second)).To(Succeed(), "closing twice is fine")
	})

	It("mounts within milliseconds, before any agent, and requests wait for the client", func() {
		n := newNode()
		r := n.request("early")
		start := time.Now()
		_, err := n.Open(context.Background(), r)
		took := time.Since(start)
		Expect(err).NotTo(HaveOccurred())
		AddReportEntry("open", took.String())
		Expect(took).To(BeNumerically("<", 500*time.Millisecond))
		entries := make(chan error, 1)
		go func() {
			_, err := os.ReadDir(r.Target)
			entries <- err
		}()
		Consistently(entries).WithTimeout(100 * time.Millisecond).ShouldNot(Receive())
		n.runAgent("early")
		Eventually(entries).WithTimeout(5 * time.Second).Should(Receive(BeNil()))
	})

	It("opens once for one ID", func() {
		n := newNode()
		target, _ := n.open("same")
		again, err := n.Open(context.Background(), n.request("same"))
		Expect(err).NotTo(HaveOccurred())
		Expect(again.Target).To(Equal(target))
		Expect(again.Ready).To(BeTrue())
		other := n.request("same")
		other.Volume.ID = "pv-other"
		_, err = n.Open(context.Background(), other)
		Expect(err).To(MatchError(mount.ErrConfig))
	})

	It("refuses writes to a read-only volume", func() {
		n := newNode()
		r := n.request("ro")
		r.Volume.ReadOnly = true
		_, err := n.Open(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		n.runAgent("ro")
		n.waitReady("ro")
		Expect(os.WriteFile(filepath.Join(r.Target, "x"), nil, 0o644)).To(MatchError(unix.EROFS))
	})

	It("lets the application go on when its client is killed", func() {
		n := newNode()
		target, s := n.open("crash")
		l := startLoad(target)
		for range 6 {
			n.killClient("crash", s)
		}
		l.finish()
		Expect(n.seen(broker.ClientRestarted)).To(HaveLen(6))
		Eventually(func() uint64 {
			requests, _ := n.Redone()
			return requests
		}).WithTimeout(5*time.Second).Should(BeNumerically(">", 0), "clients tell of requests that were sent once more")
		Expect(n.seen(broker.ClientRestarted)[0].Cause).To(Equal("signal: killed"))
		AddReportEntry("pause", n.seen(broker.ClientRestarted)[0].Pause.String())
		now, err := n.Status("crash")
		Expect(err).NotTo(HaveOccurred())
		Expect(now.Restarts).To(Equal(6))
	})

	It("answers every request when clients are killed as soon as they serve", func() {
		n := newNode()
		target, s := n.open("early-deaths")
		l := startLoad(target)
		for range 100 {
			n.killClient("early-deaths", s)
		}
		l.finish()
	})

	It("lets nobody hang on a kernel that cannot resend", func() {
		n := newNode(patient, func(o *broker.Options) { o.NoResend = true })
		target, s := n.open("old-kernel")
		// Only calls that may be repeated: what a dead client had taken ends with EINTR, and a program repeats it.
		l := startLoad(target, filesOnly)
		for range 60 {
			n.killClient("old-kernel", s)
		}
		l.finish()
	})

	It("lets the application go on when the whole sidecar is killed", func() {
		n := newNode()
		target, s := n.open("sidecar")
		l := startLoad(target)
		for range 3 {
			before := len(n.seen(broker.ClientRestarted))
			s.kill()
			s = n.runAgent("sidecar")
			Eventually(func() int { return len(n.seen(broker.ClientRestarted)) }).WithTimeout(20 * time.Second).Should(BeNumerically(">", before))
		}
		l.finish()
	})

	It("lets the application go on while the broker is away, also when its client dies meanwhile", func() {
		n := newNode()
		target, s := n.open("restart")
		l := startLoad(target)
		for range 3 {
			n.stop()
			pid := s.client()
			Expect(unix.Kill(pid, unix.SIGKILL)).To(Succeed())
			Eventually(s.client).WithTimeout(10 * time.Second).Should(And(Not(BeZero()), Not(Equal(pid))))
			n.startBroker()
			n.waitReady("restart")
		}
		l.finish()
		Expect(n.seen(broker.SessionLost)).To(BeEmpty())
		n.killClient("restart", s)
		s.kill()
		n.runAgent("restart")
		n.waitReady("restart")
		Expect(os.ReadDir(target)).NotTo(BeEmpty())
	})

	It("keeps a removed file readable through its open handle when the client is killed", func() {
		n := newNode()
		target, s := n.open("removed")
		path := filepath.Join(target, "file")
		f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
		Expect(err).NotTo(HaveOccurred())
		defer f.Close()
		_, err = f.WriteString("still here")
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Remove(path)).To(Succeed())
		n.killClient("removed", s)
		got := make([]byte, 10)
		_, err = f.ReadAt(got, 0)
		Expect(err).NotTo(HaveOccurred())
		Expect(got).To(BeEquivalentTo("still here"))
		_, err = f.WriteAt([]byte("more"), 10)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.ReadDir(target)).To(BeEmpty())
		Expect(f.Close()).To(Succeed())
		Eventually(func() int {
			hidden, _ := filepath.Glob(filepath.Join(n.data, ".sidemount-unlinked", "*", "*"))
			return len(hidden)
		}).Should(BeZero(), "a hidden file is left")
	})

	It("replaces a client that does not run any more", func() {
		n := newNode()
		target, s := n.open("stopped")
		pid := s.client()
		Expect(unix.Kill(pid, unix.SIGSTOP)).To(Succeed())
		read := make(chan error, 1)
		go func() {
			_, err := os.ReadDir(target)
			read <- err
		}()
		Eventually(read).WithTimeout(15 * time.Second).Should(Receive(BeNil()))
		Expect(n.seen(broker.ClientHung)).NotTo(BeEmpty())
		Eventually(func() []broker.Event { return n.seen(broker.ClientRestarted) }).WithTimeout(5 * time.Second).Should(ConsistOf(HaveField("Cause", "hung")))
		Expect(s.client()).NotTo(Equal(pid))
	})

	It("kills an agent that does not run any more", func() {
		n := newNode()
		_, s := n.open("deaf")
		Expect(s.cmd.Process.Signal(syscall.SIGSTOP)).To(Succeed())
		Eventually(s.ended).WithTimeout(15 * time.Second).Should(BeClosed())
		n.runAgent("deaf")
		n.waitReady("deaf")
	})

	It("is closed within the grace even if its client hangs, and nobody hangs with it", func() {
		n := newNode(func(o *broker.Options) { o.Liveness = time.Hour })
		target, s := n.open("hang")
		Expect(unix.Kill(s.client(), unix.SIGSTOP)).To(Succeed())
		read := make(chan error, 1)
		go func() {
			_, err := os.ReadDir(target)
			read <- err
		}()
		start := time.Now()
		Expect(n.Close(context.Background(), "hang", time.Second)).To(Succeed())
		Expect(time.Since(start)).To(BeNumerically("<", 5*time.Second))
		var err error
		Eventually(read).WithTimeout(5 * time.Second).Should(Receive(&err))
		Expect(errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENOTCONN)).To(BeTrue(), "%v", err)
		Expect(n.seen(broker.SessionClosed)).To(ConsistOf(HaveField("Cause", "unflushed")))
	})

	It("is lost, not hung, when broker and agent die together, and can be opened again", func() {
		n := newNode(func(o *broker.Options) { o.Reconnect = time.Second })
		target, s := n.open("both")
		n.stop()
		s.kill()
		n.startBroker()
		Eventually(func() []broker.Event { return n.seen(broker.SessionLost) }).WithTimeout(10 * time.Second).Should(HaveLen(1))
		Eventually(n.Sessions).Should(BeEmpty())
		again, _ := n.open("both")
		Expect(again).To(Equal(target))
		Expect(os.ReadDir(target)).To(BeEmpty())
	})

	It("is lost, not hung, when requests have waited long and neither agent nor client comes back", func() {
		n := newNode(func(o *broker.Options) { o.Orphan, o.Liveness = 2*time.Second, 200*time.Millisecond })
		target, s := n.open("orphan")
		s.kill()
		Consistently(func() []broker.Event { return n.seen(broker.SessionLost) }).WithTimeout(3*time.Second).Should(BeEmpty(), "nobody waits")
		start := time.Now()
		read := make(chan error, 1)
		go func() {
			_, err := os.ReadDir(target)
			read <- err
		}()
		var err error
		Eventually(read).WithTimeout(10 * time.Second).Should(Receive(&err))
		Expect(errors.Is(err, unix.ECONNABORTED) || errors.Is(err, unix.ENOTCONN)).To(BeTrue(), "%v", err)
		Expect(time.Since(start)).To(BeNumerically(">=", 2*time.Second))
		Eventually(func() []broker.Event { return n.seen(broker.SessionLost) }).WithTimeout(5 * time.Second).Should(
			ConsistOf(HaveField("Cause", "requests have waited for 2s and no client has come")))
		Eventually(n.Sessions).Should(BeEmpty())
		n.open("orphan")
		Expect(os.ReadDir(target)).To(BeEmpty())
	})

	It("is lost when somebody else ends its mount", func() {
		n := newNode()
		target, s := n.open("ended")
		Expect(unix.Unmount(target, unix.MNT_DETACH)).To(Succeed())
		Eventually(func() []broker.Event { return n.seen(broker.SessionLost) }).WithTimeout(10 * time.Second).Should(HaveLen(1))
		_, err := n.Open(context.Background(), n.request("ended"))
		Expect(err).NotTo(HaveOccurred())
		n.waitReady("ended")
		Expect(s.client()).NotTo(BeZero())
	})

	It("says what is wrong with a volume and serves as soon as it is mended", func() {
		n := newNode()
		r := n.request("mend")
		r.Volume.Config = map[string]string{"path": filepath.Join(n.dir, "nowhere")}
		_, err := n.Open(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		n.runAgent("mend")
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		err = n.Wait(ctx, "mend")
		Expect(err).To(MatchError(mount.ErrConfig))
		Expect(err).To(MatchError(ContainSubstring("nowhere: no such file or directory")))
		Expect(n.seen(broker.ClientFailed)).NotTo(BeEmpty())
		_, err = n.Open(context.Background(), n.request("mend"))
		Expect(err).NotTo(HaveOccurred())
		n.waitReady("mend")
	})

	It("keeps secrets out of the journal, command lines, environments and logs", func() {
		n := newNode()
		_, s := n.open("secret")
		Expect(filepath.WalkDir(n.options.StateDir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			Expect(string(b)).NotTo(ContainSubstring("very-secret"))
			return err
		})).To(Succeed())
		for _, pid := range []int{s.cmd.Process.Pid, s.client()} {
			for _, file := range []string{"cmdline", "environ"} {
				Expect(os.ReadFile(filepath.Join("/proc", itoa(pid), file))).NotTo(ContainSubstring("very-secret"))
			}
		}
		Expect(s.output.String()).NotTo(ContainSubstring("very-secret"))
	})

	It("sets a broken journal entry aside and goes on with the others", func() {
		n := newNode()
		target, _ := n.open("fine")
		n.stop()
		broken := filepath.Join(n.options.StateDir, "broken.json")
		Expect(os.WriteFile(broken, []byte(`{"version":1,"id":`), 0o600)).To(Succeed())
		n.startBroker()
		n.waitReady("fine")
		Expect(broken + ".corrupt").To(BeAnExistingFile())
		Expect(os.ReadDir(target)).To(BeEmpty())
	})

	It("opens no session that it cannot record because the disk is full, and keeps the others", func() {
		state, err := os.MkdirTemp("", "sidemount-state-")
		Expect(err).NotTo(HaveOccurred())
		Expect(unix.Mount("tmpfs", state, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, "size=64k,mode=700")).To(Succeed())
		DeferCleanup(func() {
			Expect(unix.Unmount(state, 0)).To(Succeed())
			Expect(os.Remove(state)).To(Succeed())
		})
		n := newNode(func(o *broker.Options) { o.StateDir = state })
		target, s := n.open("before")
		filler := filepath.Join(state, "filler")
		Expect(os.WriteFile(filler, make([]byte, 64<<10), 0o600)).To(MatchError(unix.ENOSPC))

		refused := n.request("refused")
		_, err = n.Open(context.Background(), refused)
		Expect(err).To(MatchError(unix.ENOSPC))
		Expect(err).To(MatchError(ContainSubstring("record session refused")))
		_, err = fuse.Find(refused.Target)
		Expect(err).To(MatchError(fuse.ErrNotMounted))
		Expect(filepath.Glob(filepath.Join(state, "*refused*"))).To(BeEmpty())

		Expect(unix.Kill(s.client(), unix.SIGKILL)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(target, "file"), []byte("x"), 0o644)).To(Succeed())
		Expect(n.Close(context.Background(), "before", 5*time.Second)).To(Succeed())

		Expect(os.Remove(filler)).To(Succeed())
		n.open("refused")
	})
})
