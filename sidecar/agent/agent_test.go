package agent

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// clientEnv makes this program a client; its value is what the client does.
const clientEnv = "SIDEMOUNT_TEST_CLIENT"

func TestMain(m *testing.M) {
	if what := os.Getenv(clientEnv); what != "" {
		os.Exit(runClient(what))
	}
	os.Exit(m.Run())
}

// runClient is a client that says what it should, and behaves as its volume's options tell: "fail", "score", "hang", "stubborn", "orphan", "back".
func runClient(what string) int {
	score, _ := os.ReadFile(ownOOMScore)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGTERM)
	c, err := wire.Inherited(3)
	if err != nil {
		return 90
	}
	ctx := context.Background()
	config, _, err := c.Receive(ctx)
	if err != nil || config.Type != wire.Config {
		return 91
	}
	switch {
	case config.Volume.Config["do"] == "fail":
		_ = c.Send(ctx, wire.Message{Type: wire.Failed, Cause: wire.CauseConfig, Text: "metaurl is missing"})
		return 1
	case config.Volume.Config["do"] == "score":
		_ = c.Send(ctx, wire.Message{Type: wire.Failed, Cause: wire.CauseConfig, Text: strings.TrimSpace(string(score))})
		return 1
	case config.Volume.Config["do"] == "hang":
		select {}
	case what == "orphan":
		// A grandchild whose parent dies at once.
		pid, err := syscall.ForkExec("/usr/bin/setsid", []string{"setsid", "--fork", "sleep", "0.2"}, &syscall.ProcAttr{Env: os.Environ()})
		if err == nil {
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
	}
	if err := c.Send(ctx, wire.Message{Type: wire.Ready}); err != nil {
		return 92
	}
	attach, _, err := c.Receive(ctx)
	if err != nil || attach.Type != wire.Attach {
		return 93
	}
	if err := c.Send(ctx, wire.Message{Type: wire.Serving}); err != nil {
		return 94
	}
	if what == "back" {
		go askForBackings(c)
	}
	go func() {
		for {
			m, _, err := c.Receive(ctx)
			if err != nil {
				os.Exit(95)
			}
			if m.Type == wire.Backed {
				// The broker learns by unback what has come here.
				if m.Backing == 0 {
					m.Backing = refusedBacking
				}
				_ = c.Send(ctx, wire.Message{Type: wire.Unback, Backings: []int32{m.Backing}})
			}
			if m.Type == wire.Ping {
				_ = c.Send(ctx, wire.Message{Type: wire.Pong, Client: &wire.Client{Phase: wire.InService, Alive: true}})
			}
		}
	}()
	for range asked {
		if what != "stubborn" {
			return 0
		}
	}
	return 96
}

// fakeBroker listens like a broker. A socket pair stands for the connection to the kernel: what is written to it can be read.
type fakeBroker struct {
	t            *testing.T
	socket       string
	listener     *wire.Listener
	conn         *wire.Conn
	device, seen *os.File
}

func newBroker(t *testing.T) *fakeBroker {
	t.Helper()
	b := &fakeBroker{t: t, socket: filepath.Join(t.TempDir(), "agent.sock")}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	b.device, b.seen = os.NewFile(uintptr(pair[0]), "device"), os.NewFile(uintptr(pair[1]), "kernel")
	t.Cleanup(func() { b.device.Close(); b.seen.Close() })
	b.listen()
	return b
}

func (b *fakeBroker) listen() {
	b.t.Helper()
	l, err := wire.Listen(b.socket, os.Getuid(), os.Getgid())
	if err != nil {
		b.t.Fatal(err)
	}
	b.listener = l
	b.t.Cleanup(func() { l.Close() })
}

// accept waits for the agent and returns its introduction.
func (b *fakeBroker) accept() wire.Message {
	b.t.Helper()
	var err error
	if b.conn, err = b.listener.Accept(); err != nil {
		b.t.Fatal(err)
	}
	b.t.Cleanup(func() { b.conn.Close() })
	m, files, err := b.conn.Receive(b.within())
	if err != nil {
		b.t.Fatal(err)
	}
	wire.CloseAll(files)
	return m
}

func (b *fakeBroker) within() context.Context {
	ctx, cancel := context.WithTimeout(b.t.Context(), 10*time.Second)
	b.t.Cleanup(cancel)
	return ctx
}

func (b *fakeBroker) send(m wire.Message, files ...*os.File) {
	b.t.Helper()
	if err := b.conn.Send(b.within(), m, files...); err != nil {
		b.t.Fatal(err)
	}
}

// until receives messages until one is as wanted.
func (b *fakeBroker) until(what string, want func(wire.Message) bool) wire.Message {
	b.t.Helper()
	for {
		m, files, err := b.conn.Receive(b.within())
		if err != nil {
			b.t.Fatalf("wait for %s: %v", what, err)
		}
		wire.CloseAll(files)
		if want(m) {
			return m
		}
	}
}

