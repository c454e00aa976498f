package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

// nobody is the identity of agent and client: no privilege of any kind.
const nobody = 65534

// patience bounds every wait for a state.
const patience = 60 * time.Second

// stand is a broker, and one session of it with agent and client as processes without privilege.
type stand struct {
	dir    string
	mnt    string
	id     mount.SessionID
	volume mount.Volume
	broker *broker.Broker
	agent  *exec.Cmd
	exited chan struct{} // the agent's exit
	mu     sync.Mutex
	events []broker.Event
	file   *os.File // what writeBlocks keeps open
}

// newStand serves a volume. Everything ends with the spec.
func newStand(ctx context.Context, v mount.Volume) *stand {
	GinkgoHelper()
	s := openStand(ctx, v)
	s.awaitReady(ctx)
	return s
}

// openStand starts a volume's session without waiting for it.
func openStand(ctx context.Context, v mount.Volume, change ...func(*broker.Options)) *stand {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "stand-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chmod(dir, 0o755)).To(Succeed())
	s := &stand{dir: dir, mnt: filepath.Join(dir, "mnt"), id: "data", volume: v}
	log := logrus.New()
	log.SetOutput(GinkgoWriter)
	o := broker.Options{RunDir: filepath.Join(dir, "run"), StateDir: filepath.Join(dir, "state"), AgentPath: program, OnEvent: s.note, Log: log}
	for _, c := range change {
		c(&o)
	}
	s.broker, err = broker.New(o)
	Expect(err).NotTo(HaveOccurred())
	running, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- s.broker.Run(running) }()
	DeferCleanup(func() {
		cancel()
		Eventually(ended, patience).Should(Receive(BeNil()))
	})
	_, err = s.broker.Open(ctx, broker.Request{ID: s.id, Target: s.mnt, Volume: v, UID: nobody, GID: nobody})
	Expect(err).NotTo(HaveOccurred())
	s.startAgent()
	DeferCleanup(s.close)
	return s
}

func (s *stand) note(e broker.Event) {
	fmt.Fprintf(GinkgoWriter, "event %s %s %s %s\n", e.Reason, e.Cause, e.Pause, e.Message)
	s.mu.Lock()
	s.events = append(s.events, e)
	s.mu.Unlock()
}

// told tells whether there was an event for this reason.
func (s *stand) told(reason broker.Reason) func() bool {
	return func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return slices.ContainsFunc(s.events, func(e broker.Event) bool { return e.Reason == reason })
	}
}

// pauses are how long requests had to wait at each restart.
func (s *stand) pauses() []time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []time.Duration
	for _, e := range s.events {
		if e.Reason == broker.ClientRestarted {
			all = append(all, e.Pause)
		}
	}
	return all
}

// startAgent starts the agent as it runs in a sidecar.
func (s *stand) startAgent() {
	GinkgoHelper()
	s.agent = exec.Command(program)
	s.agent.Dir = "/"
	s.agent.Env = append(os.Environ(), roleEnv+"="+roleAgent, socketEnv+"="+filepath.Join(s.broker.SocketDir(s.id), "agent.sock"))
	s.agent.Stdout, s.agent.Stderr = GinkgoWriter, GinkgoWriter
	s.agent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	Expect(s.agent.Start()).To(Succeed())
	exited := make(chan struct{})
	cmd := s.agent
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	s.exited = exited
}

func (s *stand) awaitReady(ctx context.Context) {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	Expect(s.broker.Wait(ctx, s.id)).To(Succeed())
}

// close ends the session in order and checks that the agent has ended with it.
func (s *stand) close() {
	if s.file != nil {
		Expect(s.file.Close()).To(Succeed())
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	Expect(s.broker.Close(ctx, s.id, 30*time.Second)).To(Succeed())
	Eventually(s.exited, patience).Should(BeClosed())
}

// client is the pid of the client that runs now.
func (s *stand) client() (int, error) {
	pid := s.agent.Process.Pid
	lists, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid)) // a child belongs to the thread that forked it
	if err != nil {
		return 0, err
	}
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			return 0, err
		}
		if fields := strings.Fields(string(text)); len(fields) > 0 {
			return strconv.Atoi(fields[0])
		}
	}
	return 0, fmt.Errorf("agent %d has no child", pid)
}

// killClient kills the client and waits until another one serves.
func (s *stand) killClient(ctx context.Context) {
	GinkgoHelper()
	s.endClient(ctx, syscall.SIGKILL)
}

// endClient ends the client by a signal and waits until another one serves.
func (s *stand) endClient(ctx context.Context, by syscall.Signal) {
	GinkgoHelper()
	before, err := s.broker.Status(s.id)
	Expect(err).NotTo(HaveOccurred())
	pid, err := s.client()
	Expect(err).NotTo(HaveOccurred())
	Expect(syscall.Kill(pid, by)).To(Succeed())
	Eventually(ctx, func(g Gomega) {
		now, err := s.broker.Status(s.id)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(now.Restarts).To(BeNumerically(">", before.Restarts))
		g.Expect(now.Ready).To(BeTrue())
	}).WithTimeout(patience).WithPolling(5 * time.Millisecond).Should(Succeed())
}

// path is a file on the mount.
func (s *stand) path(elements ...string) string {
	return filepath.Join(append([]string{s.mnt}, elements...)...)
}

// volumeDir is a directory that the client may write to.
func volumeDir() string {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "volume-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chown(dir, nobody, nobody)).To(Succeed())
	return dir
}

// sqliteVolume keeps metadata in SQLite and objects in files.
func sqliteVolume(options ...string) mount.Volume {
	GinkgoHelper()
	dir := volumeDir()
	return volume(dir, "sqlite3://"+filepath.Join(dir, "meta.db"), options...)
}

func volume(dir, metaURL string, options ...string) mount.Volume {
	return mount.Volume{
		ID: "pv-1", Name: "data", Client: mount.JuiceFS, Options: options,
		Secret: mount.Secret{
			"name": "testfs", "metaurl": metaURL, "storage": "file", "bucket": filepath.Join(dir, "objects"), "trash-days": "0",
		},
	}
}

func listen() net.Listener {
	GinkgoHelper()
	l, err := listenAt("127.0.0.1:0")
	Expect(err).NotTo(HaveOccurred())
	return l
}

func listenAt(address string) (net.Listener, error) { return net.Listen("tcp", address) }

func dial(address string) (net.Conn, error) { return net.Dial("tcp", address) }
