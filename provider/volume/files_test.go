package volume_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/object"
	"github.com/sidemount/sidemount/provider/volume"
)

var _ = Describe("Volumes of files", func() {
	var n *node
	BeforeEach(func() {
		n = newNode()
		n.api.configMaps["conf"] = map[string]string{"a": "1", "b": "2"}
		n.api.secrets["creds"] = map[string][]byte{"user": []byte("ann"), "key": []byte("s3")}
	})

	It("shows a config map with its binary data", func(ctx SpecContext) {
		mount := n.setUp(ctx, podWith(configMap("conf", nil)))["conf"]
		Expect(mount.ReadOnly).To(BeTrue())
		Expect(mount.HostPath).To(Equal(filepath.Join(n.root, "pods/4f1c/volumes/kubernetes.io~configmap/conf")))
		Expect(read(mount.HostPath)).To(Equal(map[string]string{"a": "644 1", "b": "644 2", "binary": "644 \xff\x00"}))
	})

	It("shows a config map with mappings and item mode set", func(ctx SpecContext) {
		v := configMap("conf", func(s *corev1.ConfigMapVolumeSource) {
			s.DefaultMode = ptr(int32(0o440))
			s.Items = []corev1.KeyToPath{{Key: "a", Path: "deep/path/a"}, {Key: "b", Path: "b", Mode: ptr(int32(0o400))}}
		})
		Expect(read(n.setUp(ctx, podWith(v))["conf"].HostPath)).To(Equal(map[string]string{"deep/path/a": "440 1", "b": "400 2"}))
	})

	It("shows a secret from memory that swaps nothing and runs no setuid program", func(ctx SpecContext) {
		dir := n.setUp(ctx, podWith(secret("creds", func(s *corev1.SecretVolumeSource) { s.DefaultMode = ptr(int32(0o400)) })))["creds"].HostPath
		Expect(read(dir)).To(Equal(map[string]string{"user": "400 ann", "key": "400 s3"}))
		var st unix.Statfs_t
		Expect(unix.Statfs(dir, &st)).To(Succeed())
		Expect(st.Type).To(BeEquivalentTo(unix.TMPFS_MAGIC))
		Expect(st.Flags & unix.ST_NOSUID).NotTo(BeZero())
		Expect(int64(st.Blocks) * st.Bsize).To(BeEquivalentTo(1 << 30))
	})

	DescribeTable("names what is missing", func(ctx SpecContext, v corev1.Volume, text string) {
		_, err := n.SetUp(ctx, podWith(v))
		Expect(err).To(MatchError(text))
		var failed *volume.Error
		Expect(errors.As(err, &failed)).To(BeTrue())
		Expect(failed.Volume).To(Equal(v.Name))
	},
		Entry("config map", configMap("no", nil), `MountVolume.SetUp failed for volume "no" : configmap "no" not found`),
		Entry("secret", secret("no", nil), `MountVolume.SetUp failed for volume "no" : secret "no" not found`),
		Entry("key of a config map", configMap("conf", func(s *corev1.ConfigMapVolumeSource) { s.Items = []corev1.KeyToPath{{Key: "k", Path: "p"}} }),
			`MountVolume.SetUp failed for volume "conf" : configmap references non-existent config key: k`),
		Entry("key of a secret", secret("creds", func(s *corev1.SecretVolumeSource) { s.Items = []corev1.KeyToPath{{Key: "k", Path: "p"}} }),
			`MountVolume.SetUp failed for volume "creds" : references non-existent secret key: k`),
		Entry("two sources of one volume", projected("p",
			corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "x"}}},
			corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "y"}}}),
			"MountVolume.SetUp failed for volume \"p\" : secret \"x\" not found\nconfigmap \"y\" not found"),
		Entry("path that leaves the volume", configMap("conf", func(s *corev1.ConfigMapVolumeSource) { s.Items = []corev1.KeyToPath{{Key: "a", Path: "../../x"}} }),
			`MountVolume.SetUp failed for volume "conf" : write: "../../x": invalid path`),
	)

	It("types a missing object, so that an event can name it", func(ctx SpecContext) {
		_, err := n.SetUp(ctx, podWith(secret("no", nil)))
		var missing *env.MissingError
		Expect(errors.As(err, &missing)).To(BeTrue())
		Expect(missing.Kind + "/" + missing.Name).To(Equal("Secret/no"))
		Expect(apierrors.IsNotFound(err)).To(BeTrue())
	})

	It("starts with optional objects and keys missing, and reflects their optional updates", func(ctx SpecContext) {
		n.run()
		pod := podWith(
			configMap("later", func(s *corev1.ConfigMapVolumeSource) { s.Optional = ptr(true) }),
			configMap("conf", func(s *corev1.ConfigMapVolumeSource) {
				s.Optional, s.Items = ptr(true), []corev1.KeyToPath{{Key: "a", Path: "a"}, {Key: "none", Path: "none"}}
			}),
			secret("creds", func(s *corev1.SecretVolumeSource) { s.Optional = ptr(true) }),
		)
		mounts := n.setUp(ctx, pod)
		Expect(read(mounts["later"].HostPath)).To(BeEmpty())
		Expect(read(mounts["conf"].HostPath)).To(Equal(map[string]string{"a": "644 1"}))
		n.api.change(func() {
			n.api.configMaps["later"] = map[string]string{"new": "x"}
			n.api.configMaps["conf"] = map[string]string{"none": "now"}
			delete(n.api.secrets, "creds")
		})
		Eventually(look).WithArguments(mounts["later"].HostPath).Should(HaveKeyWithValue("new", "644 x"))
		Eventually(look).WithArguments(mounts["conf"].HostPath).Should(Equal(map[string]string{"none": "644 now"}))
		Eventually(look).WithArguments(mounts["creds"].HostPath).Should(BeEmpty())
	})

	It("keeps what it shows when a mandatory object vanishes, says so, and recovers by itself", func(ctx SpecContext) {
		n.run()
		dir := n.setUp(ctx, podWith(secret("creds", nil)))["creds"].HostPath
		n.api.change(func() { delete(n.api.secrets, "creds") })
		Eventually(n.failed).Should(Receive(MatchError(ContainSubstring(`secret "creds" not found`))))
		Expect(read(dir)).To(HaveKeyWithValue("user", "644 ann"))
		n.api.change(func() { n.api.secrets["creds"] = map[string][]byte{"user": []byte("bob")} })
		Eventually(look).WithArguments(dir).Should(Equal(map[string]string{"user": "644 bob"}))
	})

	It("should update labels and annotations on modification", func(ctx SpecContext) {
		v := corev1.Volume{Name: "info", VolumeSource: corev1.VolumeSource{DownwardAPI: &corev1.DownwardAPIVolumeSource{Items: []corev1.DownwardAPIVolumeFile{
			{Path: "labels", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.labels"}},
			{Path: "one", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.annotations['a']"}, Mode: ptr(int32(0o400))},
			{Path: "cpu", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.cpu", Divisor: resource.MustParse("1m")}},
			{Path: "mem", ResourceFieldRef: &corev1.ResourceFieldSelector{ContainerName: "app", Resource: "limits.memory"}},
		}}}}
		pod := podWith(v)
		pod.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"cpu": resource.MustParse("1250m")}
		dir := n.setUp(ctx, pod)["info"].HostPath
		Expect(read(dir)).To(Equal(map[string]string{"labels": `644 app="x"`, "one": "400 ", "cpu": "644 1250", "mem": "644 1073741824"}))
		changed := pod.DeepCopy()
		changed.Labels["app"], changed.Annotations = "y", map[string]string{"a": "b"}
		Expect(n.Refresh(ctx, changed)).To(Succeed())
		Expect(read(dir)).To(HaveKeyWithValue("labels", `644 app="y"`))
		Expect(read(dir)).To(HaveKeyWithValue("one", "400 b"))
	})

	Context("with a projected volume", func() {
		token := corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token", Audience: "aud", ExpirationSeconds: ptr(int64(3607))}}

		It("lays all sources over each other", func(ctx SpecContext) {
			v := projected("all", token,
				corev1.VolumeProjection{ConfigMap: &corev1.ConfigMapProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "conf"}, Items: []corev1.KeyToPath{{Key: "a", Path: "x/a"}}}},
				corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: corev1.LocalObjectReference{Name: "creds"}, Items: []corev1.KeyToPath{{Key: "key", Path: "x/key", Mode: ptr(int32(0o400))}}}},
				corev1.VolumeProjection{DownwardAPI: &corev1.DownwardAPIProjection{Items: []corev1.DownwardAPIVolumeFile{{Path: "ns", FieldRef: &corev1.ObjectFieldSelector{FieldPath: "metadata.namespace"}}}}},
			)
			Expect(read(n.setUp(ctx, podWith(v))["all"].HostPath)).To(Equal(map[string]string{
				"token": "644 4f1c/aud/3607/1", "x/a": "644 1", "x/key": "400 s3", "ns": "644 ns"}))
		})

		DescribeTable("gives the token to whom it is for", func(ctx SpecContext, change func(*corev1.Pod), mode fs.FileMode, uid, gid int) {
			pod := podWith(projected("all", token))
			change(pod)
			file := filepath.Join(n.setUp(ctx, pod)["all"].HostPath, "token")
			gotMode, gotUID, gotGID := stat(file)
			Expect([]any{gotMode, gotUID, gotGID}).To(Equal([]any{mode, uint32(uid), uint32(gid)}))
		},
			Entry("nobody in particular", func(*corev1.Pod) {}, fs.FileMode(0o644), 0, 0),
			Entry("the user of the pod", func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000))}
			}, fs.FileMode(0o600), 1000, 0),
			Entry("the group of the pod's volumes", func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(2000))}
			}, fs.FileMode(0o640), 0, 2000),
			Entry("user and group", func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000)), FSGroup: ptr(int64(2000))}
			}, fs.FileMode(0o640), 1000, 2000),
			Entry("containers of different users", func(p *corev1.Pod) {
				other := *p.Spec.Containers[0].DeepCopy()
				other.Name, other.SecurityContext = "other", &corev1.SecurityContext{RunAsUser: ptr(int64(1))}
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000))}
				p.Spec.Containers = append(p.Spec.Containers, other)
			}, fs.FileMode(0o644), 0, 0),
			Entry("the user of the pod beside a sidecar that does not mount it", func(p *corev1.Pod) {
				p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr(int64(1000))}
				p.Spec.InitContainers = []corev1.Container{{Name: "sidemount-x", SecurityContext: &corev1.SecurityContext{RunAsUser: ptr(int64(65534))}}}
			}, fs.FileMode(0o600), 1000, 0),
		)

		It("renews the token before it expires", func(ctx SpecContext) {
			n.run()
			n.api.life = 10 * time.Millisecond // the manager waits a second at least
			file := filepath.Join(n.setUp(ctx, podWith(projected("all", token)))["all"].HostPath, "token")
			Expect(os.ReadFile(file)).To(BeEquivalentTo("4f1c/aud/3607/1"))
			Eventually(func() ([]byte, error) { return os.ReadFile(file) }).Should(BeEquivalentTo("4f1c/aud/3607/2"))
		})

		It("keeps the old token while a new one cannot be had", func(ctx SpecContext) {
			n.run()
			n.api.life = 10 * time.Millisecond
			file := filepath.Join(n.setUp(ctx, podWith(projected("all", token)))["all"].HostPath, "token")
			n.api.change(func() { n.api.tokenErr = object.ErrBound })
			Eventually(n.failed).Should(Receive(MatchError(object.ErrBound)))
			Expect(os.ReadFile(file)).To(BeEquivalentTo("4f1c/aud/3607/1"))
			n.api.change(func() { n.api.tokenErr = nil })
			Eventually(func() ([]byte, error) { return os.ReadFile(file) }).Should(BeEquivalentTo("4f1c/aud/3607/2"))
		})

		It("refuses sources that need a driver", func(ctx SpecContext) {
			_, err := n.SetUp(ctx, podWith(projected("all", corev1.VolumeProjection{PodCertificate: &corev1.PodCertificateProjection{}})))
			Expect(err).To(MatchError(volume.ErrUnsupported))
			_, err = n.SetUp(ctx, podWith(projected("all", corev1.VolumeProjection{ClusterTrustBundle: &corev1.ClusterTrustBundleProjection{}})))
			Expect(err).To(MatchError(volume.ErrUnsupported))
		})
	})

	It("makes the mount points of volumes that are mounted inside", func(ctx SpecContext) {
		pod := podWith(secret("creds", nil), configMap("conf", nil), emptyDir("scratch", ""))
		pod.Spec.Containers[0].VolumeMounts = []corev1.VolumeMount{
			{Name: "creds", MountPath: "/etc/app"}, {Name: "conf", MountPath: "/etc/app/conf.d"}, {Name: "scratch", MountPath: "/etc/app/a/b"}, {Name: "scratch", MountPath: "/etc/apple"},
		}
		dir := n.setUp(ctx, pod)["creds"].HostPath
		for _, d := range []string{"conf.d", "a/b"} {
			Expect(filepath.Join(dir, d)).To(BeADirectory())
		}
		Expect(filepath.Join(dir, "user")).To(BeAnExistingFile())
		// The content changes around them.
		n.api.secrets["creds"] = map[string][]byte{"new": nil}
		n.setUp(ctx, pod)
		Expect(filepath.Join(dir, "conf.d")).To(BeADirectory())
		Expect(filepath.Join(dir, "new")).To(BeAnExistingFile())
		Expect(filepath.Join(dir, "user")).NotTo(BeAnExistingFile())
	})

	It("does not touch the disk for what has not changed, and takes up what a predecessor has left", func(ctx SpecContext) {
		pod := podWith(configMap("conf", nil), secret("creds", nil))
		mounts := n.setUp(ctx, pod)
		version, err := os.Readlink(filepath.Join(mounts["creds"].HostPath, "..data"))
		Expect(err).NotTo(HaveOccurred())
		again, err := volume.New(volume.Options{Root: n.root, Objects: n.api, Tokens: n.api})
		Expect(err).NotTo(HaveOccurred())
		Expect(again.SetUp(ctx, pod)).To(Equal(mounts))
		Expect(os.Readlink(filepath.Join(mounts["creds"].HostPath, "..data"))).To(Equal(version))
		n.api.secrets["creds"]["user"] = []byte("bob")
		Expect(again.Refresh(ctx, pod)).To(Succeed())
		Expect(read(mounts["creds"].HostPath)).To(HaveKeyWithValue("user", "644 bob"))
	})
})
