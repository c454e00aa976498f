package webhook

import (
	"context"
	"fmt"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
	"github.com/sidemount/sidemount/test/space"
)

var enabled = map[string]string{"sidemount.io/injection": "enabled"}

// volume makes a JuiceFS volume whose Secret is in the namespace "sidemount" and not in that of the pods.
func (s namespace) volume(ctx context.Context, name string) *lab.FileSystem {
	GinkgoHelper()
	return s.Volume(ctx, name, "sidemount")
}

// foreign makes a claim of somebody else's driver.
func (s namespace) foreign(ctx context.Context, name string) {
	GinkgoHelper()
	class, err := cluster.Client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
		ObjectMeta: metav1.ObjectMeta{Name: s.Name + "-foreign"}, Provisioner: "csi.example.com", VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		Expect(cluster.Client.StorageV1().StorageClasses().Delete(ctx, class.Name, metav1.DeleteOptions{})).To(Succeed())
	}, NodeTimeout(patience))
	_, err = cluster.Client.CoreV1().PersistentVolumeClaims(s.Name).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteOnce}, StorageClassName: &class.Name,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
}

// loop appends to an open file for ever and says so when it could not.
const loop = `trap 'exit 0' TERM; exec 3>>/data/log; i=0; while :; do i=$((i+1)); echo $i >&3 || echo FAILED; echo $i > /data/last || echo FAILED; sleep 0.05; done`

