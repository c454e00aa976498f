package mountpod_test

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

func TestMain(m *testing.M) { os.Exit(mountpodtest.Main(m)) }

// soon bounds what a test waits for.
const soon = 20 * time.Second

func within(t testing.TB, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	t.Cleanup(cancel)
	return ctx
}

// eventually waits until ok is true.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx := within(t, soon)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("%s: not within %s", what, soon)
		}
	}
}

func request(n *mountpodtest.Node, m sidecar.Mount, user string) mountpod.Request {
	pod, uid := mountpodtest.User(user)
	return mountpod.Request{Mount: m, Target: filepath.Join(n.Dir, "kubelet", user), Pod: pod, PodUID: uid}
}

func acquire(t testing.TB, n *mountpodtest.Node, m sidecar.Mount, user string) mountpod.Share {
	t.Helper()
	s, err := n.Acquire(within(t, soon), request(n, m, user))
	if err != nil {
		t.Fatalf("acquire for %s: %v", user, err)
	}
	return s
}

func release(t testing.TB, n *mountpodtest.Node, user string) {
	t.Helper()
	if err := n.Release(within(t, soon), filepath.Join(n.Dir, "kubelet", user)); err != nil {
		t.Fatal(err)
	}
}

// read reads a file through a mount in a process that can be killed.
func read(t testing.TB, path string) string {
	t.Helper()
	out, err := exec.CommandContext(within(t, soon), "cat", path).CombinedOutput()
	if err != nil {
		t.Fatalf("read %s: %v: %s", path, err, out)
	}
	return string(out)
}

// put writes a file that the client's user may change.
func put(t testing.TB, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, 0o666)); err != nil {
		t.Fatal(err)
	}
}

func podNames(n *mountpodtest.Node) []string {
	var names []string
	for _, pod := range n.Pods.All() {
		names = append(names, pod.Name)
	}
	return names
}

func gone(n *mountpodtest.Node, s mountpod.Share) func() bool {
	return func() bool {
		_, err := n.Session(s.Session)
		return errors.Is(err, mount.ErrNotFound) && len(n.Pods.All()) == 0
	}
}

func TestPodsOfANodeShareOneMountPod(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	put(t, filepath.Join(n.Data, "hello"), "world")
	var shares [8]mountpod.Share
	var all sync.WaitGroup
	for i := range shares {
		all.Go(func() {
			s, err := n.Acquire(within(t, soon), request(n, m, string(rune('a'+i))))
			if err != nil {
				t.Error(err)
			}
			shares[i] = s
		})
	}
	all.Wait()
	for _, s := range shares {
		if s != shares[0] {
			t.Errorf("share %+v, want %+v", s, shares[0])
		}
	}
	if got := read(t, filepath.Join(shares[0].Path, "hello")); got != "world" {
		t.Errorf("read %q", got)
	}
	if got := n.Pods.Calls(); got != (mountpodtest.Calls{Create: 1, Watch: 1}) {
		t.Errorf("a cold publish costs %+v, want one create", got)
	}
	before := n.Pods.Calls()
	acquire(t, n, m, "late")
	acquire(t, n, m, "late")
	if got := n.Pods.Calls(); got != before {
		t.Errorf("a shared publish costs API calls: %+v, before %+v", got, before)
	}
}

func TestLastUserTakesTheMountPodAlong(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	acquire(t, n, m, "two")
	release(t, n, "one")
	release(t, n, "one")
	if _, err := n.Session(s.Session); err != nil {
		t.Fatalf("the session ended with its first user: %v", err)
	}
	release(t, n, "two")
	eventually(t, "session and pod are gone", gone(n, s))
	eventually(t, "no record is left", func() bool {
		left, err := filepath.Glob(filepath.Join(n.Dir, "state", "mountpod", "*", "*"))
		return err == nil && len(left) == 0
	})
	release(t, n, "never-there")
	again := acquire(t, n, m, "three")
	if again.Session != s.Session {
		t.Errorf("session %s, want %s: it is derived from the share", again.Session, s.Session)
	}
}

func TestDelayedEndIsCalledOffByANewUser(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, map[string]string{"juicefs/mount-delete-delay": "500ms"})
	s := acquire(t, n, m, "one")
	release(t, n, "one")
	if again := acquire(t, n, m, "two"); again != s {
		t.Errorf("share %+v, want %+v", again, s)
	}
	if calls := n.Pods.Calls(); calls.Create != 1 || calls.Delete != 0 {
		t.Errorf("calls %+v", calls)
	}
	began := time.Now()
	release(t, n, "two")
	eventually(t, "session and pod are gone", gone(n, s))
	if took := time.Since(began); took < 500*time.Millisecond {
		t.Errorf("ended after %s, before the delay", took)
	}
}

func TestAnotherConfigurationIsAnotherShare(t *testing.T) {
	n := mountpodtest.Start(t)
	one := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	two := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, map[string]string{"juicefs/mount-memory-limit": "2Gi"}), "two")
	if one.Session == two.Session || len(podNames(n)) != 2 {
		t.Errorf("shares %+v and %+v, pods %q", one, two, podNames(n))
	}
}

func TestDeletedMountPodIsReplacedAndFilesStayOpen(t *testing.T) {
	n := mountpodtest.Start(t)
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	put(t, filepath.Join(n.Data, "log"), "")
	// The writer has its file open all the time, as an application would.
	writer := exec.Command("sh", "-c", `exec >"$1"; while read line; do echo "$line" || exit 1; done`, "writer", filepath.Join(s.Path, "log"))
	in, err := writer.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	line := func(text string) {
		t.Helper()
		if _, err := in.Write([]byte(text + "\n")); err != nil {
			t.Fatal(err)
		}
	}
	line("before")
	for round, end := range map[string]func(string){
		"evicted": n.Pods.Evict,
		"killed":  n.Pods.Kill,
		"failed":  func(name string) { n.Pods.Fail(name, "Evicted", "the node was low on memory") },
	} {
		// The pod of the round before may still be on its way out.
		var now mountpod.Share
		eventually(t, "the share has one pod", func() bool {
			now, _ = n.Find(filepath.Join(n.Dir, "kubelet", "one"))
			pods := n.Pods.All()
			return len(pods) == 1 && pods[0].Name == now.Pod && pods[0].DeletionTimestamp == nil
		})
		restarts := func() int {
			s, err := n.Session(now.Session)
			if err != nil {
				t.Fatal(err)
			}
			return s.Restarts
		}
		before := restarts()
		end(now.Pod)
		line(round)
		eventually(t, "the next client serves after "+round, func() bool { return restarts() > before })
	}
	line("after")
	in.Close()
	if err := writer.Wait(); err != nil {
		t.Fatalf("the writer saw an error: %v", err)
	}
	got := read(t, filepath.Join(s.Path, "log"))
	for _, want := range []string{"before\n", "evicted\n", "killed\n", "failed\n", "after\n"} {
		if !slices.Contains(slices.Collect(lines(got)), want) {
			t.Errorf("%q is missing in %q", want, got)
		}
	}
}

func lines(text string) func(func(string) bool) {
	return func(yield func(string) bool) {
		for text != "" {
			i := 0
			for i < len(text)-1 && text[i] != '\n' {
				i++
			}
			if !yield(text[:i+1]) {
				return
			}
			text = text[i+1:]
		}
	}
}
