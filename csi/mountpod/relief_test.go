package mountpod_test

import (
	"fmt"
	"path/filepath"
	"slices"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount"
)

// longerThan lets some time pass; what holds then must hold.
func longerThan(t *testing.T, d time.Duration) {
	t.Helper()
	began := time.Now()
	eventually(t, "time passes", func() bool { return time.Since(began) > d })
}

// wait is the status of a pod that waits for its image.
func wait(reason string) *corev1.PodStatus {
	return &corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
		State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason, Message: "a registry said so"}},
	}}}
}

func TestDeletedMountPodServesUntilTheNextOneIsReady(t *testing.T) {
	// How long it may take is Relief's affair alone.
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Attempt, o.Grace = 100*time.Millisecond, time.Second })
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	put(t, filepath.Join(n.Data, "hello"), "world\n")
	stop := beat(t, filepath.Join(s.Path, "hello"))
	// The next one's image is on its way.
	n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return wait("ContainerCreating") })
	n.Pods.Evict(s.Pod)
	eventually(t, "another pod is made", func() bool { return len(podNames(n)) == 2 })
	// By now the deleted one would have ended if it did not know better.
	longerThan(t, 3*time.Second)
	put(t, filepath.Join(n.Data, "late"), "whole\n")
	if got := read(t, filepath.Join(s.Path, "late")); got != "whole\n" {
		t.Errorf("read %q from the deleted pod", got)
	}
	if again := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "two"); again != s {
		t.Errorf("share %+v, want %+v", again, s)
	}
	n.Pods.Admit(nil)
	eventually(t, "the next one has taken over", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		names := podNames(n)
		return now.Pod != s.Pod && len(names) == 1 && names[0] == now.Pod
	})
	stop()
	if now, err := n.Session(s.Session); err != nil || !now.Ready || now.Generation == 0 {
		t.Errorf("session %+v, %v", now, err)
	}
	if calls := n.Pods.Calls(); calls.Create != 2 {
		t.Errorf("%d pods were made, want 2", calls.Create)
	}
}

// evictionIsRelieved deletes a Mount Pod, and checks that its client goes on until the next one has taken over.
func evictionIsRelieved(t *testing.T, n *mountpodtest.Node, s mountpod.Share) {
	t.Helper()
	before, err := n.Session(s.Session)
	if err != nil {
		t.Fatal(err)
	}
	n.Pods.Evict(s.Pod)
	eventually(t, "the next one has taken over", func() bool {
		now, err := n.Session(s.Session)
		return err == nil && now.Ready && now.Generation > before.Generation && len(n.Pods.All()) == 1
	})
}

func TestMountPodIsRelievedAlsoByTheNextReleaseOfTheDriver(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	acquire(t, n, upgradedDriver(n, m), "one")
	evictionIsRelieved(t, n, s)
}

// A drain deletes more Mount Pods than are worked on at a time.
func TestAllMountPodsOfADrainedNodeServeUntilTheNextOnesAreReady(t *testing.T) {
	n := mountpodtest.Start(t)
	const volumes = 12
	put(t, filepath.Join(n.Data, "hello"), "world\n")
	var shares []mountpod.Share
	for i := range volumes {
		name := fmt.Sprintf("pv-%d", i)
		shares = append(shares, acquire(t, n, mountpodtest.Passthrough(t, name, n.Data, nil), name))
	}
	n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return wait("ContainerCreating") })
	for _, s := range shares {
		n.Pods.Evict(s.Pod)
	}
	longerThan(t, 3*time.Second) // without a word they would have ended after two
	names := podNames(n)
	for _, s := range shares {
		if !slices.Contains(names, s.Pod) {
			t.Errorf("pod %s has ended before another one could take over", s.Pod)
		}
		if got := read(t, filepath.Join(s.Path, "hello")); got != "world\n" {
			t.Errorf("read %q", got)
		}
	}
	n.Pods.Admit(nil)
	eventually(t, "all have been relieved", func() bool {
		for _, s := range shares {
			if now, err := n.Session(s.Session); err != nil || !now.Ready || now.Generation == 0 {
				return false
			}
		}
		return len(podNames(n)) == volumes
	})
}

func TestMountPodIsRelievedAlsoByADriverThatKnowsNoSecretYet(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	m.Volume.Secret = mount.Secret{"password": "secret"}
	s := acquire(t, n, m, "one")
	n.Restart()
	eventually(t, "the driver has found the session again", func() bool {
		now, err := n.Session(s.Session)
		return err == nil && now.Ready
	})
	evictionIsRelieved(t, n, s)
	// What it has been told by then is what it had.
	if again := acquire(t, n, m, "one"); again.Session != s.Session || again.Generation != s.Generation {
		t.Errorf("share %+v, want the one of %+v", again, s)
	}
	deleted := s.Pod
	eventually(t, "the next Mount Pod is the share's", func() bool {
		s, _ = n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		return s.Pod != deleted
	})
	evictionIsRelieved(t, n, s)
}

func TestDeletedMountPodIsReplacedAlsoIfNobodyCanRelieveIt(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Patience, o.Relief = 200*time.Millisecond, 10*time.Second })
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	put(t, filepath.Join(n.Data, "hello"), "world\n")
	stop := beat(t, filepath.Join(s.Path, "hello"))
	n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return wait("ErrImagePull") })
	n.Pods.Evict(s.Pod)
	eventually(t, "the deleted pod has gone", func() bool {
		for _, name := range podNames(n) {
			if name == s.Pod {
				return false
			}
		}
		return true
	})
	n.Pods.Admit(nil)
	eventually(t, "a client serves again", func() bool {
		now, err := n.Session(s.Session)
		return err == nil && now.Ready
	})
	stop()
}

func TestMountPodThatServesNobodyEndsAtOnceWhenItIsDeleted(t *testing.T) {
	n := mountpodtest.Start(t)
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, map[string]string{"juicefs/mount-delete-delay": "1h"}), "one")
	release(t, n, "one")
	n.Pods.Evict(s.Pod)
	eventually(t, "the pod has gone", func() bool { return len(podNames(n)) == 0 })
	if again := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, map[string]string{"juicefs/mount-delete-delay": "1h"}), "two"); again.Session != s.Session {
		t.Errorf("share %+v, want the session of %+v", again, s)
	}
}
