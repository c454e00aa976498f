package broker_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/mount/fuse/fusetest"
	"github.com/sidemount/sidemount/mount/wire"
)

// Copies of this program with these names are clients: one gets ready and then does not serve; the other one serves until it is sent SIGUSR1, and from then on answers
// pings and nothing else.
const (
	deafName  = "deaf-client"
	stuckName = "stuck-client"
)

// testClient is the path of one of them; sidecars may run it.
func testClient(name string) string {
	GinkgoHelper()
	path := filepath.Join(filepath.Dir(program), name)
	in, err := os.Open("/proc/self/exe")
	Expect(err).NotTo(HaveOccurred())
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	Expect(err).NotTo(HaveOccurred())
	_, err = io.Copy(out, in)
	Expect(err).NotTo(HaveOccurred())
	Expect(out.Close()).To(Succeed())
	return path
}

// runClient is such a client. It ends with its agent.
func runClient(serves bool) {
	if err := beClient(serves); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func beClient(serves bool) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := wire.Inherited(3)
	if err != nil {
		return err
	}
	view := wire.Client{Phase: wire.Starting}
	for {
		m, files, err := conn.Receive(ctx)
		if err != nil {
			return err
		}
		switch {
		case m.Type == wire.Config:
			err = conn.Send(ctx, wire.Message{Type: wire.Ready})
		case m.Type == wire.Ping:
			err = conn.Send(ctx, wire.Message{Type: wire.Pong, Client: &view})
		case m.Type == wire.Attach && serves:
			view = wire.Client{Phase: wire.InService, Alive: true}
			go serveUntilStuck(files[0])
			err = conn.Send(ctx, wire.Message{Type: wire.Serving})
		}
		if err != nil {
			return err
		}
	}
}

// serveUntilStuck answers what the kernel asks until it is told to stop. A client that is told to end has nothing to flush.
func serveUntilStuck(dev *os.File) {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGUSR1, unix.SIGTERM)
	b := make([]byte, fusetest.Request)
	p := []unix.PollFd{{Fd: int32(dev.Fd()), Events: unix.POLLIN}}
	for {
		select {
		case s := <-signals:
			if s == unix.SIGUSR1 {
				<-signals
			}
			os.Exit(0)
		default:
		}
		if n, err := unix.Poll(p, 10); n == 0 || err != nil {
			continue
		}
		if n, err := unix.Read(int(dev.Fd()), b); err == nil {
			fusetest.Answer(dev, b[:n])
		}
	}
}

var _ = Describe("A client that answers pings and not the mount", func() {
	It("is replaced, and what has waited for it goes on", func() {
		n := newNode(func(o *broker.Options) {
			o.Stuck, o.ProbeTimeout, o.Liveness = 2*time.Second, 500*time.Millisecond, 500*time.Millisecond
		})
		r := n.request("stuck")
		_, err := n.Open(context.Background(), r)
		Expect(err).NotTo(HaveOccurred())
		s := n.runAgent("stuck", testClient(stuckName))
		n.waitReady("stuck")
		pid := s.client()
		Expect(unix.Kill(pid, unix.SIGUSR1)).To(Succeed())
		asked := make(chan error, 1)
		start := time.Now()
		go func() {
			for { // until one that it does not answer any more
				_, err := os.Stat(filepath.Join(r.Target, "file"))
				if err != nil || time.Since(start) > time.Second {
					asked <- err
					return
				}
			}
		}()
		Eventually(asked).WithTimeout(20 * time.Second).Should(Receive(BeNil()))
		Expect(time.Since(start)).To(BeNumerically(">=", n.options.Stuck), "a client gets the time of Options.Stuck")
		Expect(n.seen(broker.ClientHung)).To(ConsistOf(HaveField("Message", ContainSubstring("requests are not answered"))))
		Eventually(func() []broker.Event { return n.seen(broker.ClientRestarted) }).WithTimeout(5 * time.Second).Should(ConsistOf(HaveField("Cause", "hung")))
		Expect(s.client()).NotTo(Equal(pid))
	})
})
