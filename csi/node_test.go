package csi

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

const shared = spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER

func TestPodsShareAVolumeEachWithItsOwnAccess(t *testing.T) {
	r := newRig(t)
	writer, reader := r.target("pod-1", "pv-1"), r.target("pod-2", "pv-1")
	r.mustPublish(r.request("vol-1", writer))
	readOnly := r.request("vol-1", reader)
	readOnly.Readonly = true
	r.mustPublish(readOnly)
	r.works(writer, "greeting")
	if got, err := os.ReadFile(filepath.Join(reader, "greeting")); err != nil || string(got) != "greeting" {
		t.Errorf("the other pod reads %q, %v", got, err)
	}
	if err := os.WriteFile(filepath.Join(reader, "no"), nil, 0o666); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing to a read-only target: %v", err)
	}
	if calls := r.host.Pods.Calls(); calls.Create != 1 {
		t.Errorf("%d Mount Pods for one volume", calls.Create)
	}
	for _, request := range []*spec.NodePublishVolumeRequest{r.request("vol-1", writer), readOnly} {
		r.mustPublish(request) // again
	}
	r.works(writer, "still")
	r.mustUnpublish("vol-1", reader)
	r.works(writer, "goes-on")
	r.mustUnpublish("vol-1", writer)
	r.mustUnpublish("vol-1", writer) // again
	r.eventually("the Mount Pod ends with its last user", func() bool { return len(r.host.Pods.All()) == 0 })
}

func TestReadOnlyAccessModes(t *testing.T) {
	r := newRig(t)
	for _, mode := range []spec.VolumeCapability_AccessMode_Mode{
		spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY, spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY,
	} {
		target := r.target("pod-"+strings.ToLower(mode.String()), "pv-1")
		request := r.request("vol-1", target)
		request.VolumeCapability = capability(mode)
		r.mustPublish(request)
		if err := os.WriteFile(filepath.Join(target, "no"), nil, 0o666); !errors.Is(err, unix.EROFS) {
			t.Errorf("%s: %v", mode, err)
		}
		r.mustUnpublish("vol-1", target)
	}
}

