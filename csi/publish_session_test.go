package csi

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/csi/mountpod/mountpodtest"
	"github.com/sidemount/sidemount/csi/podsession"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/readiness"
)

// podAPI has one pod.
type podAPI struct{ pod *corev1.Pod }

func (a *podAPI) Pod(_ context.Context, _, name string) (*corev1.Pod, error) {
	if a.pod == nil || a.pod.Name != name {
		return nil, apierrors.NewNotFound(corev1.Resource("pods"), name)
	}
	return a.pod.DeepCopy(), nil
}

// ownRig is a rig with a pod that brings its own sidecar for the volume "data".
type ownRig struct {
	*rig
	pods     *podAPI
	sessions *podsession.Keeper
	sidecars *Sidecars
	agents   string
	// stop ends the process's keeper of sessions.
	stop func()
}

const ownUID = types.UID("uid-1")

func newOwnRig(t *testing.T) *ownRig {
	r := &ownRig{rig: newRig(t), pods: &podAPI{}, agents: t.TempDir()}
	r.objects.bind("pv-1", "vol-1", nil)
	r.objects.claims["shop/data"].Spec.VolumeName = "pv-1"
	pv := r.objects.pvs["pv-1"]
	pv.Spec.CSI.NodePublishSecretRef = nil
	pv.Spec.CSI.VolumeAttributes = map[string]string{"sidemount.io/client": "passthrough", "path": r.host.Data}
	volumes, err := sidecar.NewResolver(sidecar.Options{Objects: r.objects})
	if err != nil {
		t.Fatal(err)
	}
	claim := &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web-0", UID: ownUID},
		Spec: corev1.PodSpec{
			Volumes:    []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: claim}}},
			Containers: []corev1.Container{{Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}}},
		},
	}
	mounts, err := volumes.OutlineVolumes(t.Context(), pod, []string{"data"})
	if err != nil {
		t.Fatal(err)
	}
	if r.pods.pod, err = sidecar.Inject(pod, mounts, sidecar.InjectOptions{Driver: DefaultName}); err != nil {
		t.Fatal(err)
	}
	r.sidecars = &Sidecars{Driver: DefaultName, AgentDir: r.agents, Pods: r.pods, Volumes: volumes}
	r.startSessions()
	return r
}

// startSessions is a process's keeper; it ends before the host.
func (r *ownRig) startSessions() {
	r.t.Helper()
	k, err := podsession.New(podsession.Options{Broker: r.host.Broker, MountsDir: filepath.Join(r.host.Dir, "own"), Grace: 5 * time.Second, Recorder: r.events})
	if err != nil {
		r.t.Fatal(err)
	}
	r.sessions, r.sidecars.Sessions, r.options.Sidecars = k, k, r.sidecars
	ctx, cancel := context.WithCancel(context.WithoutCancel(r.t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- k.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			r.t.Error(err)
		}
	})
	r.t.Cleanup(r.stop)
}

// dies ends the process at a step of a call, as rig.dies does, with its keeper of sessions.
func (r *ownRig) dies(at string, call func()) {
	r.t.Helper()
	r.rig.dies(at, func() {
		defer r.stop()
		call()
	})
	r.startSessions()
}

func TestAPublishToASidecarThatDiedIsTakenUp(t *testing.T) {
	mountpodtest.NeedSessions(t)
	for _, at := range []string{stepAcquired, stepMade, stepBound} {
		t.Run(at, func(t *testing.T) {
			r := newOwnRig(t)
			target := r.target(string(ownUID), "pv-1")
			r.dies(at, func() { _ = r.publish(r.request("vol-1", target)) })
			id := r.sessions.ID(ownUID, "pv-1")
			// The broker waits a while for the agent of a session that never had one; the kubelet repeats the call meanwhile.
			r.eventually("the session is open", func() bool {
				r.mustPublish(r.request("vol-1", target))
				s, err := r.host.Broker.Status(id)
				return err == nil && s.State == mount.Mounted
			})
			r.sidecarProcess(r.sessions.SocketDir(id))
			status := filepath.Join(r.sessions.SocketDir(id), sidecar.SessionStatus)
			r.eventually("the sidecar serves", func() bool { return readiness.Ask(t.Context(), status, readiness.Serving) == nil })
			r.works(target, "after")
			r.mustUnpublish("vol-1", target)
			r.eventually("nothing is left", func() bool { return len(r.host.Broker.Sessions()) == 0 })
		})
	}
}

