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
		again    chan types.UID
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
			Again:     func(uid types.UID) { again <- uid },
			Poll:      50 * time.Millisecond,
		})
		Expect(err).NotTo(HaveOccurred())
		return k
	}

	BeforeEach(func() {
		held, resolver = newMemoryBroker(), &objects{}
		recorder = record.NewFakeRecorder(100)
		woken, again = make(chan types.UID, 100), make(chan types.UID, 100)
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

	It("says which sidecars are needed once more although their pod ends", func() {
		owes := func() bool { return keeper.Owes(pod, "sidemount-data") }
		Expect(owes()).To(BeFalse(), "there is no session")
		prepare()
		Expect(owes()).To(BeFalse(), "nobody has served it")
		held.set(id, func(s *broker.Session) { s.State, s.Ready = mount.Attached, true })
		Expect(owes()).To(BeFalse(), "somebody serves it")
		held.set(id, func(s *broker.Session) { s.State, s.Ready = mount.Orphaned, false })
		Expect(owes()).To(BeTrue())
		Expect(keeper.Owes(pod, "someone-elses-sidecar")).To(BeFalse())
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

	// serving marks the session as one whose client has served.
	serving := func() {
		held.set(id, func(s *broker.Session) { s.State, s.Ready = mount.Attached, true })
	}

	names := func(p *corev1.Pod) (names []string) {
		for _, c := range p.Spec.InitContainers {
			names = append(names, c.Name)
		}
		return names
	}

	condition := func() corev1.PodCondition {
		for _, c := range keeper.Conditions(pod) {
			if c.Type == ClientUpgraded {
				return c
			}
		}
		return corev1.PodCondition{}
	}

	// ask has the pod ask for another client of an image that the volume has now.
	ask := func(value, image string) {
		m := dataMount("redis://user:geheim@meta/1")
		m.Image = image
		resolver.set([]sidecar.Mount{m}, nil)
		pod = pod.DeepCopy()
		pod.Annotations = map[string]string{UpgradeAnnotation: value}
	}

	It("replaces the client when the pod asks for it, and leaves only the new one", func() {
		run()
		prepare()
		serving()
		ask("once", "client:2")
		both := prepare()
		Expect(names(both)).To(Equal([]string{"sidemount-data", "sidemount--1-data"}))
		Expect(both.Spec.InitContainers[0].Image).To(Equal("client:1"))
		Expect(both.Spec.InitContainers[1].Image).To(Equal("client:2"))
		Expect(both.Spec.InitContainers[1].Command).To(ContainElements("-generation", "1"))
		Eventually(again).Should(Receive(Equal(pod.UID)))
		Expect(names(prepare())).To(Equal([]string{"sidemount--1-data"}))
		Expect(held.upgraded()).To(ConsistOf(And(HaveField("Generation", 1), HaveField("Volume.Secret", HaveKey("metaurl")))))
		Expect(condition()).To(And(HaveField("Status", corev1.ConditionTrue), HaveField("Message", HaveSuffix("requests waited for 7 ms [once]"))))
		Expect(drain(recorder)).To(ContainElement(`Normal ClientUpgraded volume "data": the client was upgraded from client:1 to client:2; requests waited for 7 ms`))
		keeper = restarted()
		Expect(names(prepare())).To(Equal([]string{"sidemount--1-data"}), "a new process knows as much")
		Expect(condition().Message).To(HaveSuffix("[once]"))
		started, _ := keeper.Started(pod, "sidemount--1-data")
		Expect(started).To(BeTrue())
	})

	It("keeps the client when the next one fails, says so, and does not try again by itself", func() {
		run()
		prepare()
		serving()
		held.handOver = func(context.Context, mount.SessionID, broker.Successor) (time.Duration, error) {
			return 0, errors.New("the next client cannot start: exec format error")
		}
		ask("bad", "client:broken")
		prepare()
		Eventually(again).Should(Receive())
		Expect(names(prepare())).To(Equal([]string{"sidemount-data"}))
		Expect(condition()).To(And(HaveField("Status", corev1.ConditionFalse), HaveField("Message", ContainSubstring("exec format error [bad]"))))
		Consistently(held.upgraded, "300ms").Should(HaveLen(1))
		held.handOver = nil
		ask("good", "client:2")
		Expect(names(prepare())).To(Equal([]string{"sidemount-data", "sidemount--2-data"}), "the number of the one that failed is not used again")
	})

	It("follows the annotations of the PersistentVolume", func() {
		run()
		prepare()
		serving()
		m := dataMount("redis://meta/1")
		m.Image, m.Wish = "client:9", "image=client:9 options="
		resolver.set([]sidecar.Mount{m}, nil)
		Eventually(again, "5s").Should(Receive(Equal(pod.UID)))
		Expect(names(prepare())).To(Equal([]string{"sidemount-data", "sidemount--1-data"}))
		Eventually(held.upgraded).Should(HaveLen(1))
		Eventually(condition).Should(HaveField("Status", corev1.ConditionTrue))
		prepare()
		drainIDs(again)
		Consistently(again, "300ms").ShouldNot(Receive())
	})

	It("does not disturb a running pod because the node's default image has changed", func() {
		run()
		prepare()
		serving()
		m := dataMount("redis://meta/1")
		m.Image = "client:default-of-a-newer-node"
		resolver.set([]sidecar.Mount{m}, nil)
		Consistently(again, "300ms").ShouldNot(Receive())
		keeper = restarted()
		Expect(prepare().Spec.InitContainers[0].Image).To(Equal("client:1"))
	})

	It("goes on with an upgrade that an earlier process has begun", func() {
		prepare()
		serving()
		ask("once", "client:2")
		prepare()
		keeper = restarted()
		run()
		Expect(names(prepare())).To(Equal([]string{"sidemount-data", "sidemount--1-data"}))
		Eventually(condition).Should(HaveField("Status", corev1.ConditionTrue))
		Expect(held.upgraded()).To(ConsistOf(HaveField("Volume.Secret", HaveKey("metaurl"))))
	})

	It("refuses what cannot change below an application", func() {
		run()
		prepare()
		serving()
		m := dataMount("redis://meta/1")
		m.Volume.Options = []string{"subdir=/other"}
		resolver.set([]sidecar.Mount{m}, nil)
		pod.Annotations = map[string]string{UpgradeAnnotation: "data/1"}
		Expect(names(prepare())).To(Equal([]string{"sidemount-data"}))
		Expect(condition()).To(And(HaveField("Status", corev1.ConditionFalse), HaveField("Message", ContainSubstring("subdirectory"))))
		Expect(held.upgraded()).To(BeEmpty())
	})

	It("answers who asks although the volume cannot be resolved", func() {
		run()
		prepare()
		serving()
		resolver.set(nil, &sidecar.Error{Reason: sidecar.ReasonSecretNotFound, Object: "Secret shop/data", Message: "is not found"})
		pod.Annotations = map[string]string{UpgradeAnnotation: "x"}
		Expect(names(prepare())).To(Equal([]string{"sidemount-data"}))
		Expect(condition()).To(And(HaveField("Status", corev1.ConditionFalse), HaveField("Message", And(ContainSubstring("is not found"), HaveSuffix("[x]")))))
	})

	It("leaves volumes alone that the pod does not name", func() {
		prepare()
		serving()
		pod.Annotations = map[string]string{UpgradeAnnotation: "other/1"}
		Expect(names(prepare())).To(Equal([]string{"sidemount-data"}))
		Expect(condition().Type).To(BeEmpty())
	})

	It("tells in a condition whether the volumes are served", func() {
		ready := func() corev1.PodCondition { return keeper.Conditions(pod)[0] }
		Expect(keeper.Conditions(pod)).To(BeEmpty())
		prepare()
		serving()
		Expect(ready()).To(And(HaveField("Type", VolumesReady), HaveField("Status", corev1.ConditionTrue)))
		held.set(id, func(s *broker.Session) {
			s.State, s.Ready, s.Failure = mount.Orphaned, false, errors.New("the client has ended: oom")
		})
		Expect(ready()).To(And(HaveField("Status", corev1.ConditionFalse), HaveField("Reason", "ClientAway"), HaveField("Message", ContainSubstring("oom"))))
		held.lose(id)
		keeper.Notify(broker.Event{Session: id, Reason: broker.SessionLost, Message: "the mount was lost"})
		Expect(ready()).To(And(HaveField("Status", corev1.ConditionFalse), HaveField("Reason", "OpenFilesLost")))
	})

	It("needs all of its options", func() {
		_, err := New(Options{})
		Expect(err).To(MatchError(ErrOptions))
	})

	It("gives a volume for one pod at a time to nobody else, over a restart too", func(ctx SpecContext) {
		m := dataMount("redis://one")
		m.PersistentVolume, m.Alone = "pv-1", true
		resolver.set([]sidecar.Mount{m}, nil)
		_, err := keeper.Prepare(ctx, pod)
		Expect(err).NotTo(HaveOccurred())
		second := pod.DeepCopy()
		second.Name, second.UID = "other", "uid-2"

		for _, k := range []*Keeper{keeper, restarted()} {
			_, err = k.Prepare(ctx, second)
			Expect(err).To(MatchError(ContainSubstring("volume uses the ReadWriteOncePod access mode and is already in use by another pod")))
			Expect(errors.Is(err, mount.ErrUnavailable)).To(BeTrue())
		}
		Expect(keeper.Prepare(ctx, pod)).NotTo(BeNil())
		Expect(keeper.Release(ctx, pod, time.Second)).To(Succeed())
		Expect(keeper.Prepare(ctx, second)).NotTo(BeNil())
	})
})

func drainIDs(c chan types.UID) {
	for {
		select {
		case <-c:
		default:
			return
		}
	}
}

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