func TestMalformedRequests(t *testing.T) {
	r := newRig(t)
	good := r.target("pod-1", "pv-1")
	outside := t.TempDir()
	if err := os.Symlink(outside, filepath.Join(r.kubelet, "pods", "pod-1", "volumes", "link")); err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		change func(*spec.NodePublishVolumeRequest)
		words  string
	}{
		"no volume":             {func(q *spec.NodePublishVolumeRequest) { q.VolumeId = "" }, "volume id is empty"},
		"blank volume":          {func(q *spec.NodePublishVolumeRequest) { q.VolumeId = " \t" }, "volume id is empty"},
		"volume of two lines":   {func(q *spec.NodePublishVolumeRequest) { q.VolumeId = "a\nb" }, "line break"},
		"long volume":           {func(q *spec.NodePublishVolumeRequest) { q.VolumeId = strings.Repeat("v", 129) }, "129 bytes"},
		"no target":             {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = "" }, "target path is empty"},
		"relative target":       {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = "pods/p/mount" }, "absolute"},
		"target with dots":      {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = r.kubelet + "/pods/../x" }, "clean"},
		"target of two lines":   {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = good + "\n" }, "line break"},
		"target outside":        {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = outside + "/mount" }, "--kubelet-dir"},
		"target is all pods":    {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = r.kubelet + "/pods" }, "not below"},
		"target through a link": {func(q *spec.NodePublishVolumeRequest) { q.TargetPath = r.kubelet + "/pods/pod-1/volumes/link/mount" }, "symbolic link"},
		"no capability":         {func(q *spec.NodePublishVolumeRequest) { q.VolumeCapability = nil }, "capability is missing"},
		"no access type":        {func(q *spec.NodePublishVolumeRequest) { q.VolumeCapability.AccessType = nil }, "no access type"},
		"no access mode":        {func(q *spec.NodePublishVolumeRequest) { q.VolumeCapability.AccessMode = nil }, "UNKNOWN"},
		"block": {func(q *spec.NodePublishVolumeRequest) {
			q.VolumeCapability.AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		}, "volumeMode: Filesystem"},
		"unknown attribute":     {func(q *spec.NodePublishVolumeRequest) { q.VolumeContext["mountOption"] = "x" }, "mountOptions"},
		"unknown client":        {func(q *spec.NodePublishVolumeRequest) { q.VolumeContext["sidemount.io/client"] = "nfs" }, `"nfs"`},
		"mount flag of 2 lines": {func(q *spec.NodePublishVolumeRequest) { q.VolumeCapability = capability(shared, "a\nb") }, "spec.mountOptions"},
		"directory with ..":     {func(q *spec.NodePublishVolumeRequest) { q.VolumeContext["path"] = "/srv/../etc" }, "path"},
		"JuiceFS without Secret": {func(q *spec.NodePublishVolumeRequest) {
			delete(q.VolumeContext, "sidemount.io/client")
			delete(q.VolumeContext, "path")
		}, "nodePublishSecretRef"},
		"JuiceFS without metaurl": {func(q *spec.NodePublishVolumeRequest) {
			delete(q.VolumeContext, "sidemount.io/client")
			delete(q.VolumeContext, "path")
			q.Secrets = map[string]string{"name": "fs", "secret-key": "hunter2"}
		}, "metaurl"},
	} {
		t.Run(name, func(t *testing.T) {
			request := r.request("vol-1", good)
			tc.change(request)
			err := r.publish(request)
			code := codes.InvalidArgument
			if strings.Contains(tc.words, "does not exist") {
				code = codes.FailedPrecondition
			}
			refused(t, err, code, tc.words)
			if err != nil && strings.Contains(err.Error(), "hunter2") {
				t.Errorf("a secret is in the error: %v", err)
			}
		})
	}
	if calls := r.host.Pods.Calls(); calls.Create != 0 {
		t.Errorf("%d Mount Pods were made", calls.Create)
	}
	if _, err := os.Lstat(good); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a target was made: %v", err)
	}
}

func TestUnpublishTouchesTargetsOnly(t *testing.T) {
	r := newRig(t)
	for _, path := range []string{"", "mount", r.host.Data, r.kubelet + "/pods/../../data", "/", r.kubelet + "/pods"} {
		refused(t, r.unpublish("vol-1", path), codes.InvalidArgument)
	}
	refused(t, r.unpublish("", r.target("pod-1", "pv-1")), codes.InvalidArgument)
	// A link in the place of the target is left alone, with what it points to.
	target := r.target("pod-1", "pv-1")
	kept := filepath.Join(r.host.Data, "kept")
	if err := errors.Join(os.Mkdir(kept, 0o755), os.Symlink(kept, target)); err != nil {
		t.Fatal(err)
	}
	if err := r.unpublish("vol-1", target); err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(kept); err != nil {
		t.Error(err)
	}
}

func TestWhatWasWrittenBelowATargetIsNeverDeleted(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	file := filepath.Join(target, "precious")
	if err := errors.Join(os.Mkdir(target, 0o750), os.WriteFile(file, []byte("data"), 0o600)); err != nil {
		t.Fatal(err)
	}
	r.mustPublish(r.request("vol-1", target))
	if err := r.unpublish("vol-1", target); err != nil {
		t.Fatal(err)
	}
	if got, err := os.ReadFile(file); err != nil || string(got) != "data" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, held := r.host.Find(target); held {
		t.Error("the reference is left")
	}
	if !strings.Contains(r.log.String(), "directory of a target not removed") {
		t.Error("nothing is logged")
	}
}

