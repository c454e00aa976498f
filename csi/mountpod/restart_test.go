package mountpod_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

func TestRestartOfTheDriverDisturbsNobody(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	put(t, filepath.Join(n.Data, "hello"), "world")
	s := acquire(t, n, m, "one")
	n.Restart()
	eventually(t, "the session is restored", func() bool {
		abnormal, _ := n.Condition(filepath.Join(n.Dir, "kubelet", "one"))
		return !abnormal
	})
	if got, ok := n.Find(filepath.Join(n.Dir, "kubelet", "one")); !ok || got != s {
		t.Errorf("found %+v %t, want %+v", got, ok, s)
	}
	before := n.Pods.Calls()
	if again := acquire(t, n, m, "two"); again != s {
		t.Errorf("share %+v, want %+v", again, s)
	}
	if now := n.Pods.Calls(); now.Create != before.Create {
		t.Errorf("a pod was created after the restart: %+v, before %+v", now, before)
	}
	if got := read(t, filepath.Join(s.Path, "hello")); got != "world" {
		t.Errorf("read %q", got)
	}
}

func TestPodThatWentWhileTheDriverWasAwayIsReplaced(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	n.RestartKeeper() // the broker holds the session
	n.Pods.Evict(s.Pod)
	eventually(t, "another pod serves", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		session, err := n.Session(s.Session)
		return err == nil && session.Ready && now.Pod != s.Pod
	})
}

func TestLostSessionIsMountedAnewWithAnotherGeneration(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	put(t, filepath.Join(n.Data, "hello"), "world")
	s := acquire(t, n, m, "one")
	// Both holders go at once.
	n.Stop()
	n.Pods.Kill(s.Pod)
	n.Restart()
	eventually(t, "the loss is noticed", func() bool {
		abnormal, _ := n.Condition(filepath.Join(n.Dir, "kubelet", "one"))
		return abnormal
	})
	again := acquire(t, n, m, "one")
	if again.Generation != s.Generation+1 || again.Session != s.Session || again.Path != s.Path {
		t.Errorf("share %+v after %+v", again, s)
	}
	if got := read(t, filepath.Join(again.Path, "hello")); got != "world" {
		t.Errorf("read %q", got)
	}
}

func TestReferencesOfAnEarlierBootAreDropped(t *testing.T) {
	n := mountpodtest.Start(t)
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	n.RestartKeeper(func(o *mountpod.Options) { o.BootID = "another" })
	eventually(t, "session and pod are gone", gone(n, s))
	if _, ok := n.Find(filepath.Join(n.Dir, "kubelet", "one")); ok {
		t.Error("the reference is still there")
	}
}

func TestReferenceIsKeptWhileItsTargetIsMounted(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Linger = time.Second })
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	n.Bind(s, n.Target("one"))
	acquire(t, n, m, "never-bound")
	eventually(t, "the reference that nobody bound is dropped", func() bool {
		_, ok := n.Find(filepath.Join(n.Dir, "kubelet", "never-bound"))
		return !ok
	})
	if _, ok := n.Find(filepath.Join(n.Dir, "kubelet", "one")); !ok {
		t.Error("the reference of a mounted target is dropped")
	}
}

func TestOrphanedMountPodsAreDeleted(t *testing.T) {
	n := mountpodtest.Start(t)
	acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	n.Stop()
	if err := os.RemoveAll(filepath.Join(n.Dir, "state", "mountpod")); err != nil {
		t.Fatal(err)
	}
	n.Restart()
	eventually(t, "the pod is deleted", func() bool { return len(n.Pods.All()) == 0 })
}

func TestCorruptRecordsAreSetAside(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	n.Stop()
	bad := filepath.Join(n.Dir, "state", "mountpod", "references", "bad.json")
	put(t, bad, `{"version":1`)
	n.Restart()
	if again := acquire(t, n, m, "one"); again.Session != s.Session {
		t.Errorf("share %+v, want %+v", again, s)
	}
	if _, err := os.Stat(bad + ".corrupt"); err != nil {
		t.Error(err)
	}
}

