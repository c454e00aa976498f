package broker_test

import (
	"context"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

// upgraded is how an upgrade has ended.
type upgraded struct {
	pause time.Duration
	err   error
}

// upgrade begins to hand the session over to the agent of a generation.
func (n *node) upgrade(id mount.SessionID, generation int, within time.Duration) <-chan upgraded {
	b, v := n.Broker, n.request(id).Volume
	done := make(chan upgraded, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), within)
		defer cancel()
		pause, err := b.Upgrade(ctx, id, broker.Successor{Generation: generation, Volume: v, Grace: 5 * time.Second, Serve: 5 * time.Second})
		done <- upgraded{pause, err}
	}()
	return done
}

func (n *node) generation(id mount.SessionID) func() int {
	return func() int {
		s, _ := n.Status(id)
		return s.Generation
	}
}

var _ = Describe("An upgrade", func() {
	It("replaces a client by that of another agent, and the application sees a pause", func() {
		n := newNode()
		target, old := n.open("next")
		l := startLoad(target)
		for generation := 1; generation <= 5; generation++ {
			done := n.upgrade("next", generation, 20*time.Second)
			next := n.runGeneration("next", generation)
			var u upgraded
			Eventually(done).WithTimeout(20 * time.Second).Should(Receive(&u))
			Expect(u.err).NotTo(HaveOccurred())
			Expect(u.pause).To(BeNumerically(">", 0))
			AddReportEntry("pause", u.pause.String())
			Expect(n.generation("next")()).To(Equal(generation))
			Expect(old.client()).To(BeZero(), "the client before is still there")
			Expect(next.client()).NotTo(BeZero())
			// A runtime ends the container before.
			Expect(old.cmd.Process.Signal(unix.SIGTERM)).To(Succeed())
			Eventually(old.ended).WithTimeout(5 * time.Second).Should(Receive(BeNil()))
			n.killClient("next", next)
			old = next
		}
		l.finish()
		Expect(n.seen(broker.ClientUpgraded)).To(HaveLen(5))
		Expect(n.seen(broker.ClientHung)).To(BeEmpty())
		Expect(n.seen(broker.ClientFailed)).To(HaveLen(5), "only what the test has killed has failed")
	})

	DescribeTable("may come after the agent has been asked to end, which serves on until then", func(brokerFirst bool) {
		n := newNode()
		target, old := n.open("relief")
		l := startLoad(target)
		retain := func() { Expect(n.Retain(context.Background(), "relief", time.Minute)).To(Succeed()) }
		says := func() string { return old.output.String() }
		if brokerFirst {
			retain()
		}
		Expect(old.cmd.Process.Signal(unix.SIGTERM)).To(Succeed())
		if !brokerFirst {
			Eventually(says).WithTimeout(5 * time.Second).Should(ContainSubstring("ending"))
			retain()
		}
		Eventually(says).WithTimeout(5 * time.Second).Should(ContainSubstring("serving on"))
		Expect(old.client()).NotTo(BeZero())
		done := n.upgrade("relief", 1, 20*time.Second)
		next := n.runGeneration("relief", 1)
		var u upgraded
		Eventually(done).WithTimeout(20 * time.Second).Should(Receive(&u))
		Expect(u.err).NotTo(HaveOccurred())
		Eventually(old.ended).WithTimeout(5 * time.Second).Should(Receive(BeNil()))
		l.finish()
		Expect(next.client()).NotTo(BeZero())
		Expect(n.seen(broker.ClientFailed)).To(BeEmpty())
	},
		Entry("when the agent says first that it leaves", false),
		Entry("when the broker has known before", true),
	)

	It("leaves the client alone when the next one cannot start", func() {
		n := newNode()
		target, old := n.open("cannot")
		pid := old.client()
		l := startLoad(target)
		done := n.upgrade("cannot", 1, 2*time.Second)
		n.runGeneration("cannot", 1, "/bin/false")
		var u upgraded
		Eventually(done).WithTimeout(10 * time.Second).Should(Receive(&u))
		Expect(u.err).To(MatchError(ContainSubstring("the next client cannot start: the client has ended: exit status 1")))
		l.finish()
		Expect(old.client()).To(Equal(pid))
		Expect(n.seen(broker.ClientUpgradeFailed)).To(HaveLen(1))
		Expect(n.seen(broker.ClientRestarted)).To(BeEmpty())
		Expect(n.generation("cannot")()).To(BeZero())
	})

	It("goes back to the old client when the next one is ready and does not serve", func() {
		n := newNode()
		target, old := n.open("back")
		l := startLoad(target)
		done := n.upgrade("back", 1, 20*time.Second)
		n.runGeneration("back", 1, testClient(deafName))
		var u upgraded
		Eventually(done).WithTimeout(40 * time.Second).Should(Receive(&u))
		Expect(u.err).To(MatchError(ContainSubstring("the next client does not answer within 5s")))
		Expect(n.Status("back")).To(HaveField("Ready", true))
		l.finish()
		Expect(old.client()).NotTo(BeZero())
		Expect(n.generation("back")()).To(BeZero())
		Expect(n.seen(broker.SessionLost)).To(BeEmpty())
		Expect(n.seen(broker.ClientRestarted)).To(ConsistOf(HaveField("Cause", "upgrade failed")))
	})

	It("comes to an end although the old agent is killed in the middle of it", func() {
		n := newNode()
		target, old := n.open("dying")
		l := startLoad(target)
		done := n.upgrade("dying", 1, 20*time.Second)
		old.kill()
		n.runGeneration("dying", 1)
		var u upgraded
		Eventually(done).WithTimeout(20 * time.Second).Should(Receive(&u))
		Expect(u.err).NotTo(HaveOccurred())
		l.finish()
	})

	It("comes to an end although the old client hangs", func() {
		n := newNode(func(o *broker.Options) { o.Liveness = time.Minute })
		target, old := n.open("hung")
		l := startLoad(target)
		Expect(unix.Kill(old.client(), unix.SIGSTOP)).To(Succeed())
		done := n.upgrade("hung", 1, 20*time.Second)
		n.runGeneration("hung", 1)
		var u upgraded
		Eventually(done).WithTimeout(30 * time.Second).Should(Receive(&u))
		Expect(u.err).NotTo(HaveOccurred())
		l.finish()
	})

	It("goes on after a restart of the broker", func() {
		n := newNode()
		target, old := n.open("restart")
		l := startLoad(target)
		done := n.upgrade("restart", 1, 2*time.Second)
		next := n.runGeneration("restart", 1, "/bin/false")
		Eventually(done).WithTimeout(10 * time.Second).Should(Receive())
		next.kill()

		n.upgrade("restart", 2, time.Minute)
		next = n.runGeneration("restart", 2)
		Eventually(func() string { return next.output.String() }).WithTimeout(10 * time.Second).Should(ContainSubstring("started the client"))
		n.stop()
		n.startBroker()
		again := n.upgrade("restart", 2, 20*time.Second)
		var u upgraded
		Eventually(again).WithTimeout(20 * time.Second).Should(Receive(&u))
		Expect(u.err).NotTo(HaveOccurred())
		Eventually(n.generation("restart")).WithTimeout(5 * time.Second).Should(Equal(2))
		n.waitReady("restart")
		l.finish()
		Expect(old.client()).To(BeZero())
		Expect(next.client()).NotTo(BeZero())
		Expect(n.seen(broker.SessionLost)).To(BeEmpty())
	})

	It("does not lose the session when the broker dies at any moment of it", func() {
		n := newNode()
		target, old := n.open("anytime")
		l := startLoad(target)
		for generation := 1; generation <= 8; generation++ {
			n.upgrade("anytime", generation, 20*time.Second)
			next := n.runGeneration("anytime", generation)
			Eventually(func() string { return next.output.String() }).WithTimeout(10 * time.Second).Should(ContainSubstring("started the client"))
			moment := time.NewTimer(time.Duration(generation-1) * 15 * time.Millisecond)
			<-moment.C
			n.stop()
			n.startBroker()
			var u upgraded
			Eventually(n.upgrade("anytime", generation, 20*time.Second)).WithTimeout(40 * time.Second).Should(Receive(&u))
			Expect(u.err).NotTo(HaveOccurred(), "generation %d", generation)
			n.waitReady("anytime")
			Expect(old.cmd.Process.Signal(unix.SIGTERM)).To(Succeed())
			Eventually(old.ended).WithTimeout(5 * time.Second).Should(Receive(BeNil()))
			old = next
		}
		l.finish()
		Expect(n.seen(broker.SessionLost)).To(BeEmpty())
	})

	It("gives the session to nobody who was not asked for", func() {
		n := newNode()
		target, old := n.open("stranger")
		pid := old.client()
		next := n.runGeneration("stranger", 7)
		Eventually(func() string { return next.output.String() }).WithTimeout(10 * time.Second).Should(ContainSubstring("nobody has asked for an agent of generation 7"))
		Expect(os.WriteFile(filepath.Join(target, "x"), nil, 0o644)).To(Succeed())
		Expect(old.client()).To(Equal(pid))
		Expect(next.client()).To(BeZero())
	})

	It("needs a session that has been served", func() {
		n := newNode()
		_, err := n.Open(context.Background(), n.request("young"))
		Expect(err).NotTo(HaveOccurred())
		_, err = n.Upgrade(context.Background(), "young", broker.Successor{Generation: 1, Volume: n.request("young").Volume})
		Expect(err).To(MatchError(broker.ErrUnserved))
		_, err = n.Upgrade(context.Background(), "nobody", broker.Successor{Generation: 1})
		Expect(err).To(MatchError(mount.ErrNotFound))
	})
})