func TestReadWriteOncePodHasOneUser(t *testing.T) {
	r := newRig(t)
	first, second := r.target("pod-1", "pv-1"), r.target("pod-2", "pv-1")
	alone := func(target string) *spec.NodePublishVolumeRequest {
		q := r.request("vol-1", target)
		q.VolumeCapability = capability(spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER)
		return q
	}
	r.mustPublish(alone(first))
	r.mustPublish(alone(first))
	refused(t, r.publish(alone(second)), codes.FailedPrecondition, "ReadWriteOncePod", first)
	r.mustUnpublish("vol-1", first)
	r.mustPublish(alone(second))
	r.mustUnpublish("vol-1", second)
}

func TestATargetIsOfOneVolumeInOneAccess(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	r.mustPublish(r.request("vol-1", target))
	refused(t, r.publish(r.request("vol-2", target)), codes.AlreadyExists, "vol-1")
	readOnly := r.request("vol-1", target)
	readOnly.Readonly = true
	refused(t, r.publish(readOnly), codes.AlreadyExists, "another access")
	r.works(target, "unharmed")
	r.mustUnpublish("vol-1", target)
}

func TestAReadOnlyVolumeIsReadOnlyForAll(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	request := r.request("vol-1", target)
	request.VolumeCapability = capability(shared, "ro")
	for range 2 {
		r.mustPublish(request)
		r.restart()
	}
	if err := os.WriteFile(filepath.Join(target, "no"), nil, 0o666); !errors.Is(err, unix.EROFS) {
		t.Errorf("got %v", err)
	}
	r.mustUnpublish("vol-1", target)
}

func TestConcurrentCallsForATarget(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	entered, leave := make(chan struct{}), make(chan struct{})
	r.step = func(name string) {
		if name == stepAcquired {
			close(entered)
			<-leave
		}
	}
	first := make(chan error, 1)
	go func() { first <- r.publish(r.request("vol-1", target)) }()
	<-entered
	refused(t, r.publish(r.request("vol-1", target)), codes.Aborted, "under way")
	refused(t, r.unpublish("vol-1", target), codes.Aborted, "under way")
	close(leave)
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	r.step = func(string) {}
	r.works(target, "once")
	r.mustUnpublish("vol-1", target)
}

// dies runs a call in a process that ends at a step: its goroutine stops there and nothing is undone.
func (r *rig) dies(at string, call func()) {
	r.t.Helper()
	died := make(chan bool, 1)
	r.step = func(name string) {
		if name == at {
			died <- true
			runtime.Goexit()
		}
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		call()
	}()
	<-ended
	select {
	case <-died:
	default:
		r.t.Fatalf("step %s was never reached", at)
	}
	r.host.Restart()
	r.restart()
}

func TestAPublishThatDiedIsTakenUp(t *testing.T) {
	for _, at := range []string{stepAcquired, stepMade, stepBound} {
		t.Run(at, func(t *testing.T) {
			r := newRig(t)
			target := r.target("pod-1", "pv-1")
			r.dies(at, func() { _ = r.publish(r.request("vol-1", target)) })
			r.mustPublish(r.request("vol-1", target))
			r.works(target, "after")
			if n := len(r.host.Pods.All()); n != 1 {
				t.Errorf("%d Mount Pods", n)
			}
			r.mustUnpublish("vol-1", target)
			r.eventually("nothing is left", func() bool { return len(r.host.Pods.All()) == 0 && len(r.host.Broker.Sessions()) == 0 })
		})
	}
}

func TestAPublishThatDiedCanBeTakenBack(t *testing.T) {
	for _, at := range []string{stepAcquired, stepMade, stepBound} {
		t.Run(at, func(t *testing.T) {
			r := newRig(t)
			target := r.target("pod-1", "pv-1")
			r.dies(at, func() { _ = r.publish(r.request("vol-1", target)) })
			r.mustUnpublish("vol-1", target)
			r.eventually("nothing is left", func() bool { return len(r.host.Pods.All()) == 0 && len(r.host.Broker.Sessions()) == 0 })
		})
	}
}

