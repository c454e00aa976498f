package session

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

func podWithVolume() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec: corev1.PodSpec{
			Containers: []corev1.Container{{Name: "app", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}}},
			Volumes: []corev1.Volume{
				{Name: "data", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}},
				{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
			},
		},
	}
}

func dataMount(metaurl string) sidecar.Mount {
	return sidecar.Mount{
		Volume: mount.Volume{ID: "pv-1", Name: "data", Client: mount.JuiceFS, Secret: mount.Secret{"metaurl": metaurl}},
		Claim:  "data", Image: "client:1", Argv: []string{"/client"}, UID: 65534, GID: 65534,
		Warnings: []string{"juicefs/mount-delete-delay is not followed by a sidecar"},
	}
}

var _ = Describe("A keeper of sessions", func() {
	var (
		held     *memoryBroker
		resolver *objects
		recorder *record.FakeRecorder
		woken    chan types.UID
		state    string
		keeper   *Keeper
		pod      *corev1.Pod
		id       mount.SessionID
	)

	// restarted is a keeper as another process would make it.
	restarted := func() *Keeper {
		k, err := New(Options{
			Resolver: resolver, Broker: held, AgentDir: "/var/lib/sidemount/bin", StateDir: state, Recorder: recorder,
			TargetDir: func(uid types.UID, volume string) string { return filepath.Join("/pods", string(uid), volume) },
			Wake:      func(uid types.UID) { woken <- uid },
		})
		Expect(err).NotTo(HaveOccurred())
		return k
	}

	BeforeEach(func() {
		held, resolver = newMemoryBroker(), &objects{}
		recorder = record.NewFakeRecorder(100)
		woken = make(chan types.UID, 100)
		state = filepath.Join(GinkgoT().TempDir(), "prepared")
		pod = podWithVolume()
		id = sidecar.SessionID(pod.UID, "data")
		resolver.set([]sidecar.Mount{dataMount("redis://user:geheim@meta/1")}, nil)
		keeper = restarted()
	})

	run := func() {
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- keeper.Run(ctx) }()
		DeferCleanup(func() {
			cancel()
			Eventually(done, "10s").Should(Receive(BeNil()))
		})
	}

	prepare := func() *corev1.Pod {
		GinkgoHelper()
		prepared, err := keeper.Prepare(context.Background(), pod)
		Expect(err).NotTo(HaveOccurred())
		return prepared
	}

	It("opens a session for each volume and injects its sidecar into a copy", func() {
		prepared := prepare()
		Expect(pod).To(Equal(podWithVolume()))
		Expect(prepared.Spec.InitContainers).To(HaveLen(1))
		Expect(prepared.Spec.InitContainers[0].Name).To(Equal("sidemount-data"))
		request := held.opened(id)[0]
		Expect(request.Target).To(Equal("/pods/uid-1/data"))
		Expect(request.UID).To(BeEquivalentTo(65534))
		Expect(request.Volume.Secret).To(HaveKey("metaurl"))
		Expect(recorder.Events).To(Receive(ContainSubstring("juicefs/mount-delete-delay")))
		prepare()
		Expect(recorder.Events).NotTo(Receive(), "a warning is told once")
	})

	It("leaves a pod without volumes of ours as it is", func() {
		resolver.set(nil, nil)
		Expect(prepare()).To(BeIdenticalTo(pod))
		Expect(state).NotTo(BeADirectory())
	})

	It("says what is wrong with a volume", func() {
		resolver.set(nil, &sidecar.Error{Reason: sidecar.ReasonClaimNotFound, Object: "PersistentVolumeClaim shop/data", Message: "is not found"})
		_, err := keeper.Prepare(context.Background(), pod)
		var unusable *sidecar.Error
		Expect(errors.As(err, &unusable)).To(BeTrue())
		held.refuse = errors.New("no /dev/fuse")
		resolver.set([]sidecar.Mount{dataMount("redis://meta/1")}, nil)
		_, err = keeper.Prepare(context.Background(), pod)
		Expect(err).To(MatchError(`volume "data": no /dev/fuse`))
	})

	It("lets later containers wait until the session is ready, and says what it waits for", func() {
		started := func() (bool, string) { return keeper.Started(pod, "sidemount-data") }
		ok, failure := started()
		Expect(ok).To(BeFalse())
		Expect(failure).To(ContainSubstring("session not found"))
		prepare()
		ok, failure = started()
		Expect(ok).To(BeFalse())
		Expect(failure).To(BeEmpty())
		held.set(id, func(s *broker.Session) { s.Failure = errors.New("redis: connection refused") })
		_, failure = started()
		Expect(failure).To(Equal(`volume "data": redis: connection refused`))
		held.set(id, func(s *broker.Session) { s.Ready, s.Failure = true, nil })
		ok, failure = started()
		Expect(ok).To(BeTrue())
		Expect(failure).To(BeEmpty())
		ok, _ = keeper.Started(pod, "someone-elses-sidecar")
		Expect(ok).To(BeTrue())
	})

	It("keeps a running pod although its Secret is gone, also after a restart", func() {
		before := prepare()
		resolver.set(nil, &sidecar.Error{Reason: sidecar.ReasonSecretNotFound, Object: "Secret shop/data", Message: "is not found"})
		keeper = restarted()
		Expect(prepare()).To(Equal(before))
		held.lose(id)
		_, err := keeper.Prepare(context.Background(), pod)
		Expect(err).To(HaveOccurred(), "without its session the pod does need the Secret")
	})

	It("writes no secret to the disk", func() {
		prepare()
		content, err := os.ReadFile(filepath.Join(state, "uid-1.json"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(content)).NotTo(ContainSubstring("geheim"))
	})

	It("closes sessions in the end, also those that an earlier process has opened", func() {
		prepare()
		keeper = restarted()
		Expect(keeper.Release(context.Background(), pod, time.Second)).To(Succeed())
		_, err := held.Status(id)
		Expect(err).To(MatchError(mount.ErrNotFound))
		Expect(filepath.Join(state, "uid-1.json")).NotTo(BeAnExistingFile())
		Expect(keeper.Release(context.Background(), pod, time.Second)).To(Succeed())
	})

	It("opens a lost session again", func() {
		run()
		prepare()
		held.lose(id)
		keeper.Notify(broker.Event{Session: id, Reason: broker.SessionLost, Message: "the mount was lost"})
		Eventually(func() error { _, err := held.Status(id); return err }, "10s").Should(Succeed())
		Eventually(woken, "10s").Should(Receive(Equal(pod.UID)))
		Expect(drain(recorder)).To(ContainElement(ContainSubstring("Warning SessionLost volume \"data\": the mount was lost")))
	})

	It("gives a client that has never served a mended Secret", func() {
		run()
		prepare()
		resolver.set([]sidecar.Mount{dataMount("redis://mended/1")}, nil)
		keeper.Notify(broker.Event{Session: id, Reason: broker.ClientFailed, Message: "cannot connect"})
		Eventually(func(g Gomega) {
			requests := held.opened(id)
			g.Expect(requests).To(HaveLen(2))
			g.Expect(requests[1].Volume.Secret["metaurl"]).To(Equal("redis://mended/1"))
		}, "10s").Should(Succeed())
	})

	It("does not touch the volume of a session that has served", func() {
		run()
		prepare()
		held.set(id, func(s *broker.Session) { s.State = mount.Orphaned })
		keeper.Notify(broker.Event{Session: id, Reason: broker.ClientFailed, Message: "client ended: oom"})
		Consistently(func() int { return len(held.opened(id)) }, "1500ms").Should(Equal(1))
		Expect(drain(recorder)).To(ContainElement(ContainSubstring("ClientFailed")))
	})

	It("tries to mend until it succeeds", func() {
		run()
		prepare()
		held.lose(id)
		resolver.set(nil, errors.New("api server does not answer"))
		keeper.Notify(broker.Event{Session: id, Reason: broker.SessionLost})
		Eventually(func() []string { return drain(recorder) }, "10s").Should(ContainElement(ContainSubstring("FailedMount api server does not answer")))
		resolver.set([]sidecar.Mount{dataMount("redis://meta/1")}, nil)
		Eventually(func() error { _, err := held.Status(id); return err }, "15s").Should(Succeed())
	})

	It("leaves the session of an ended pod closed", func() {
		run()
		prepare()
		Expect(keeper.Release(context.Background(), pod, 0)).To(Succeed())
		keeper.Notify(broker.Event{Session: id, Reason: broker.SessionLost})
		Consistently(func() error { _, err := held.Status(id); return err }, "300ms").Should(MatchError(mount.ErrNotFound))
	})

	It("needs all of its options", func() {
		_, err := New(Options{})
		Expect(err).To(MatchError(ErrOptions))
	})
})

func drain(r *record.FakeRecorder) []string {
	var events []string
	for {
		select {
		case e := <-r.Events:
			events = append(events, e)
		default:
			return events
		}
	}
}
