package mountpodtest

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/mount/fuse"
	"github.com/sidemount/sidemount/mount/mountpoint"
)

// Node is an ordinary node: a broker, a keeper, and Mount Pods as processes. Its Keeper is exchanged by Restart.
type Node struct {
	*mountpod.Keeper
	Broker *broker.Broker
	Pods   *Pods
	// Dir is the node's own directory, Data one that passthrough volumes may show.
	Dir, Data string
	// Events are what the keeper has recorded.
	Events *record.FakeRecorder

	t       testing.TB
	agent   string
	options mountpod.Options
	log     *logrus.Logger
	down    []func()

	mu   sync.Mutex
	tell func(broker.Event)
}

// nobody is the identity of clients.
const nobody = 65534

// Start starts a node. When the test ends, everything is ended and checked for leaks.
func Start(t testing.TB, change ...func(*mountpod.Options)) *Node {
	t.Helper()
	NeedSessions(t)
	n := &Node{t: t, agent: os.Getenv(program), Events: record.NewFakeRecorder(10000)}
	var err error
	if n.Dir, err = os.MkdirTemp("", "sidemount-mountpods-"); err != nil {
		t.Fatal(err)
	}
	n.Data = filepath.Join(n.Dir, "data")
	n.log = logrus.New()
	n.log.SetOutput(testWriter{t})
	n.prepare()
	files := openFiles()
	n.Pods = NewPods(filepath.Join(n.Dir, "logs"), map[string]string{})
	n.options = mountpod.Options{
		Pods: n.Pods, Driver: "csi.sidemount.io", NodeName: "node-1", NodeUID: "node-uid", Namespace: "sidemount",
		StateDir: filepath.Join(n.Dir, "state", "mountpod"), MountsDir: filepath.Join(n.Dir, "mounts"), AgentDir: filepath.Dir(n.agent),
		Grace: 5 * time.Second, Recorder: n.Events, Linger: time.Minute, Log: n.log,
	}
	for _, c := range change {
		c(&n.options)
	}
	n.startBroker()
	n.startKeeper()
	t.Cleanup(func() { n.clean(files) })
	return n
}

func (n *Node) prepare() {
	n.t.Helper()
	for dir, mode := range map[string]os.FileMode{"data": 0o777, "logs": 0o700, "mounts": 0o755} {
		path := filepath.Join(n.Dir, dir)
		if err := os.Mkdir(path, mode); err != nil {
			n.t.Fatal(err)
		}
	}
	if err := os.Chmod(n.Dir, 0o755); err != nil {
		n.t.Fatal(err)
	}
	if err := os.Chown(n.Data, nobody, nobody); err != nil {
		n.t.Fatal(err)
	}
}