var _ = Describe("A pod on a node of others", func() {
	var ns namespace
	BeforeEach(func(ctx SpecContext) { ns = newSpace(ctx, enabled) }, NodeTimeout(patience))

	It("finds its volume from its first init container on, and ends as a Job does", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		template := pod("", "cat /data/early && dd if=/dev/zero of=/data/big bs=64k count=64 2>/dev/null && ls /data", lab.Claim("data"),
			lab.Init("early", "echo hello > /data/early"), lab.User(0))
		_, err := cluster.Client.BatchV1().Jobs(ns.Name).Create(ctx, &batchv1.Job{
			ObjectMeta: metav1.ObjectMeta{Name: "job"},
			Spec:       batchv1.JobSpec{BackoffLimit: ptr.To(int32(0)), Template: corev1.PodTemplateSpec{Spec: template.Spec}},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func(g Gomega) {
			job, err := cluster.Client.BatchV1().Jobs(ns.Name).Get(ctx, "job", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(job.Status.Failed).To(BeZero())
			g.Expect(job.Status.Succeeded).To(BeEquivalentTo(1))
		}).WithContext(ctx).Should(Succeed())
		out, err := cluster.Kubectl(ctx, "logs", "-n", ns.Name, "job/job", "-c", "app")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(Equal("hello\nbig\nearly\n"))
		By("no Secret has come to the pod's namespace")
		secrets, err := cluster.Client.CoreV1().Secrets(ns.Name).List(ctx, metav1.ListOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(secrets.Items).To(BeEmpty())
	}, NodeTimeout(3*time.Minute))

	It("does not notice that its client, the client's container or its broker is killed", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		p := ns.Create(ctx, pod("app", loop, lab.Claim("data"), lab.User(0)))
		ns.Ready(ctx, "app")
		for _, victim := range []struct{ word, without string }{{"sidemount-juicefs", "sidemount-agent"}, {"sidemount-agent run", ""}, {"sidemount-agent supervise", ""}} {
			By("kill " + victim.word)
			var before []int
			Eventually(func() []int { before = space.Processes(p, victim.word, victim.without); return before }).WithContext(ctx).Should(HaveLen(1))
			Expect(syscall.Kill(before[0], syscall.SIGKILL)).To(Succeed())
			Eventually(func() []int { return space.Processes(p, victim.word, victim.without) }).WithContext(ctx).Should(And(HaveLen(1), Not(Equal(before))))
			ns.progresses(ctx, "app")
		}
		Expect(ns.Logs(ctx, "app")).To(BeEmpty())
		By("the client has no privilege")
		client := space.Processes(p, "sidemount-juicefs", "sidemount-agent")
		status, err := lab.Status(client[0])
		Expect(err).NotTo(HaveOccurred())
		Expect(status).To(And(HaveKeyWithValue("CapEff", "0000000000000000"), HaveKeyWithValue("NoNewPrivs", "1"), HaveKeyWithValue("Seccomp", "2")))
		Expect(strings.Fields(status["Uid"])[0]).To(Equal("65534"))
		ns.Delete(ctx, "app")
		ns.Gone(ctx, "app")
	}, NodeTimeout(4*time.Minute))

	It("finds its files again when broker and client are killed together", func(ctx SpecContext) {
		ns.volume(ctx, "data")
		p := ns.Create(ctx, pod("app", "trap 'exit 0' TERM; while :; do date > /data/now; sleep 0.1; done", lab.Claim("data"), lab.User(0)))
		ns.Ready(ctx, "app")
		pids := append(space.Processes(p, "sidemount-agent run", ""), space.Processes(p, "sidemount-agent supervise", "")...)
		Expect(pids).To(HaveLen(2))
		for _, pid := range pids {
			Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Succeed())
		}
		Eventually(func(g Gomega) {
			out, err := ns.Exec(ctx, "app", "sh", "-c", "echo again > /data/again && cat /data/again")
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(out).To(Equal("again\n"))
		}).WithContext(ctx).Should(Succeed())
		Expect(ns.Get(ctx, "app").Status.ContainerStatuses[0].RestartCount).To(BeZero())
		ns.Delete(ctx, "app")
		ns.Gone(ctx, "app")
	}, NodeTimeout(4*time.Minute))

	It("has several volumes, below subPaths and read-only", func(ctx SpecContext) {
		ns.volume(ctx, "one")
		ns.volume(ctx, "two")
		claim := func(name string) corev1.VolumeSource {
			return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}}
		}
		ns.Create(ctx, pod("app", "echo a > /one/deep/a && cat /whole/deep/a && ! touch /readonly/x 2>/dev/null && echo b > /two/b && cat /two/b", lab.User(0),
			lab.Volume("one", "/one", claim("one")), lab.Volume("two", "/two", claim("two")),
			lab.Change(func(p *corev1.Pod) {
				c := &p.Spec.Containers[0]
				c.VolumeMounts[0].MountPath, c.VolumeMounts[0].SubPath = "/one/deep", "deep"
				c.VolumeMounts = append(c.VolumeMounts, corev1.VolumeMount{Name: "one", MountPath: "/whole"}, corev1.VolumeMount{Name: "one", MountPath: "/readonly", ReadOnly: true})
			})))
		Expect(ns.Succeeds(ctx, "app")).To(Equal("a\nb\n"))
	}, NodeTimeout(3*time.Minute))

	It("is injected before its claim is bound, and the scheduler still binds it", func(ctx SpecContext) {
		f, err := lab.JuiceFS(ns.Name, "data")
		Expect(err).NotTo(HaveOccurred())
		class, err := cluster.Client.StorageV1().StorageClasses().Create(ctx, &storagev1.StorageClass{
			ObjectMeta: metav1.ObjectMeta{Name: ns.Name}, Provisioner: lab.Driver, VolumeBindingMode: ptr.To(storagev1.VolumeBindingWaitForFirstConsumer),
			Parameters: f.PV.Spec.CSI.VolumeAttributes,
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(func(ctx SpecContext) {
			Expect(cluster.Client.StorageV1().StorageClasses().Delete(ctx, class.Name, metav1.DeleteOptions{})).To(Succeed())
		}, NodeTimeout(patience))
		f.PVC.Spec.StorageClassName, f.PVC.Spec.VolumeName = &class.Name, ""
		Expect((&lab.FileSystem{PVC: f.PVC}).Create(ctx, cluster)).To(Succeed())
		p := ns.Create(ctx, pod("app", "echo bound > /data/x && cat /data/x", lab.Claim("data"), lab.User(0)))
		Expect(injected(p)).To(BeTrue())
		By("the scheduler chooses a node, as it does for any claim that waits")
		Eventually(func(g Gomega) {
			claim, err := cluster.Client.CoreV1().PersistentVolumeClaims(ns.Name).Get(ctx, "data", metav1.GetOptions{})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(claim.Annotations).To(HaveKey("volume.kubernetes.io/selected-node"))
		}).WithContext(ctx).Should(Succeed())
		By("the provisioner makes the volume")
		f.PV.Spec.StorageClassName = class.Name
		Expect((&lab.FileSystem{PV: f.PV, Secret: f.Secret}).Create(ctx, cluster)).To(Succeed())
		Expect(ns.Succeeds(ctx, "app")).To(Equal("bound\n"))
	}, NodeTimeout(3*time.Minute))

	It("starts by itself when what was wrong is mended", func(ctx SpecContext) {
		f, err := lab.JuiceFS(ns.Name, "data")
		Expect(err).NotTo(HaveOccurred())
		secret := f.Secret
		f.Secret = nil
		Expect(f.Create(ctx, cluster)).To(Succeed())
		ns.Create(ctx, pod("app", "echo mended > /data/x && cat /data/x", lab.Claim("data"), lab.User(0)))
		Eventually(func(g Gomega) {
			events, err := cluster.Client.CoreV1().Events(ns.Name).List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=app"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(events.Items).To(ContainElement(HaveField("Reason", "SecretNotFound")))
		}).WithContext(ctx).Should(Succeed())
		Expect((&lab.FileSystem{Secret: secret}).Create(ctx, cluster)).To(Succeed())
		Expect(ns.Succeeds(ctx, "app")).To(Equal("mended\n"))
	}, NodeTimeout(3*time.Minute))
})