func TestAnUnpublishThatDiedIsTakenUp(t *testing.T) {
	for _, at := range []string{stepCleared, stepRemoved} {
		t.Run(at, func(t *testing.T) {
			r := newRig(t)
			target := r.target("pod-1", "pv-1")
			r.mustPublish(r.request("vol-1", target))
			r.dies(at, func() { _ = r.unpublish("vol-1", target) })
			r.mustUnpublish("vol-1", target)
			r.eventually("nothing is left", func() bool { return len(r.host.Pods.All()) == 0 && len(r.host.Broker.Sessions()) == 0 })
		})
	}
}

func TestARestartLeavesMountsAndOpenFilesAlone(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	r.mustPublish(r.request("vol-1", target))
	file, err := os.Create(filepath.Join(target, "open"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	before := r.at(target)
	r.host.Restart()
	r.restart()
	r.mustPublish(r.request("vol-1", target)) // the kubelet's next repetition
	if after := r.at(target); len(after) != 1 || after[0] != before[0] {
		t.Errorf("mounts before and after: %v, %v", before, after)
	}
	if _, err := file.WriteString("goes on"); err != nil {
		t.Error(err)
	}
	if err := file.Close(); err != nil {
		t.Error(err)
	}
	r.works(target, "new")
	r.mustUnpublish("vol-1", target)
}

// lose ends a volume's session as the loss of both holders does.
func (r *rig) lose(target string) {
	r.t.Helper()
	r.host.Stop()
	for _, pod := range r.host.Pods.All() {
		r.host.Pods.Kill(pod.Name)
	}
	r.eventually("the connection is gone", func() bool {
		return errors.Is(unix.Access(filepath.Join(target, "x"), unix.F_OK), unix.ENOTCONN)
	})
	r.host.Restart()
	r.restart()
}

func TestARepublishReplacesADeadBind(t *testing.T) {
	r := newRig(t)
	target, other := r.target("pod-1", "pv-1"), r.target("pod-2", "pv-1")
	r.mustPublish(r.request("vol-1", target))
	r.mustPublish(r.request("vol-1", other))
	dead := r.at(target)[0].Device
	r.lose(target)
	_, err := r.NodeGetVolumeStats(t.Context(), &spec.NodeGetVolumeStatsRequest{VolumeId: "vol-1", VolumePath: target})
	refused(t, translate(err), codes.Unavailable)
	r.eventually("a repetition heals it", func() bool { return r.publish(r.request("vol-1", target)) == nil && r.at(target)[0].Device != dead })
	r.works(target, "healed")
	if !strings.Contains(r.log.String(), "dead mount at a target replaced") {
		t.Error("nothing is logged")
	}
	r.mustUnpublish("vol-1", other) // still dead
	r.mustUnpublish("vol-1", target)
}

// frozen publishes a volume and takes its client away for good, so that whoever asks the mount waits.
func (r *rig) frozen(target string) {
	r.t.Helper()
	r.mustPublish(r.request("vol-1", target))
	r.host.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return &corev1.PodStatus{Phase: corev1.PodPending} })
	for _, pod := range r.host.Pods.All() {
		r.host.Pods.Evict(pod.Name)
		r.host.Pods.Kill(pod.Name)
	}
	share, _ := r.host.Find(target)
	r.eventually("the client is gone", func() bool {
		s, err := r.host.Broker.Status(share.Session)
		return err == nil && s.State == mount.Orphaned
	})
}