func TestNoSecretIsWrittenAnywhere(t *testing.T) {
	const secret = "geheim-5f3a"
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	m.Volume.Secret = mount.Secret{"metaurl": secret}
	s := acquire(t, n, m, "one")
	n.Pods.Kill(s.Pod)
	err := filepath.WalkDir(n.Dir, func(path string, d fs.DirEntry, err error) error {
		if path == s.Path {
			return filepath.SkipDir
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(secret)) {
			t.Errorf("%s holds the secret", path)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range n.Pods.All() {
		if strings.Contains(pod.String(), secret) {
			t.Error("the pod holds the secret")
		}
	}
	for len(n.Events.Events) > 0 {
		if e := <-n.Events.Events; strings.Contains(e, secret) {
			t.Errorf("event %q holds the secret", e)
		}
	}
}

func TestPublishFailsInWords(t *testing.T) {
	for name, c := range map[string]struct {
		status *corev1.PodStatus
		refuse error
		volume func(*sidecar.Mount)
		want   string
		kind   error
	}{
		"no room": {
			status: &corev1.PodStatus{Phase: corev1.PodFailed, Reason: "OutOfcpu", Message: "Node didn't have enough resource: cpu"},
			want:   "node has no room for Mount Pod", kind: mount.ErrUnavailable,
		},
		"image": {
			status: &corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
				Image: "registry.example/client:1",
				State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}},
			}}},
			want: "image registry.example/client:1 of Mount Pod", kind: mount.ErrUnavailable,
		},
		"refused": {refuse: errors.New("exceeded quota"), want: "the Mount Pod cannot be created: exceeded quota", kind: mount.ErrUnavailable},
		"client":  {volume: func(m *sidecar.Mount) { m.Volume.Config = map[string]string{"path": "/nowhere"} }, want: "/nowhere", kind: mount.ErrConfig},
	} {
		t.Run(name, func(t *testing.T) {
			n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Patience = 300 * time.Millisecond })
			m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
			if c.volume != nil {
				c.volume(&m)
			}
			n.Pods.Refuse(c.refuse)
			if c.status != nil {
				n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return c.status })
			}
			_, err := n.Acquire(within(t, soon), request(n, m, "one"))
			if err == nil || !strings.Contains(err.Error(), c.want) || !errors.Is(err, c.kind) {
				t.Fatalf("error %v, want %q and %v", err, c.want, c.kind)
			}
			if abnormal, text := n.Condition(filepath.Join(n.Dir, "kubelet", "one")); !abnormal || !strings.Contains(text, c.want) && c.refuse == nil && c.status == nil {
				t.Errorf("condition %t %q", abnormal, text)
			}
			n.Pods.Refuse(nil)
			n.Pods.Admit(nil)
			// What was wrong is mended, and the publish is repeated as the kubelet does.
			good := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
			eventually(t, "a publish succeeds", func() bool {
				_, err := n.Acquire(within(t, soon), request(n, good, "one"))
				return err == nil
			})
			eventually(t, "one pod is left", func() bool { return len(n.Pods.All()) == 1 })
		})
	}
}

func TestMendedSecretMovesAPublishThatHasNeverSucceeded(t *testing.T) {
	n := mountpodtest.Start(t)
	bad := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	bad.Volume.Config = map[string]string{"path": "/nowhere"}
	if _, err := n.Acquire(within(t, soon), request(n, bad, "one")); err == nil {
		t.Fatal("a volume without its directory is served")
	}
	good := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, good, "one")
	eventually(t, "the first session is closed", func() bool { return len(n.Broker.Sessions()) == 1 && len(n.Pods.All()) == 1 })
	// Once it is in use, a change does not move it.
	changed := mountpodtest.Passthrough(t, "pv-1", n.Data, map[string]string{"juicefs/mount-cpu-limit": "3"})
	if again := acquire(t, n, changed, "one"); again != s {
		t.Errorf("share %+v, want %+v", again, s)
	}
}