func TestASessionThatWasBeingHandedToASidecarIsHandedAgain(t *testing.T) {
	mountpodtest.NeedSessions(t)
	r := newOwnRig(t)
	target, session := r.target(string(ownUID), "pv-1"), r.inline("sidemount-session-data", sidecar.SessionAttribute, "data")
	r.mustPublish(r.request("vol-1", target))
	r.dies(stepMade, func() { _ = r.publish(session) })
	for range 2 {
		r.mustPublish(session)
	}
	if at := r.at(session.TargetPath); len(at) != 1 {
		t.Errorf("mounts: %v", at)
	}
	if _, err := os.Stat(filepath.Join(session.TargetPath, sidecar.SessionStatus)); err != nil {
		t.Error(err)
	}
	r.mustUnpublish("csi-sidemount-session-data", session.TargetPath)
	r.mustPublish(r.request("vol-1", target))
	r.mustUnpublish("vol-1", target)
}

func (r *ownRig) inline(name, key, value string) *spec.NodePublishVolumeRequest {
	request := r.request("csi-"+name, r.target(string(ownUID), name))
	request.VolumeContext = map[string]string{
		key: value, keyPodName: "web-0", keyNamespace: "shop", keyPodUID: string(ownUID), keyEphemeral: "true",
	}
	return request
}

// sidecarProcess is what the kubelet starts when the pod's volumes are published.
func (r *ownRig) sidecarProcess(sessionDir string) {
	r.t.Helper()
	cmd := exec.Command(mountpodtest.Agent(), "run", "-socket", filepath.Join(sessionDir, "agent.sock"), "--", mountpodtest.Agent(), "passthrough")
	m, err := r.options.Sidecars.Volumes.OutlineVolumes(r.t.Context(), r.pods.pod, []string{"data"})
	if err != nil {
		r.t.Fatal(err)
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(m[0].UID), Gid: uint32(m[0].GID)}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	r.t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(20 * time.Second):
			_ = cmd.Process.Kill()
			r.t.Error("the sidecar does not end")
			<-ended
		}
	})
}