func TestNothingWaitsForAMountThatDoesNotAnswer(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	r.frozen(target)
	for range 3 {
		began := time.Now()
		_, err := r.NodeGetVolumeStats(t.Context(), &spec.NodeGetVolumeStatsRequest{VolumeId: "vol-1", VolumePath: target})
		refused(t, translate(err), codes.Unavailable, "does not answer")
		if took := time.Since(began); took > 5*time.Second {
			t.Errorf("figures took %s", took)
		}
	}
	health, err := r.NodeGetVolumeHealth(t.Context(), &spec.NodeGetVolumeHealthRequest{VolumeId: "vol-1", VolumePublishPath: target})
	if err != nil || len(health.VolumeHealth.HealthStatuses) != 2 {
		t.Errorf("health: %v, %v", health, err)
	}
	began := time.Now()
	r.mustPublish(r.request("vol-1", target)) // the kubelet's repetition
	r.mustUnpublish("vol-1", target)
	if took := time.Since(began); took > 2*time.Second {
		t.Errorf("publish and unpublish took %s", took)
	}
}

func TestFiguresAndHealth(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	ask := func(volume, path string) (*spec.NodeGetVolumeStatsResponse, error) {
		stats, err := r.NodeGetVolumeStats(t.Context(), &spec.NodeGetVolumeStatsRequest{VolumeId: volume, VolumePath: path})
		return stats, translate(err)
	}
	_, err := ask("vol-1", target)
	refused(t, err, codes.NotFound)
	r.mustPublish(r.request("vol-1", target))
	stats, err := ask("vol-1", target)
	if err != nil {
		t.Fatal(err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(r.host.Data, &fs); err != nil {
		t.Fatal(err)
	}
	for _, u := range stats.Usage {
		if u.Unit == spec.VolumeUsage_BYTES && u.Total != int64(fs.Blocks)*fs.Frsize || u.Unit == spec.VolumeUsage_INODES && u.Total != int64(fs.Files) {
			t.Errorf("got %v", u)
		}
	}
	for volume, path := range map[string]string{"vol-2": target, "vol-1": filepath.Dir(target)} {
		_, err := ask(volume, path)
		refused(t, err, codes.NotFound)
	}
	for _, path := range []string{"", target} {
		health, err := r.NodeGetVolumeHealth(t.Context(), &spec.NodeGetVolumeHealthRequest{VolumeId: "vol-1", VolumePublishPath: path})
		if err != nil || len(health.VolumeHealth.HealthStatuses) != 0 {
			t.Errorf("%q: %v, %v", path, health, err)
		}
	}
	_, err = r.NodeGetVolumeHealth(t.Context(), &spec.NodeGetVolumeHealthRequest{VolumeId: "vol-2"})
	refused(t, translate(err), codes.NotFound)
	r.mustUnpublish("vol-1", target)
}

func TestAnnotationsOfTheClaimCostTwoReadsAndARepetitionNone(t *testing.T) {
	r := newRig(t)
	r.objects.bind("pv-1", "vol-1", map[string]string{"juicefs/mount-memory-limit": "3Gi"})
	target := r.target("pod-1", "pv-1")
	r.mustPublish(r.request("vol-1", target))
	if n := r.objects.calls(); n != 2 {
		t.Errorf("a publish asks the API server %d times", n)
	}
	pods := r.host.Pods.All()
	if got := pods[0].Spec.Containers[0].Resources.Limits.Memory().String(); got != "3Gi" {
		t.Errorf("memory limit %s", got)
	}
	for range 5 {
		r.mustPublish(r.request("vol-1", target))
	}
	if n := r.objects.calls(); n != 0 {
		t.Errorf("five repetitions ask the API server %d times", n)
	}
	r.objects.down = errors.New("no route to host")
	second := r.target("pod-2", "pv-1")
	refused(t, r.publish(r.request("vol-1", second)), codes.Unavailable, "PersistentVolume pv-1", "no route to host")
	r.mustPublish(r.request("vol-1", target))
	r.mustUnpublish("vol-1", second)
	r.mustUnpublish("vol-1", target)
}

func TestAnnotationsOfTheVolumeChooseTheClient(t *testing.T) {
	r := newRig(t)
	r.objects.bind("pv-1", "vol-1", nil)
	r.objects.pvs["pv-1"].Annotations = map[string]string{sidecar.ImageAnnotation: "registry.example/client:mine", sidecar.OptionsAnnotation: "ro"}
	target := r.target("pod-1", "pv-1")
	r.mustPublish(r.request("vol-1", target))
	if got := r.host.Pods.All()[0].Spec.Containers[0].Image; got != "registry.example/client:mine" {
		t.Errorf("image %s", got)
	}
	if err := os.WriteFile(filepath.Join(target, "no"), nil, 0o666); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing with option ro: %v", err)
	}
	r.mustUnpublish("vol-1", target)
}

func TestOptionsOfTheOlderAnnotationAreFollowed(t *testing.T) {
	r := newRig(t)
	r.objects.bind("pv-1", "vol-1", nil)
	r.objects.pvs["pv-1"].Spec.MountOptions = []string{"unknown to the kubelet then"}
	r.objects.pvs["pv-1"].Annotations = map[string]string{corev1.MountOptionAnnotation: "ro"}
	target := r.target("pod-1", "pv-1")
	request := r.request("vol-1", target)
	request.VolumeCapability = capability(shared, "ro")
	r.mustPublish(request)
	if err := os.WriteFile(filepath.Join(target, "no"), nil, 0o666); !errors.Is(err, unix.EROFS) {
		t.Errorf("writing with option ro: %v", err)
	}
	r.mustUnpublish("vol-1", target)
}

func TestAForeignVolumeOfTheNameLendsNoAnnotations(t *testing.T) {
	r := newRig(t)
	r.objects.bind("pv-1", "another-handle", map[string]string{"juicefs/mount-memory-limit": "3Gi"})
	target := r.target("pod-1", "pv-1")
	r.mustPublish(r.request("vol-1", target))
	if got := r.host.Pods.All()[0].Spec.Containers[0].Resources.Limits.Memory().String(); got != "5Gi" {
		t.Errorf("memory limit %s", got)
	}
	r.mustUnpublish("vol-1", target)
}

func TestTwoVolumesOfOneHandleStayTwo(t *testing.T) {
	r := newRig(t)
	other := filepath.Join(r.host.Dir, "other")
	if err := errors.Join(os.Mkdir(other, 0o777), os.Chmod(other, 0o777)); err != nil {
		t.Fatal(err)
	}
	first, second := r.target("pod-1", "pv-1"), r.target("pod-2", "pv-2")
	r.mustPublish(r.request("vol-1", first))
	twin := r.request("vol-1", second)
	twin.VolumeContext["path"] = other
	r.mustPublish(twin)
	r.works(first, "of-the-first")
	if _, err := os.Lstat(filepath.Join(second, "of-the-first")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the second shows the file of the first: %v", err)
	}
	r.mustUnpublish("vol-1", first)
	if err := os.WriteFile(filepath.Join(second, "file"), nil, 0o666); err != nil {
		t.Errorf("the second ends with the first: %v", err)
	}
	r.mustUnpublish("vol-1", second)
}

func TestAnInlineVolumeMayNotLookIntoTheHost(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "scratch")
	for _, change := range []func(map[string]string){
		func(c map[string]string) { c[keyEphemeral] = "true" },
		func(c map[string]string) { delete(c, keyEphemeral) },
	} {
		request := r.request("csi-1", target)
		change(request.VolumeContext)
		err := r.publish(request)
		refused(t, err, codes.InvalidArgument, "inline volume")
		if _, said := request.VolumeContext[keyEphemeral]; !said {
			refused(t, err, codes.InvalidArgument, "podInfoOnMount")
		}
		delete(request.VolumeContext, "sidemount.io/client")
		delete(request.VolumeContext, "path")
		request.VolumeContext["juicefs/host-path"] = "/etc"
		request.Secrets = map[string]string{"name": "fs", "metaurl": "redis://h/1"}
		refused(t, r.publish(request), codes.InvalidArgument, "juicefs/host-path")
	}
	if n := r.host.Pods.Calls().Create; n != 0 {
		t.Errorf("%d Mount Pods", n)
	}
}