// progresses waits until the application has written something new.
func (s namespace) progresses(ctx context.Context, name string) {
	GinkgoHelper()
	read := func() string {
		out, err := s.Exec(ctx, name, "cat", "/data/last")
		if err != nil {
			return ""
		}
		return out
	}
	before := read()
	Eventually(read).WithContext(ctx).ShouldNot(Or(BeEmpty(), Equal(before)))
}

var _ = Describe("The webhook", func() {
	It("leaves alone what does not want it or does not need it, also where injection is required", func(ctx SpecContext) {
		for _, kind := range []string{"enabled", "required"} {
			ns := newSpace(ctx, map[string]string{"sidemount.io/injection": kind})
			ns.volume(ctx, "data")
			ns.foreign(ctx, "theirs")
			for name, p := range map[string]*corev1.Pod{
				"refuses":      pod("refuses", "true", lab.Claim("data"), lab.Change(func(p *corev1.Pod) { p.Labels = map[string]string{"sidemount.io/inject": "false"} })),
				"has none":     pod("none", "true"),
				"others' only": pod("theirs", "true", lab.Claim("theirs")),
				"virtual node": lab.Pod("virtual", "true", lab.Claim("data")),
				"needs a virtual node": pod("affinity", "true", lab.Claim("data"), lab.Change(func(p *corev1.Pod) {
					p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{
						NodeSelectorTerms: []corev1.NodeSelectorTerm{{MatchExpressions: []corev1.NodeSelectorRequirement{
							{Key: "sidemount.io/serverless", Operator: corev1.NodeSelectorOpIn, Values: []string{"true"}},
						}}},
					}}}
				})),
			} {
				got, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, p, metav1.CreateOptions{DryRun: []string{"All"}})
				Expect(err).NotTo(HaveOccurred(), "%s, %s", kind, name)
				Expect(injected(got)).To(BeFalse(), "%s, %s", kind, name)
			}
			got, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("absent", "true", lab.Claim("nobody-made-it")), metav1.CreateOptions{DryRun: []string{"All"}})
			if kind == "required" {
				Expect(err).To(MatchError(ContainSubstring("create the claims before the pod")))
				continue
			}
			Expect(err).NotTo(HaveOccurred())
			Expect(injected(got)).To(BeFalse())
		}
		other := newSpace(ctx, nil)
		other.volume(ctx, "data")
		got, err := cluster.Client.CoreV1().Pods(other.Name).Create(ctx, pod("app", "true", lab.Claim("data")), metav1.CreateOptions{DryRun: []string{"All"}})
		Expect(err).NotTo(HaveOccurred())
		Expect(injected(got)).To(BeFalse())
	}, NodeTimeout(patience))

	It("says at once which field of a volume is wrong", func(ctx SpecContext) {
		ns := newSpace(ctx, enabled)
		f, err := lab.JuiceFS(ns.Name, "data")
		Expect(err).NotTo(HaveOccurred())
		f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-cpu-limit"] = "many"
		Expect(f.Create(ctx, cluster)).To(Succeed())
		_, err = cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("app", "true", lab.Claim("data")), metav1.CreateOptions{})
		Expect(err).To(MatchError(ContainSubstring("juicefs/mount-cpu-limit")))
	}, NodeTimeout(patience))

	It("keeps nobody else from working while it is away, and no pod that needs it starts without it", func(ctx SpecContext) {
		ns, required := newSpace(ctx, enabled), newSpace(ctx, map[string]string{"sidemount.io/injection": "required"})
		ns.volume(ctx, "data")
		required.volume(ctx, "data")
		ns.Create(ctx, pod("early", loop, lab.Claim("data"), lab.User(0)))
		ns.Ready(ctx, "early")
		hook.stop()
		DeferCleanup(func(ctx SpecContext) {
			if hook.cmd == nil {
				hook.start(ctx)
			}
		}, NodeTimeout(patience))
		By("other pods run")
		ns.Create(ctx, pod("other", "echo fine"))
		Expect(ns.Succeeds(ctx, "other")).To(Equal("fine\n"))
		By("pods that have it do not notice")
		ns.progresses(ctx, "early")
		By("who asks for it is told why not")
		_, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("asks", "true", lab.Claim("data"), asking), metav1.CreateOptions{})
		Expect(err).To(MatchError(ContainSubstring("the webhook did not answer")))
		_, err = cluster.Client.CoreV1().Pods(required.Name).Create(ctx, pod("must", "true", lab.Claim("data")), metav1.CreateOptions{})
		Expect(err).To(MatchError(ContainSubstring("the webhook did not answer")))
		By("who does not ask waits for a node that can mount the claim, and does not run without it")
		p := ns.Create(ctx, pod("waits", "touch /data/x", lab.Claim("data")))
		Expect(injected(p)).To(BeFalse())
		Eventually(func() []corev1.PodCondition { return ns.Get(ctx, "waits").Status.Conditions }).WithContext(ctx).Should(
			ContainElement(And(HaveField("Type", corev1.PodScheduled), HaveField("Status", corev1.ConditionTrue))))
		Consistently(func() corev1.PodPhase { return ns.Get(ctx, "waits").Status.Phase }, 5*time.Second).WithContext(ctx).Should(Equal(corev1.PodPending))
		By("it comes back")
		hook.start(ctx)
		Eventually(func() error {
			_, err := cluster.Client.CoreV1().Pods(required.Name).Create(ctx, pod("must", "echo there > /data/x && cat /data/x", lab.Claim("data"), lab.User(0)), metav1.CreateOptions{})
			return err
		}).WithContext(ctx).Should(Succeed())
		Expect(required.Succeeds(ctx, "must")).To(Equal("there\n"))
		ns.Delete(ctx, "early")
		ns.Gone(ctx, "early")
	}, NodeTimeout(4*time.Minute))

	It("heals a certificate that is no good", func(ctx SpecContext) {
		ns := newSpace(ctx, enabled)
		ns.volume(ctx, "data")
		hook.stop()
		_, err := cluster.Kubectl(ctx, "patch", "secret", "-n", "sidemount", "sidemount-webhook-tls", "--type=json",
			"-p", fmt.Sprintf(`[{"op":"replace","path":"/data/tls.crt","value":%q},{"op":"replace","path":"/data/ca.crt","value":%q}]`, "bm9uZQ==", "bm9uZQ=="))
		Expect(err).NotTo(HaveOccurred())
		hook.start(ctx)
		Eventually(func(g Gomega) {
			p, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("app", "true", lab.Claim("data")), metav1.CreateOptions{DryRun: []string{"All"}})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(injected(p)).To(BeTrue())
		}).WithContext(ctx).Should(Succeed())
	}, NodeTimeout(patience))
})