func TestAPodBringsItsOwnSidecar(t *testing.T) {
	mountpodtest.NeedSessions(t)
	r := newOwnRig(t)
	target := r.target(string(ownUID), "pv-1")
	session := r.inline("sidemount-session-data", sidecar.SessionAttribute, "data")
	agent := r.inline("sidemount-bin", sidecar.AgentAttribute, "true")
	if err := os.WriteFile(filepath.Join(r.agents, "sidemount-agent"), []byte("x"), 0o755); err != nil {
		t.Fatal(err)
	}
	// The session is asked for before anybody opens it.
	asked := make(chan error, 1)
	go func() { asked <- r.publish(session) }()
	r.mustPublish(r.request("vol-1", target))
	if err := <-asked; err != nil {
		t.Fatal(err)
	}
	r.mustPublish(agent)
	if _, err := os.Stat(filepath.Join(agent.TargetPath, "sidemount-agent")); err != nil {
		t.Error(err)
	}
	if calls := r.host.Pods.Calls(); calls.Create != 0 {
		t.Errorf("%d Mount Pods", calls.Create)
	}
	status := filepath.Join(r.sessions.SocketDir(r.sessions.ID(ownUID, "pv-1")), sidecar.SessionStatus)
	if err := readiness.Ask(t.Context(), status, readiness.Serving); err == nil {
		t.Error("ready before a client serves")
	}
	// A kubelet would show the directory in a container; the way to it here is for root only.
	r.sidecarProcess(r.sessions.SocketDir(r.sessions.ID(ownUID, "pv-1")))
	r.eventually("the sidecar serves", func() bool { return readiness.Ask(t.Context(), status, readiness.Serving) == nil })
	r.works(target, "greeting")
	for _, reason := range []broker.Reason{broker.ClientStarted, broker.ClientRestarted} {
		r.sessions.Notify(broker.Event{Session: r.sessions.ID(ownUID, "pv-1"), VolumeName: "data", Reason: reason, Message: string(reason) + " is told"})
		r.sessions.Notify(broker.Event{Session: "of-a-mount-pod", Reason: reason})
	}
	if got, want := <-r.events.Events, `Normal ClientRestarted volume "data": ClientRestarted is told`; got != want || len(r.events.Events) > 0 {
		t.Errorf("the pod is told %q, want %q; and %d more", got, want, len(r.events.Events))
	}
	for _, request := range []*spec.NodePublishVolumeRequest{r.request("vol-1", target), session, agent} {
		r.mustPublish(request) // as the kubelet does every minute
	}
	r.seen.failed(target)
	r.mustPublish(r.request("vol-1", target)) // as after a restart
	r.works(target, "still")
	r.mustUnpublish("csi-sidemount-session-data", session.TargetPath)
	r.mustUnpublish("vol-1", target)
	r.mustUnpublish("vol-1", target) // again
	r.mustUnpublish("csi-sidemount-bin", agent.TargetPath)
	id := r.sessions.ID(ownUID, "pv-1")
	if s, err := r.host.Broker.Status(id); err == nil && s.State != mount.Closed {
		t.Errorf("session after unpublish: %+v", s)
	}
	if _, err := os.Lstat(filepath.Join(r.host.Dir, "own", string(id))); !os.IsNotExist(err) {
		t.Errorf("mount point after unpublish: %v", err)
	}
}

func TestWhoGetsNoSession(t *testing.T) {
	mountpodtest.NeedSessions(t)
	r := newOwnRig(t)
	good := r.pods.pod.DeepCopy()
	for name, tc := range map[string]struct {
		change func(*corev1.Pod)
		volume string
		code   codes.Code
	}{
		"an application that mounts it": {func(p *corev1.Pod) {
			p.Spec.Containers[0].VolumeMounts = append(p.Spec.Containers[0].VolumeMounts, corev1.VolumeMount{Name: "sidemount-session-data", MountPath: "/x"})
		}, "data", codes.PermissionDenied},
		"a sidecar of its own making":     {func(p *corev1.Pod) { p.Spec.InitContainers[0].Command = []string{"sh"} }, "data", codes.PermissionDenied},
		"another pod of the name":         {func(p *corev1.Pod) { p.UID = "uid-2" }, "data", codes.Unavailable},
		"a volume that the pod has not":   {func(*corev1.Pod) {}, "other", codes.PermissionDenied},
		"a pod that has not been changed": {func(p *corev1.Pod) { p.Spec.Volumes = p.Spec.Volumes[:1] }, "data", codes.PermissionDenied},
	} {
		t.Run(name, func(t *testing.T) {
			r.pods.pod = good.DeepCopy()
			tc.change(r.pods.pod)
			request := r.inline("sidemount-session-data", sidecar.SessionAttribute, tc.volume)
			refused(t, r.publish(request), tc.code)
			if at := r.at(request.TargetPath); len(at) != 0 {
				t.Errorf("mounted: %v", at)
			}
		})
	}
	r.pods.pod = nil
	refused(t, r.publish(r.request("vol-1", r.target(string(ownUID), "pv-1"))), codes.Unavailable, "not there any more")
	r.options.Sidecars = nil
	refused(t, r.publish(r.inline("sidemount-bin", sidecar.AgentAttribute, "true")), codes.FailedPrecondition, "--sidecars")
}