func phase(p wire.Phase, starts int) func(wire.Message) bool {
	return func(m wire.Message) bool {
		return m.Type == wire.State && m.Client.Phase == p && m.Client.Starts >= starts
	}
}

// hand gives the agent a session.
func (b *fakeBroker) hand(v mount.Volume, resumed bool) {
	b.t.Helper()
	if m := b.accept(); m.Type != wire.Hello {
		b.t.Fatalf("the agent says %s", m.Type)
	}
	memory, err := os.CreateTemp(b.t.TempDir(), "memory")
	if err != nil {
		b.t.Fatal(err)
	}
	defer memory.Close()
	r, w, err := os.Pipe()
	if err != nil {
		b.t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	b.send(wire.Message{
		Type: wire.Session, Session: "s", Mount: "m1", Volume: &v, Init: initRequest(), Answer: []byte{1}, Resumed: resumed,
	}, b.device, memory, w, r)
}

// resends counts the requests to resend that were written to the connection.
func (b *fakeBroker) resends() int {
	n := 0
	for {
		buf := make([]byte, 64)
		size, _, err := unix.Recvfrom(int(b.seen.Fd()), buf, unix.MSG_DONTWAIT)
		if err != nil || size == 0 {
			return n
		}
		if size == 16 && buf[4] == 7 {
			n++
		}
	}
}

// initRequest is INIT of a kernel that can resend.
func initRequest() []byte {
	b := make([]byte, 104)
	copy(b[4:], []byte{26})
	copy(b[40:], []byte{7, 0, 0, 0, 45})
	copy(b[52:], []byte{0, 0, 0, 0x40, 0x80})
	return b
}

// running is an agent that runs in this process.
type running struct {
	t      *testing.T
	cancel context.CancelFunc
	ended  chan error
	log    *lockedBuffer
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func run(t *testing.T, socket, what string, change ...func(*Options)) *running {
	t.Helper()
	r := &running{t: t, ended: make(chan error, 1), log: &lockedBuffer{}}
	o := Options{
		Socket: socket, Argv: []string{"/proc/self/exe"}, Env: append(os.Environ(), clientEnv+"="+what, "GORACE=atexit_sleep_ms=0"),
		Log: r.log, Grace: 2 * time.Second, StartTimeout: 3 * time.Second,
	}
	for _, c := range change {
		c(&o)
	}
	a, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.cancel = cancel
	go func() {
		r.ended <- a.Run(ctx)
		close(r.ended)
	}()
	t.Cleanup(func() {
		cancel()
		// Two agents in one process would wait for each other's children.
		for range r.ended {
		}
		if t.Failed() {
			t.Log(r.log)
		}
	})
	return r
}

func (r *running) wait() error {
	r.t.Helper()
	select {
	case err := <-r.ended:
		return err
	case <-time.After(15 * time.Second):
		r.t.Fatal("the agent does not end")
		return nil
	}
}

func TestAgentStartsTheNextClientAndAsksForItsRequests(t *testing.T) {
	b := newBroker(t)
	r := run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v"}, false)
	m := b.until("service", phase(wire.InService, 1))
	if b.resends() != 0 {
		t.Error("the first client of a session is given requests of another")
	}
	for i := 2; i < 5; i++ {
		b.send(wire.Message{Type: wire.Replace})
		m = b.until("the next client", phase(wire.InService, i))
		if m.Client.Ended != "hung" || m.Client.Served != i || m.Client.Pause == 0 {
			t.Errorf("state %+v", m.Client)
		}
		if n := b.resends(); n != 1 {
			t.Errorf("%d resends before client %d", n, i)
		}
	}
	b.send(wire.Message{Type: wire.Close, Grace: 5 * time.Second})
	m = b.until("the end", func(m wire.Message) bool { return m.Type == wire.Closed })
	if !m.Client.Flushed {
		t.Error("the client has not flushed")
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

func TestAgentTellsWhyAndTakesAMendedVolume(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v", Config: map[string]string{"do": "fail"}}, false)
	m := b.until("the failure", func(m wire.Message) bool {
		return m.Type == wire.State && m.Client.Phase == wire.Waiting && m.Client.Starts == 3
	})
	if m.Client.Cause != wire.CauseConfig || m.Client.Text != "metaurl is missing" || m.Client.Served != 0 {
		t.Errorf("state %+v", m.Client)
	}
	b.send(wire.Message{Type: wire.Update, Volume: &mount.Volume{ID: "v"}})
	m = b.until("service", phase(wire.InService, 4))
	if m.Client.Text != "" {
		t.Errorf("a client that serves still has a failure: %+v", m.Client)
	}
}

func TestAgentKillsAClientThatHangsAtItsStart(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v", Config: map[string]string{"do": "hang"}}, false)
	m := b.until("the end of the client", phase(wire.Waiting, 1))
	if m.Client.Ended != "hung while starting" {
		t.Errorf("state %+v", m.Client)
	}
}

func TestAgentGoesOnWithoutABrokerAndDepositsEverythingWithTheNext(t *testing.T) {
	b := newBroker(t)
	r := run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v", Secret: mount.Secret{"k": "s"}}, false)
	b.until("service", phase(wire.InService, 1))
	b.listener.Close()
	b.conn.Close()
	b.listen()
	m := b.accept()
	if m.Type != wire.Deposit || m.Mount != "m1" || m.Volume.Secret["k"] != "s" || !m.Resumed || m.Client.Phase != wire.InService {
		t.Errorf("the agent says %+v", m)
	}
	b.send(wire.Message{Type: wire.Accepted})
	b.until("its state", phase(wire.InService, 1))
	if strings.Contains(r.log.String(), "started the client") && strings.Count(r.log.String(), "started the client") != 1 {
		t.Error("the client was started again")
	}
}

func TestAgentDropsWhatIsStale(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("service", phase(wire.InService, 1))
	b.conn.Close()
	if m := b.accept(); m.Type != wire.Deposit {
		t.Fatalf("the agent says %s", m.Type)
	}
	b.send(wire.Message{Type: wire.Refused, Cause: wire.CauseStale})
	b.conn.Close()
	b.hand(mount.Volume{ID: "v"}, true)
	b.until("service", phase(wire.InService, 2))
}

func TestAgentEndsInOrderWhenItIsAsked(t *testing.T) {
	b := newBroker(t)
	r := run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("service", phase(wire.InService, 1))
	r.cancel()
	if m := b.until("the end", func(m wire.Message) bool { return m.Type == wire.Closed }); !m.Client.Flushed {
		t.Error("the client has not flushed")
	}
	if err := r.wait(); err != nil {
		t.Error(err)
	}
}

// What a dead client had acknowledged lies in the session's memory. At the end a client must come once more to write it.
func TestAgentStartsAClientToFlush(t *testing.T) {
	b := newBroker(t)
	r := run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v", Config: map[string]string{"do": "fail"}}, true)
	b.until("a long pause", phase(wire.Waiting, 5))
	b.send(wire.Message{Type: wire.Close, Grace: time.Second})
	if m := b.until("the end", func(m wire.Message) bool { return m.Type == wire.Closed }); m.Client.Flushed {
		t.Error("nobody has flushed, and the agent says so")
	}
	if err := r.wait(); !errors.Is(err, ErrUnflushed) {
		t.Errorf("got %v, want ErrUnflushed", err)
	}
	if n := strings.Count(r.log.String(), "started the client"); n < 6 {
		t.Errorf("%d clients were started, none of them for the end", n)
	}
}

func TestAgentGivesUpOnAStubbornClient(t *testing.T) {
	b := newBroker(t)
	r := run(t, b.socket, "stubborn")
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("service", phase(wire.InService, 1))
	start := time.Now()
	b.send(wire.Message{Type: wire.Close, Grace: 300 * time.Millisecond})
	if m := b.until("the end", func(m wire.Message) bool { return m.Type == wire.Closed }); m.Client.Flushed || m.Client.Ended != gaveUp {
		t.Errorf("state %+v", m.Client)
	}
	if err := r.wait(); !errors.Is(err, ErrUnflushed) {
		t.Errorf("got %v, want ErrUnflushed", err)
	}
	if took := time.Since(start); took > 3*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestAgentAnswersPings(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("service", phase(wire.InService, 1))
	alive := func() bool {
		b.send(wire.Message{Type: wire.Ping})
		return b.until("pong", func(m wire.Message) bool { return m.Type == wire.Pong }).Client.Alive
	}
	alive()
	deadline := time.Now().Add(5 * time.Second)
	for !alive() {
		if time.Now().After(deadline) {
			t.Fatal("a living client counts as dead")
		}
	}
}

func TestAgentReapsOrphans(t *testing.T) {
	b := newBroker(t)
	run(t, b.socket, "orphan")
	b.hand(mount.Volume{ID: "v"}, false)
	b.until("service", phase(wire.InService, 1))
	ticker := time.NewTicker(20 * time.Millisecond)
	defer ticker.Stop()
	for deadline := time.After(10 * time.Second); ; {
		children, err := os.ReadFile(fmt.Sprintf("/proc/self/task/%d/children", os.Getpid()))
		if err != nil {
			t.Skip("skipped: this kernel does not list children: ", err)
		}
		tasks, _ := filepath.Glob("/proc/self/task/*/children")
		all := ""
		for _, path := range tasks {
			f, err := os.ReadFile(path)
			if err == nil {
				all += string(f)
			}
		}
		if len(strings.Fields(all)) == 1 {
			return
		}
		select {
		case <-ticker.C:
		case <-deadline:
			t.Fatalf("children are left: %q %q", children, all)
		}
	}
}

func TestOptionsAreChecked(t *testing.T) {
	for name, o := range map[string]Options{
		"no socket":  {Argv: []string{"x"}, Log: io.Discard},
		"no command": {Socket: "/x", Log: io.Discard},
	} {
		if _, err := New(o); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}