func TestAWarningIsToldOnceThoughThePublishFails(t *testing.T) {
	r := newRig(t)
	r.objects.bind("pv-1", "vol-1", map[string]string{"juicefs/host-path": "/etc"})
	target := r.target("pod-1", "pv-1")
	request := r.request("vol-1", target)
	request.VolumeContext["mountOptions"] = "of-another-client"
	for range 2 {
		if err := r.publish(request); err == nil {
			t.Fatal("a volume with an unknown option is published")
		}
		if _, held := r.host.Find(target); held {
			t.Fatal("the failure is not final")
		}
	}
	if n := len(r.events.Events); n != 1 {
		t.Errorf("%d events", n)
	}
}

func TestWhatWasToldIsForgottenWhenNobodyTriesAnyMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var p publications
		for _, target := range []string{"gone", "published"} {
			if news := p.news(target, []string{"warning"}); len(news) != 1 {
				t.Errorf("%s: %q is news", target, news)
			}
		}
		p.add("published", fingerprint{})
		<-time.After(remembered + time.Second)
		p.news("another", []string{"warning"})
		if len(p.warned) != 2 || p.warned["published"].words == nil {
			t.Errorf("remembered: %v", p.warned)
		}
	})
}

func TestAWarningIsToldOnce(t *testing.T) {
	r := newRig(t)
	r.objects.bind("pv-1", "vol-1", map[string]string{"juicefs/host-path": "/etc"})
	target := r.target("pod-1", "pv-1")
	for range 3 {
		request := r.request("vol-1", target)
		r.mustPublish(request)
		r.seen.failed(target)
	}
	close(r.events.Events)
	var events []string
	for e := range r.events.Events {
		events = append(events, e)
	}
	if len(events) != 1 || !strings.Contains(events[0], "VolumeSettingIgnored") || !strings.Contains(events[0], "juicefs/host-path") {
		t.Errorf("got %q", events)
	}
	r.mustUnpublish("vol-1", target)
}

