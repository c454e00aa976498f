package e2e

import (
	"path"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

const forever = "trap 'exit 0' TERM; while :; do sleep 0.1; done"

var _ = Describe("A pod on the virtual node", func() {
	var ns namespace
	BeforeEach(func(ctx SpecContext) { ns = newSpace(ctx) }, NodeTimeout(patience))

	It("runs, shows its logs and lets a user in", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("hello", "echo one; echo two; "+forever))
		p := ns.Running(ctx, "hello")
		Expect(p.Spec.NodeName).To(Equal(lab.VirtualNode))
		Expect(p.Status.PodIP).NotTo(BeEmpty())
		Expect(p.Status.ContainerStatuses).To(HaveLen(1))
		Expect(p.Status.ContainerStatuses[0].Ready).To(BeTrue())
		Expect(p.Status.QOSClass).To(Equal(corev1.PodQOSBurstable))

		Eventually(ns.Logs).WithArguments(ctx, "hello").WithContext(ctx).Should(Equal("one\ntwo\n"))
		Expect(ns.Logs(ctx, "hello", "--tail=1")).To(Equal("two\n"))
		out, err := ns.Exec(ctx, "hello", "sh", "-c", "id -u; hostname")
		Expect(err).NotTo(HaveOccurred())
		Expect(out).To(Equal("1000\nhello\n"))
		_, err = ns.Exec(ctx, "hello", "sh", "-c", "exit 7")
		Expect(err).To(MatchError(ContainSubstring("exit code 7")))
	}, SpecTimeout(2*patience))

	It("gets its environment from everywhere", func(ctx SpecContext) {
		core := cluster.Client.CoreV1()
		_, err := core.ConfigMaps(ns.Name).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"COLOUR": "green", "SIZE": "4"},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		_, err = core.Secrets(ns.Name).Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "login"}, StringData: map[string]string{"password": "swordfish"},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		ns.Create(ctx, lab.Pod("env", `echo "$PASSWORD $POD_NAME $POD_IP $LIMIT $P_COLOUR $JOINED $KUBERNETES_SERVICE_PORT $0 $1"`, lab.Change(func(p *corev1.Pod) {
			c := &p.Spec.Containers[0]
			c.Resources.Limits = corev1.ResourceList{corev1.ResourceMemory: resource.MustParse("64Mi")}
			c.EnvFrom = []corev1.EnvFromSource{{Prefix: "P_", ConfigMapRef: &corev1.ConfigMapEnvSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}}
			c.Env = []corev1.EnvVar{
				{Name: "PASSWORD", ValueFrom: &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: corev1.LocalObjectReference{Name: "login"}, Key: "password"}}},
				{Name: "POD_NAME", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.name"}}},
				{Name: "POD_IP", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				{Name: "LIMIT", ValueFrom: &corev1.EnvVarSource{ResourceFieldRef: &corev1.ResourceFieldSelector{Resource: "limits.memory", Divisor: resource.MustParse("1Mi")}}},
				{Name: "JOINED", Value: "$(POD_NAME)-$(P_SIZE)-$$(ESCAPED)"},
			}
			c.Args = []string{"$(POD_NAME)", "$(P_COLOUR)"}
		})))
		fields := strings.Fields(ns.Succeeds(ctx, "env"))
		ip := ns.Get(ctx, "env").Status.PodIP
		Expect(fields).To(Equal([]string{"swordfish", "env", ip, "64", "green", "env-4-$(ESCAPED)", "443", "env", "green"}))
	}, SpecTimeout(2*patience))

	It("mounts every kind of volume and keeps them up to date", func(ctx SpecContext) {
		core := cluster.Client.CoreV1()
		settings, err := core.ConfigMaps(ns.Name).Create(ctx, &corev1.ConfigMap{
			ObjectMeta: metav1.ObjectMeta{Name: "settings"}, Data: map[string]string{"colour": "green"},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		_, err = core.Secrets(ns.Name).Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: "login"}, StringData: map[string]string{"password": "swordfish"},
		}, metav1.CreateOptions{})
		Expect(err).NotTo(HaveOccurred())
		ns.Create(ctx, lab.Pod("volumes", forever,
			lab.Volume("scratch", "/scratch", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			lab.Volume("memory", "/memory", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumMemory, SizeLimit: ptr.To(resource.MustParse("8Mi"))}}),
			lab.Volume("settings", "/settings", corev1.VolumeSource{ConfigMap: &corev1.ConfigMapVolumeSource{LocalObjectReference: corev1.LocalObjectReference{Name: "settings"}}}),
			lab.Volume("login", "/login", corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: "login", DefaultMode: ptr.To(int32(0o444))}}),
			lab.Volume("host", "/host", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/usr/share", Type: ptr.To(corev1.HostPathDirectory)}}),
			lab.Volume("all", "/all", corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{
				{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}}}}},
				{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "lab"}},
			}}}),
			lab.Change(func(p *corev1.Pod) { p.Labels = map[string]string{"tier": "gold"} }),
		))
		ns.Running(ctx, "volumes")
		read := func(file string) string {
			out, err := ns.Exec(ctx, "volumes", "cat", file)
			Expect(err).NotTo(HaveOccurred())
			return out
		}
		Expect(read("/settings/colour")).To(Equal("green"))
		Expect(read("/login/password")).To(Equal("swordfish"))
		Expect(read("/all/labels")).To(Equal(`tier="gold"`))
		Expect(strings.Split(read("/all/token"), ".")).To(HaveLen(3), "a token is a JWT")
		Expect(strings.Split(read("/var/run/secrets/kubernetes.io/serviceaccount/token"), ".")).To(HaveLen(3))
		_, err = ns.Exec(ctx, "volumes", "sh", "-c", "echo x > /scratch/f && echo y > /memory/f && ls /host")
		Expect(err).NotTo(HaveOccurred())
		_, err = ns.Exec(ctx, "volumes", "sh", "-c", "dd if=/dev/zero of=/memory/big bs=1M count=16")
		Expect(err).To(HaveOccurred(), "the memory volume is limited")
		Expect(read("/proc/mounts")).To(MatchRegexp(`(?m)^tmpfs /login tmpfs ro`), "secrets lie in memory, read-only")

		settings.Data["colour"] = "blue"
		_, err = core.ConfigMaps(ns.Name).Update(ctx, settings, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Eventually(read).WithArguments("/settings/colour").WithContext(ctx).Should(Equal("blue"))
	}, SpecTimeout(3*patience))

	It("runs init containers in order before the application", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("ordered", "cat /scratch/log",
			lab.Volume("scratch", "/scratch", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}),
			lab.Init("first", "echo first >> /scratch/log"),
			lab.Init("second", "echo second >> /scratch/log"),
		))
		Expect(ns.Succeeds(ctx, "ordered")).To(Equal("first\nsecond\n"))
		Expect(ns.Get(ctx, "ordered").Status.InitContainerStatuses).To(HaveLen(2))
	}, SpecTimeout(2*patience))

	It("is restarted by its policy, with a pause that grows", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("crashing", "echo run; exit 3", lab.RestartPolicy(corev1.RestartPolicyAlways)))
		Eventually(func(g Gomega) {
			p := ns.Get(ctx, "crashing")
			g.Expect(p.Status.ContainerStatuses).To(HaveLen(1))
			c := p.Status.ContainerStatuses[0]
			g.Expect(c.RestartCount).To(BeNumerically(">=", 1))
			g.Expect(c.LastTerminationState.Terminated).NotTo(BeNil())
			g.Expect(c.LastTerminationState.Terminated.ExitCode).To(Equal(int32(3)))
			g.Expect(c.State.Waiting).NotTo(BeNil())
			g.Expect(c.State.Waiting.Reason).To(Equal("CrashLoopBackOff"))
		}).WithContext(ctx).Should(Succeed())
		Expect(ns.Logs(ctx, "crashing", "--previous")).To(Equal("run\n"))
	}, SpecTimeout(2*patience))

	It("fails when its container does and may not restart", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("failing", "echo sorry > /dev/termination-log; exit 4", lab.Change(func(p *corev1.Pod) {
			p.Spec.SecurityContext = nil
		})))
		p := ns.Reaches(ctx, "failing", corev1.PodFailed)
		Expect(p.Status.ContainerStatuses[0].State.Terminated.ExitCode).To(Equal(int32(4)))
		Expect(p.Status.ContainerStatuses[0].State.Terminated.Message).To(Equal("sorry\n"))
	}, SpecTimeout(2*patience))

	It("is asked to end and given its grace before it is killed", func(ctx SpecContext) {
		dir := path.Join(lab.Data, ns.Name)
		ns.Create(ctx, lab.Pod("polite", "trap 'sleep 1; echo bye > /out/bye; exit 0' TERM; touch /out/up; while :; do sleep 0.1; done",
			lab.Volume("out", "/out", corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir, Type: ptr.To(corev1.HostPathDirectoryOrCreate)}}),
			lab.Change(func(p *corev1.Pod) { p.Spec.SecurityContext = nil }),
		))
		Eventually(dir + "/up").WithContext(ctx).Should(BeAnExistingFile())
		ns.Delete(ctx, "polite")
		ns.Gone(ctx, "polite")
		Expect(dir + "/bye").To(BeAnExistingFile())
	}, SpecTimeout(2*patience))

	It("takes no traffic before its readiness probe passes, and is restarted when its liveness probe fails", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("probed", "rm -f /tmp/ready; touch /tmp/alive; "+forever,
			lab.RestartPolicy(corev1.RestartPolicyAlways),
			lab.Change(func(p *corev1.Pod) {
				probe := func(file string) *corev1.Probe {
					return &corev1.Probe{PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1, ProbeHandler: corev1.ProbeHandler{
						Exec: &corev1.ExecAction{Command: []string{"test", "-e", file}},
					}}
				}
				p.Spec.Containers[0].ReadinessProbe, p.Spec.Containers[0].LivenessProbe = probe("/tmp/ready"), probe("/tmp/alive")
			}),
		))
		p := ns.Running(ctx, "probed")
		Expect(p.Status.ContainerStatuses[0].Ready).To(BeFalse())
		_, err := ns.Exec(ctx, "probed", "touch", "/tmp/ready")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() bool { return ns.Get(ctx, "probed").Status.ContainerStatuses[0].Ready }).WithContext(ctx).Should(BeTrue())
		_, err = ns.Exec(ctx, "probed", "rm", "/tmp/alive")
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() int32 { return ns.Get(ctx, "probed").Status.ContainerStatuses[0].RestartCount }).WithContext(ctx).Should(Equal(int32(1)))
	}, SpecTimeout(2*patience))

	It("survives a restart of the node's process, with no container restarted", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("steady", forever, lab.RestartPolicy(corev1.RestartPolicyAlways)))
		ns.Create(ctx, lab.Pod("leaving", forever, lab.RestartPolicy(corev1.RestartPolicyAlways)))
		before := ns.Running(ctx, "steady").Status.ContainerStatuses[0]
		leaving := ns.Running(ctx, "leaving")

		_, err := cluster.Cluster(ctx, "virtual-node", "stop", "--name", cluster.Name, "--node", lab.VirtualNode, "--signal", "KILL")
		Expect(err).NotTo(HaveOccurred())
		Expect(cluster.Client.CoreV1().Pods(ns.Name).Delete(ctx, "leaving", metav1.DeleteOptions{GracePeriodSeconds: ptr.To(int64(0))})).To(Succeed())
		_, err = cluster.Cluster(ctx, "virtual-node", "start", "--name", cluster.Name, "--node", lab.VirtualNode)
		Expect(err).NotTo(HaveOccurred())

		By("the pod that was deleted meanwhile is ended")
		Eventually(func() ([]int, error) { return lab.Processes(leaving.UID, "") }).WithContext(ctx).Should(BeEmpty())
		By("the other one runs on in the same container")
		var out string
		Eventually(func() (err error) {
			out, err = ns.Exec(ctx, "steady", "echo", "still", "here")
			return err
		}).WithContext(ctx).Should(Succeed())
		Expect(out).To(Equal("still here\n"))
		Consistently(func(g Gomega) {
			after := ns.Get(ctx, "steady").Status.ContainerStatuses[0]
			g.Expect(after.ContainerID).To(Equal(before.ContainerID))
			g.Expect(after.RestartCount).To(BeZero())
		}).WithContext(ctx).WithTimeout(3 * time.Second).Should(Succeed())
	}, SpecTimeout(3*patience))

	It("says why an image cannot be had, and starts when it can", func(ctx SpecContext) {
		ns.Create(ctx, lab.Pod("imageless", "echo hello", lab.Change(func(p *corev1.Pod) { p.Spec.Containers[0].Image = "nowhere/nothing:1" })))
		Eventually(func(g Gomega) {
			p := ns.Get(ctx, "imageless")
			g.Expect(p.Status.Phase).To(Equal(corev1.PodPending))
			g.Expect(p.Status.ContainerStatuses).To(HaveLen(1))
			g.Expect(p.Status.ContainerStatuses[0].State.Waiting.Reason).To(Or(Equal("ErrImagePull"), Equal("ImagePullBackOff")))
			g.Expect(ns.Events(ctx, "imageless")).To(ContainElement(ContainSubstring("nowhere/nothing:1")))
		}).WithContext(ctx).Should(Succeed())
		p := ns.Get(ctx, "imageless")
		p.Spec.Containers[0].Image = lab.Image
		_, err := cluster.Client.CoreV1().Pods(ns.Name).Update(ctx, p, metav1.UpdateOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(ns.Succeeds(ctx, "imageless")).To(Equal("hello\n"))
	}, SpecTimeout(2*patience))

	It("pulls a private image with the pod's secret, and not without", func(ctx SpecContext) {
		state, err := cluster.State()
		Expect(err).NotTo(HaveOccurred())
		registry := state.AuthRegistry
		image, tar := registry.Address+"/private/busybox:1", path.Join(GinkgoT().TempDir(), "private.tar")
		_, err = cluster.Cluster(ctx, "image", "build", "--name", image, "--tar", tar,
			"--file", "/bin/busybox:/bin/busybox:0755", "--link", "busybox:/bin/sh")
		Expect(err).NotTo(HaveOccurred())
		_, err = cluster.Cluster(ctx, "image", "push", "--name", cluster.Name, "--auth", tar)
		Expect(err).NotTo(HaveOccurred())

		private := lab.Change(func(p *corev1.Pod) { p.Spec.Containers[0].Image = image })
		ns.Create(ctx, lab.Pod("stranger", "echo in", private))
		Eventually(ns.Events).WithArguments(ctx, "stranger").WithContext(ctx).Should(ContainElement(ContainSubstring("Failed to pull image")))
		_, err = cluster.Kubectl(ctx, "create", "secret", "docker-registry", "-n", ns.Name, "pull",
			"--docker-server="+registry.Address, "--docker-username="+registry.Username, "--docker-password="+registry.Password)
		Expect(err).NotTo(HaveOccurred())
		ns.Create(ctx, lab.Pod("member", "echo in", private, lab.Change(func(p *corev1.Pod) {
			p.Spec.ImagePullSecrets = []corev1.LocalObjectReference{{Name: "pull"}}
		})))
		Expect(ns.Succeeds(ctx, "member")).To(Equal("in\n"))
	}, SpecTimeout(2*patience))
})
