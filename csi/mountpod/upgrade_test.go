package mountpod_test

import (
	"context"
	"errors"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
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

func TestUpgradeToAClientThatCannotServeReturnsToTheFormerImage(t *testing.T) {
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