func TestAFailedPublishLeavesNothing(t *testing.T) {
	r := newRig(t)
	target := r.target("pod-1", "pv-1")
	r.step = func(name string) {
		if name == stepAcquired { // the kubelet removes the pod meanwhile
			if err := os.RemoveAll(filepath.Join(r.kubelet, "pods", "pod-1")); err != nil {
				t.Error(err)
			}
		}
	}
	refused(t, r.publish(r.request("vol-1", target)), codes.FailedPrecondition, "does not exist")
	if _, held := r.host.Find(target); held {
		t.Error("a reference is left")
	}
	r.eventually("the Mount Pod ends", func() bool { return len(r.host.Pods.All()) == 0 })
}

func TestAPublishEndsBeforeItsCallerDoes(t *testing.T) {
	r := newRig(t)
	r.host.Pods.Admit(func(*corev1.Pod) *corev1.PodStatus { return &corev1.PodStatus{Phase: corev1.PodPending} })
	target := r.target("pod-1", "pv-1")
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	_, err := r.NodePublishVolume(ctx, r.request("vol-1", target))
	if ctx.Err() != nil {
		t.Error("the caller has learnt nothing")
	}
	refused(t, translate(err), codes.DeadlineExceeded, "vol-1")
	r.host.Pods.Admit(nil)
	r.mustUnpublish("vol-1", target)
}

func TestNodeInfo(t *testing.T) {
	r := newRig(t)
	r.options.MaxVolumes, r.options.Topology = 7, map[string]string{"rack": "1"}
	info, err := r.NodeGetInfo(t.Context(), nil)
	if err != nil || info.NodeId != "node-1" || info.MaxVolumesPerNode != 7 || info.AccessibleTopology.Segments["rack"] != "1" {
		t.Errorf("got %v, %v", info, err)
	}
}
