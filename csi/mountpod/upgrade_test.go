package mountpod_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// beat reads through the mount all the time, and returns what ends that and tells of errors.
func beat(t *testing.T, path string) (stop func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `while read -r line <"$1"; do :; done; exit 1`, "beat", path)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	return func() {
		t.Helper()
		select {
		case err := <-ended:
			t.Errorf("the reader saw an error: %v", err)
		default:
			_ = cmd.Process.Kill()
			<-ended
		}
	}
}

func TestUpgradeGoesOnUnderItsUsers(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	put(t, filepath.Join(n.Data, "hello"), "world\n")
	s := acquire(t, n, m, "one")
	stop := beat(t, filepath.Join(s.Path, "hello"))
	pause, err := n.Upgrade(within(t, soon), s.Session, "registry.example/client:2")
	stop()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("requests waited for %s", pause)
	eventually(t, "one pod is left", func() bool { return len(n.Pods.All()) == 1 })
	if image := n.Pods.All()[0].Spec.Containers[0].Image; image != "registry.example/client:2" {
		t.Errorf("image %s", image)
	}
	// New users with the new image share it, also after a restart.
	n.Restart()
	m.Image = "registry.example/client:2"
	if again := acquire(t, n, m, "two"); again.Session != s.Session || again.Generation != s.Generation {
		t.Errorf("share %+v, want the one of %+v", again, s)
	}
	// Those with the old image get another one, whose session has another ID.
	m.Image = mountpodtest.Passthrough(t, "pv-1", n.Data, nil).Image
	if other := acquire(t, n, m, "three"); other.Session == s.Session {
		t.Errorf("share %+v is the upgraded one", other)
	}
}

func TestUpgradeToAnImageThatCannotBePulledChangesNothing(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Patience = 200 * time.Millisecond })
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	n.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus {
		return &corev1.PodStatus{Phase: corev1.PodPending, ContainerStatuses: []corev1.ContainerStatus{{
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull", Message: "not found"}},
		}}}
	})
	_, err := n.Upgrade(within(t, soon), s.Session, "registry.example/client:none")
	if !errors.Is(err, mountpod.ErrUpgrade) {
		t.Fatalf("error %v", err)
	}
	eventually(t, "the pod that could not start is gone", func() bool { return len(n.Pods.All()) == 1 })
	if again := acquire(t, n, m, "one"); again != s {
		t.Errorf("share %+v, want %+v", again, s)
	}
}

func TestUpgradeToAClientThatCannotServeChangesNothing(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	put(t, filepath.Join(n.Data, "hello"), "world\n")
	s := acquire(t, n, m, "one")
	n.Pods.Break("registry.example/client:broken", "/bin/false")
	stop := beat(t, filepath.Join(s.Path, "hello"))
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_, err := n.Upgrade(ctx, s.Session, "registry.example/client:broken")
	if !errors.Is(err, mountpod.ErrUpgrade) {
		t.Fatalf("error %v", err)
	}
	t.Log(err)
	stop()
	if again := acquire(t, n, m, "two"); again.Session != s.Session || again.Generation != s.Generation {
		t.Errorf("share %+v, want the one of %+v", again, s)
	}
	eventually(t, "one pod is left", func() bool { return len(n.Pods.All()) == 1 })
	if image := n.Pods.All()[0].Spec.Containers[0].Image; image != m.Image {
		t.Errorf("image %s, want %s", image, m.Image)
	}
}

func TestChangedSecretIsHandedOverWhenThePublishIsRepeated(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	put(t, filepath.Join(n.Data, "hello"), "world\n")
	m.Volume.Secret = mount.Secret{"password": "old"}
	s := acquire(t, n, m, "one")
	stop := beat(t, filepath.Join(s.Path, "hello"))
	m.Volume.Secret = mount.Secret{"password": "new"}
	if again := acquire(t, n, m, "one"); again.Session != s.Session {
		t.Errorf("share %+v, want %+v", again, s)
	}
	eventually(t, "another pod has the session", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		pods := n.Pods.All()
		return now.Pod != s.Pod && len(pods) == 1 && pods[0].Name == now.Pod
	})
	stop()
	// Who comes with the new one shares it, also after a restart; and the next repetition changes nothing.
	n.Restart()
	before := n.Pods.Calls().Create
	for _, user := range []string{"one", "two"} {
		if again := acquire(t, n, m, user); again.Session != s.Session || again.Generation != s.Generation {
			t.Errorf("share %+v, want the one of %+v", again, s)
		}
	}
	if now := n.Pods.Calls().Create; now != before {
		t.Errorf("%d pods were created", now-before)
	}
	if !slices.ContainsFunc(recorded(n), func(e string) bool { return strings.Contains(e, "ClientUpgraded") }) {
		t.Error("nobody was told")
	}
}

func recorded(n *mountpodtest.Node) []string {
	var events []string
	for len(n.Events.Events) > 0 {
		events = append(events, <-n.Events.Events)
	}
	return events
}

