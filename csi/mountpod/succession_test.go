package mountpod_test

import (
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount"
)

const slow = "registry.example/client:slow"

// pulling starts a node with a share whose Mount Pod is being upgraded to an image that does not come. Anything else that is done for the share is short.
func pulling(t *testing.T) (*mountpodtest.Node, mountpod.Share) {
	t.Helper()
	n := mountpodtest.Start(t, func(o *mountpod.Options) {
		o.Attempt, o.Grace, o.Relief = 500*time.Millisecond, time.Second, time.Second
	})
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	n.Pods.Admit(func(pod *corev1.Pod) *corev1.PodStatus {
		if pod.Spec.Containers[0].Image == slow {
			return wait("ContainerCreating")
		}
		return nil
	})
	n.Pods.Annotate(s.Pod, mountpod.UpgradeAnnotation, slow)
	eventually(t, "the next pod is made", func() bool { return len(podNames(n)) == 2 })
	return n, s
}

func TestUpgradeWaitsForASlowImage(t *testing.T) {
	n, _ := pulling(t)
	longerThan(t, 3*time.Second)
	n.Pods.Admit(nil)
	eventually(t, "the pod has the image", func() bool {
		pods := n.Pods.All()
		return len(pods) == 1 && pods[0].Spec.Containers[0].Image == slow
	})
	eventually(t, "somebody is told", func() bool {
		return slices.ContainsFunc(recorded(n), func(e string) bool { return strings.Contains(e, "Normal Upgraded Mount Pod") })
	})
}

func TestChangedSecretWaitsForASlowNode(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) {
		o.Attempt, o.Grace, o.Relief = 500*time.Millisecond, time.Second, time.Second
	})
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	m.Volume.Secret = mount.Secret{"password": "old"}
	s := acquire(t, n, m, "one")
	n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return wait("ContainerCreating") })
	m.Volume.Secret = mount.Secret{"password": "new"}
	acquire(t, n, m, "one")
	eventually(t, "the next pod is made", func() bool { return len(podNames(n)) == 2 })
	longerThan(t, 3*time.Second)
	n.Pods.Admit(nil)
	eventually(t, "another pod has the session", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		return now.Pod != s.Pod && now.Session == s.Session && len(podNames(n)) == 1
	})
	if n.Pods.Calls().Create != 2 {
		t.Errorf("%d pods were made", n.Pods.Calls().Create)
	}
}

func TestMountPodIsRelievedDuringAnUpgrade(t *testing.T) {
	n, s := pulling(t)
	evictionIsRelieved(t, n, s)
	if image := n.Pods.All()[0].Spec.Containers[0].Image; image == slow {
		t.Errorf("image %s", image)
	}
}

func TestShareEndsDuringAnUpgrade(t *testing.T) {
	n, s := pulling(t)
	release(t, n, "one")
	eventually(t, "session and pods are gone", gone(n, s))
}

func TestLostSessionIsMountedAnewDuringAnUpgrade(t *testing.T) {
	n, s := pulling(t)
	if err := n.Broker.Close(within(t, soon), s.Session, 0); err != nil {
		t.Fatal(err)
	}
	if again := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one"); again.Generation != s.Generation+1 {
		t.Errorf("share %+v, want the next generation of %+v", again, s)
	}
}