// startBroker starts a broker as a new process would.
func (n *Node) startBroker() {
	n.t.Helper()
	b, err := broker.New(broker.Options{
		RunDir: filepath.Join(n.Dir, "run"), StateDir: filepath.Join(n.Dir, "state", "sessions"), AgentPath: n.agent,
		Liveness: 2 * time.Second, ProbeTimeout: 2 * time.Second, Reconnect: 5 * time.Second, Log: n.log, OnEvent: n.onEvent,
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.Broker, n.options.Broker = b, b
	n.keep("broker", b.Run)
}

func (n *Node) onEvent(e broker.Event) {
	n.mu.Lock()
	tell := n.tell
	n.mu.Unlock()
	if tell != nil {
		tell(e)
	}
}

func (n *Node) startKeeper() {
	n.t.Helper()
	k, err := mountpod.New(n.options)
	if err != nil {
		n.t.Fatal(err)
	}
	n.Keeper = k
	n.mu.Lock()
	n.tell = k.Notify
	n.mu.Unlock()
	n.keep("keeper", k.Run)
}

// keep runs a part of the node until stop.
func (n *Node) keep(what string, run func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- run(ctx) }()
	n.down = append(n.down, func() {
		cancel()
		select {
		case err := <-done:
			if err != nil {
				n.t.Errorf("%s: %v", what, err)
			}
		case <-time.After(30 * time.Second):
			n.t.Errorf("%s does not end", what)
		}
	})
}

// Stop ends keeper and broker as the end of their process does; Mount Pods go on.
func (n *Node) Stop() {
	for len(n.down) > 0 {
		last := len(n.down) - 1
		n.down[last]()
		n.down = n.down[:last]
	}
}

// Restart is another process in the place of the driver's.
func (n *Node) Restart() {
	n.t.Helper()
	n.Stop()
	n.startBroker()
	n.startKeeper()
}

// RestartKeeper exchanges the keeper alone.
func (n *Node) RestartKeeper(change ...func(*mountpod.Options)) {
	n.t.Helper()
	last := len(n.down) - 1
	n.down[last]()
	n.down = n.down[:last]
	for _, c := range change {
		c(&n.options)
	}
	n.startKeeper()
}

// Target returns a directory where a pod of the kubelet would see a volume.
func (n *Node) Target(name string) string {
	n.t.Helper()
	target := filepath.Join(n.Dir, "kubelet", name)
	if err := os.MkdirAll(target, 0o755); err != nil {
		n.t.Fatal(err)
	}
	return target
}

// Bind binds a share at a target, as the driver does.
func (n *Node) Bind(s mountpod.Share, target string) {
	n.t.Helper()
	source, err := os.OpenFile(s.Path, os.O_RDONLY|0o10000000, 0) // O_PATH asks no file system
	if err != nil {
		n.t.Fatal(err)
	}
	defer source.Close()
	if err := mountpoint.Bind(source, target); err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = mountpoint.Detach(target) })
}

// User is a pod that uses a volume.
func User(name string) (types.NamespacedName, types.UID) {
	return types.NamespacedName{Namespace: "shop", Name: name}, types.UID("uid-" + name)
}

// clean ends the node, and fails the test for whatever is left of it.
func (n *Node) clean(files int) {
	if len(n.down) == 0 {
		n.startBroker()
	}
	for _, s := range n.Broker.Sessions() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		if err := n.Broker.Close(ctx, s.ID, 2*time.Second); err != nil {
			n.t.Errorf("close session: %v", err)
		}
		cancel()
	}
	n.Stop()
	n.Pods.Close()
	deadline := time.Now().Add(10 * time.Second)
	for tick := time.NewTicker(20 * time.Millisecond); openFiles() > files; <-tick.C {
		if time.Now().After(deadline) {
			n.t.Errorf("%d files are left open, there were %d", openFiles(), files)
			break
		}
	}
	n.checkMounts()
	if n.t.Failed() {
		n.dumpLogs()
	}
	if err := os.RemoveAll(n.Dir); err != nil {
		n.t.Errorf("remove the node's directory: %v", err)
	}
}

func (n *Node) checkMounts() {
	entries, err := fuse.Table()
	if err != nil {
		n.t.Error(err)
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Target, filepath.Join(n.Dir, "mounts")) {
			n.t.Errorf("mount %s is left", e.Target)
		}
	}
}

func (n *Node) dumpLogs() {
	logs, _ := filepath.Glob(filepath.Join(n.Dir, "logs", "*"))
	for _, path := range logs {
		b, err := os.ReadFile(path)
		if err == nil {
			n.t.Logf("%s:\n%s", filepath.Base(path), b)
		}
	}
}

// Grace is how long the client of a share that nobody uses any more may flush.
func (n *Node) Grace() time.Duration { return n.options.Grace }

// Session returns the state of a session at the broker.
func (n *Node) Session(id mount.SessionID) (broker.Session, error) { return n.Broker.Status(id) }

func openFiles() int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		return -1
	}
	return len(entries)
}

// testWriter sends a log to the test's.
type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Log(strings.TrimRight(string(p), "\n"))
	return len(p), nil
}