func TestUpgradeIsSettledWhereverItsProcessDied(t *testing.T) {
	died := true
	for step := 0; died; step++ {
		t.Run(fmt.Sprint("step ", step), func(t *testing.T) {
			n := mountpodtest.Start(t)
			m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
			put(t, filepath.Join(n.Data, "hello"), "world\n")
			s := acquire(t, n, m, "one")
			stop := beat(t, filepath.Join(s.Path, "hello"))
			died = kill(t, n, step, func(ctx context.Context) {
				if _, err := n.Upgrade(ctx, s.Session, "registry.example/client:2"); err != nil && !errors.Is(err, errKilled) {
					t.Errorf("upgrade: %v", err)
				}
			})
			eventually(t, "one pod serves", func() bool {
				now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
				session, err := n.Session(s.Session)
				pods := n.Pods.All()
				return err == nil && session.Ready && len(pods) == 1 && pods[0].Name == now.Pod && pods[0].DeletionTimestamp == nil
			})
			stop()
			if again := acquire(t, n, m, "one"); again.Session != s.Session || again.Generation != s.Generation {
				t.Errorf("share %+v, want the one of %+v", again, s)
			}
		})
	}
}

func TestEvictedMountPodIsReplacedAfterAnUpgrade(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	if _, err := n.Upgrade(within(t, soon), s.Session, m.Image); err != nil {
		t.Fatal(err)
	}
	upgraded, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
	n.Pods.Evict(upgraded.Pod)
	eventually(t, "another pod serves", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		session, err := n.Session(s.Session)
		return err == nil && session.Ready && now.Pod != upgraded.Pod
	})
}

// The driver answers a repetition that changes nothing by itself, so the Keeper must not need another Acquire.
func TestChangedSecretIsTriedAgainUntilItIsHandedOver(t *testing.T) {
	n := mountpodtest.Start(t, func(o *mountpod.Options) { o.Rotation = 300 * time.Millisecond })
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	m.Volume.Secret = mount.Secret{"password": "old"}
	s := acquire(t, n, m, "one")
	n.Pods.Refuse(errors.New("the API server is away"))
	before := n.Pods.Calls().Create
	m.Volume.Secret = mount.Secret{"password": "new"}
	acquire(t, n, m, "one")
	eventually(t, "the next pod is refused", func() bool { return n.Pods.Calls().Create > before })
	if now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one")); now.Pod != s.Pod {
		t.Errorf("share %+v, want %+v", now, s)
	}
	n.Pods.Refuse(nil)
	eventually(t, "another pod has the session", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		return now.Pod != s.Pod && now.Session == s.Session
	})
}

func TestAnnotationAsksForAnUpgrade(t *testing.T) {
	n := mountpodtest.Start(t)
	s := acquire(t, n, mountpodtest.Passthrough(t, "pv-1", n.Data, nil), "one")
	n.Pods.Annotate(s.Pod, mountpod.UpgradeAnnotation, "registry.example/client:2")
	eventually(t, "the pod has the image", func() bool {
		pods := n.Pods.All()
		return len(pods) == 1 && pods[0].Spec.Containers[0].Image == "registry.example/client:2" && pods[0].Annotations[mountpod.UpgradeAnnotation] == ""
	})
	eventually(t, "somebody is told", func() bool {
		return slices.ContainsFunc(recorded(n), func(e string) bool { return strings.Contains(e, "Normal Upgraded Mount Pod") })
	})
}

// upgradedDriver is another process of a release with another default image.
func upgradedDriver(n *mountpodtest.Node, m sidecar.Mount) sidecar.Mount {
	n.Restart()
	m.Image = "registry.example/client:next-release"
	return m
}

func TestChangedSecretIsHandedOverAlsoByTheNextReleaseOfTheDriver(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	m.Volume.Secret = mount.Secret{"password": "old"}
	s := acquire(t, n, m, "one")
	image := m.Image
	m = upgradedDriver(n, m)
	if again := acquire(t, n, m, "one"); again != s {
		t.Errorf("share %+v, want %+v", again, s)
	}
	m.Volume.Secret = mount.Secret{"password": "new"}
	m.Resources.Limits = nil
	acquire(t, n, m, "one")
	eventually(t, "another pod has the session", func() bool {
		now, _ := n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		pods := n.Pods.All()
		return now.Pod != s.Pod && now.Session == s.Session && len(pods) == 1 && pods[0].Name == now.Pod
	})
	if got := n.Pods.All()[0].Spec.Containers[0].Image; got != image {
		t.Errorf("image %s, want %s", got, image)
	}
}

func TestSecretChangedWhileTheDriverWasAwayIsHandedOver(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	m.Volume.Secret = mount.Secret{"password": "old"}
	s := acquire(t, n, m, "one")
	m = upgradedDriver(n, m)
	m.Volume.Secret = mount.Secret{"password": "new"}
	acquire(t, n, m, "one")
	var now mountpod.Share
	eventually(t, "another pod has the session", func() bool {
		now, _ = n.Find(filepath.Join(n.Dir, "kubelet", "one"))
		return now.Pod != s.Pod && now.Session == s.Session && len(n.Pods.All()) == 1
	})
	// The Secret is known now, so that the pod can be relieved.
	evictionIsRelieved(t, n, now)
}

func TestAnnotationOfTheTimeBeforeTheFirstPublishAsksForAnUpgrade(t *testing.T) {
	n := mountpodtest.Start(t)
	m := mountpodtest.Passthrough(t, "pv-1", n.Data, nil)
	s := acquire(t, n, m, "one")
	for image, restart := range map[string]func(){"registry.example/client:2": n.Restart, "registry.example/client:3": func() { m = upgradedDriver(n, m) }} {
		restart()
		n.Pods.Annotate(podNames(n)[0], mountpod.UpgradeAnnotation, image)
		if again := acquire(t, n, m, "one"); again.Session != s.Session {
			t.Errorf("share %+v, want %+v", again, s)
		}
		eventually(t, "the pod has the image "+image, func() bool {
			pods := n.Pods.All()
			return len(pods) == 1 && pods[0].Spec.Containers[0].Image == image
		})
	}
}
