package broker_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/mount/fuse"
)

// nobody is the identity of sidecars.
const nobody = 65534

// node is a broker with directories of its own, and the agents that a runtime would run.
type node struct {
	dir, data string
	options   broker.Options
	*broker.Broker
	stop func()

	mu     sync.Mutex
	events []broker.Event
}

// newNode starts a broker. Everything is checked for leaks when the spec ends.
func newNode(change ...func(*broker.Options)) *node {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "sidemount-node-")
	Expect(err).NotTo(HaveOccurred())
	Expect(os.Chmod(dir, 0o755)).To(Succeed())
	n := &node{dir: dir, data: filepath.Join(dir, "data")}
	Expect(os.Mkdir(n.data, 0o755)).To(Succeed())
	Expect(os.Chown(n.data, nobody, nobody)).To(Succeed())
	log := logrus.New()
	log.SetOutput(GinkgoWriter)
	n.options = broker.Options{
		RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), AgentPath: program,
		Liveness: time.Second, ProbeTimeout: 2 * time.Second, Reconnect: 5 * time.Second, Log: log,
		OnEvent: func(e broker.Event) {
			n.mu.Lock()
			defer n.mu.Unlock()
			n.events = append(n.events, e)
		},
	}
	for _, c := range change {
		c(&n.options)
	}
	n.startBroker()
	files := countFiles()
	DeferCleanup(func() {
		for _, s := range n.Sessions() {
			Expect(n.Close(context.Background(), s.ID, time.Second)).To(Succeed())
		}
		n.stop()
		Eventually(countFiles).WithTimeout(5*time.Second).Should(BeNumerically("<=", files), "files are left open")
		entries, err := fuse.Table()
		Expect(err).NotTo(HaveOccurred())
		for _, e := range entries {
			Expect(e.Target).NotTo(HavePrefix(dir), "a mount is left")
		}
		Expect(os.RemoveAll(dir)).To(Succeed())
	})
	return n
}

// startBroker starts a broker on the node's directories, as after a restart of its process.
func (n *node) startBroker() {
	GinkgoHelper()
	b, err := broker.New(n.options)
	Expect(err).NotTo(HaveOccurred())
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- b.Run(ctx) }()
	n.Broker = b
	n.stop = func() {
		cancel()
		Eventually(ended).WithTimeout(10 * time.Second).Should(Receive(BeNil()))
	}
}

func (n *node) request(id mount.SessionID) broker.Request {
	return broker.Request{
		ID: id, Target: filepath.Join(n.dir, "pods", string(id)), UID: nobody, GID: nobody,
		Volume: mount.Volume{ID: "pv-" + mount.VolumeID(id), Name: "data", Client: mount.Passthrough, Config: map[string]string{"path": n.data},
			Secret: mount.Secret{"key": "very-secret"}},
	}
}

// open opens a session and runs an agent for it until it serves.
func (n *node) open(id mount.SessionID) (string, *sidecar) {
	GinkgoHelper()
	r := n.request(id)
	_, err := n.Open(context.Background(), r)
	Expect(err).NotTo(HaveOccurred())
	s := n.runAgent(id)
	n.waitReady(id)
	return r.Target, s
}

func (n *node) waitReady(id mount.SessionID) {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	Expect(n.Wait(ctx, id)).To(Succeed())
}

func (n *node) seen(reason broker.Reason) []broker.Event {
	n.mu.Lock()
	defer n.mu.Unlock()
	var found []broker.Event
	for _, e := range n.events {
		if e.Reason == reason {
			found = append(found, e)
		}
	}
	return found
}

// sidecar is an agent's process, without any privilege.
type sidecar struct {
	cmd    *exec.Cmd
	output *output
	ended  chan error
}

// output collects what a process writes, while it writes.
type output struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	GinkgoWriter.Write(p)
	return o.b.Write(p)
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.b.String()
}

// runAgent starts an agent as a runtime would: uid 65534, no capability in any set, no_new_privs.
func (n *node) runAgent(id mount.SessionID, client ...string) *sidecar {
	GinkgoHelper()
	return n.runGeneration(id, 0, client...)
}

// runGeneration starts one of several agents of a session.
func (n *node) runGeneration(id mount.SessionID, generation int, client ...string) *sidecar {
	GinkgoHelper()
	if len(client) == 0 {
		client = []string{program, "passthrough"}
	}
	args := []string{
		"--reuid", strconv.Itoa(nobody), "--regid", strconv.Itoa(nobody), "--clear-groups", "--no-new-privs", "--bounding-set=-all", "--inh-caps=-all",
		"--", program, "run", "-socket", filepath.Join(n.SocketDir(id), "agent.sock"), "-grace", "5s", "-relief", "10s", "-restart-burst", "1000",
		"-generation", itoa(generation), "--",
	}
	s := &sidecar{cmd: exec.Command("setpriv", append(args, client...)...), output: &output{}, ended: make(chan error, 1)}
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	s.cmd.WaitDelay = 5 * time.Second
	Expect(s.cmd.Start()).To(Succeed())
	go func() {
		s.ended <- s.cmd.Wait()
		close(s.ended)
	}()
	DeferCleanup(func() {
		s.cmd.Process.Kill()
		Eventually(s.ended).WithTimeout(10*time.Second).Should(BeClosed(), "the agent or its client is left")
	})
	return s
}

// kill ends the agent as the kernel would.
func (s *sidecar) kill() {
	GinkgoHelper()
	Expect(s.cmd.Process.Kill()).To(Succeed())
	Eventually(s.ended).WithTimeout(10 * time.Second).Should(BeClosed())
}

// client returns the pid of the agent's child, 0 if there is none.
func (s *sidecar) client() int {
	pid := strconv.Itoa(s.cmd.Process.Pid)
	tasks, _ := filepath.Glob("/proc/" + pid + "/task/*/children")
	for _, t := range tasks {
		b, _ := os.ReadFile(t)
		for f := range strings.FieldsSeq(string(b)) {
			child, _ := strconv.Atoi(f)
			return child
		}
	}
	return 0
}

// killClient kills the client and returns when the next one serves.
func (n *node) killClient(id mount.SessionID, s *sidecar) {
	GinkgoHelper()
	before, err := n.Status(id)
	Expect(err).NotTo(HaveOccurred())
	pid := s.client()
	Expect(pid).NotTo(BeZero())
	Expect(unix.Kill(pid, unix.SIGKILL)).To(Succeed())
	Eventually(func(g Gomega) {
		now, err := n.Status(id)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(now.Restarts).To(BeNumerically(">", before.Restarts))
		g.Expect(now.Ready).To(BeTrue())
	}).WithTimeout(20 * time.Second).WithPolling(5 * time.Millisecond).Should(Succeed())
}

func countFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

func itoa(n int) string { return strconv.Itoa(n) }
