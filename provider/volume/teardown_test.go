package volume_test

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/volume"
)

var _ = Describe("Tearing down", func() {
	var n *node
	var pod *corev1.Pod
	var c *corev1.Container
	BeforeEach(func() {
		n = newNode()
		n.api.secrets["creds"] = map[string][]byte{"k": nil}
		pod, c = mounting(podWith(emptyDir("data", ""), emptyDir("memory", corev1.StorageMediumMemory), secret("creds", nil)),
			corev1.VolumeMount{Name: "data", MountPath: "/d", SubPath: "sub"}, corev1.VolumeMount{Name: "memory", MountPath: "/m", SubPath: "sub"})
	})

	setUp := func(ctx context.Context) map[string]volume.Mount {
		GinkgoHelper()
		volumes := n.setUp(ctx, pod)
		_, err := n.Mounts(ctx, pod, c, volumes, nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(mountpoint.Below(n.root)).To(HaveLen(4))
		return volumes
	}

	It("leaves neither a mount nor a file nor a watch", func(ctx SpecContext) {
		setUp(ctx)
		Expect(n.api.acquired()).To(Equal(1))
		Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
		Expect(mountpoint.Below(n.root)).To(BeEmpty())
		Expect(os.ReadDir(filepath.Join(n.root, "pods"))).To(BeEmpty())
		Expect(n.api.acquired()).To(BeZero())
		By("being called again, and for a pod that never was")
		Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
		Expect(n.TearDown(ctx, "never")).To(Succeed())
	})

	It("cleans up after a predecessor that has died", func(ctx SpecContext) {
		setUp(ctx)
		again, err := volume.New(volume.Options{Root: n.root, Objects: n.api, Tokens: n.api})
		Expect(err).NotTo(HaveOccurred())
		Expect(again.TearDown(ctx, pod.UID)).To(Succeed())
		Expect(mountpoint.Below(n.root)).To(BeEmpty())
	})

	DescribeTable("with a live mount inside keeps the data and errs", func(ctx SpecContext, at string) {
		volumes := setUp(ctx)
		target := filepath.Join(n.PodDir(pod.UID), at)
		Expect(os.MkdirAll(target, 0o755)).To(Succeed())
		Expect(mountpoint.Tmpfs{Mode: 0o755}.Mount(target)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(target, "precious"), nil, 0o600)).To(Succeed())
		Expect(os.WriteFile(filepath.Join(volumes["data"].HostPath, "file"), nil, 0o600)).To(Succeed())
		err := n.TearDown(ctx, pod.UID)
		Expect(err).To(MatchError(volume.ErrMounted))
		Expect(err).To(MatchError(ContainSubstring(target)))
		Expect(filepath.Join(target, "precious")).To(BeAnExistingFile())
		Expect(filepath.Join(volumes["data"].HostPath, "file")).To(BeAnExistingFile())
		By("refusing new mounts meanwhile")
		_, err = n.SetUp(ctx, pod)
		Expect(err).To(MatchError(volume.ErrTornDown))
		_, err = n.Mounts(ctx, pod, c, volumes, nil)
		Expect(err).To(MatchError(volume.ErrTornDown))
		By("succeeding once it is gone")
		Expect(mountpoint.Detach(target)).To(Succeed())
		Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
		Expect(os.ReadDir(filepath.Join(n.root, "pods"))).To(BeEmpty())
	},
		Entry("of a session", "volumes/sidemount.io~fuse/vol"),
		Entry("in an emptyDir on disk", "volumes/kubernetes.io~empty-dir/data/inner"),
		Entry("in an emptyDir in memory", "volumes/kubernetes.io~empty-dir/memory/inner"),
		Entry("elsewhere", "containers/app"),
	)

	It("does not wait for a file system that does not answer", func(ctx SpecContext) {
		dir, answer := hangingDirectory()
		defer answer()
		setUp(ctx)
		target := filepath.Join(n.PodDir(pod.UID), "volumes/sidemount.io~fuse/vol")
		bindOn(dir, target)
		Expect(n.TearDown(ctx, pod.UID)).To(MatchError(volume.ErrMounted))
		Expect(mountpoint.Detach(target)).To(Succeed())
		Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
	})

	It("lets go of foreign file systems before their sessions end", func(ctx SpecContext) {
		foreign := GinkgoT().TempDir()
		pod, c := mounting(podWith(hostPath("fuse", foreign, "")), corev1.VolumeMount{Name: "fuse", MountPath: "/m", SubPath: "sub"})
		_, err := n.Mounts(ctx, pod, c, n.setUp(ctx, pod), nil)
		Expect(err).NotTo(HaveOccurred())
		Expect(mountpoint.Below(n.root)).To(HaveLen(1))
		Expect(n.Unbind(ctx, pod.UID)).To(Succeed())
		Expect(mountpoint.Below(n.root)).To(BeEmpty())
		Expect(filepath.Join(foreign, "sub")).To(BeADirectory())
		Expect(n.Unbind(ctx, "never")).To(Succeed())
		Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
		Expect(filepath.Join(foreign, "sub")).To(BeADirectory())
	})

	It("is safe beside set-ups, refreshes and mounts of the same pod", func(ctx SpecContext) {
		n.run()
		for range 10 {
			var all sync.WaitGroup
			for range 3 {
				all.Go(func() {
					if volumes, err := n.SetUp(ctx, pod); err == nil {
						_, _ = n.Mounts(ctx, pod, c, volumes, nil)
					}
				})
			}
			all.Go(func() { n.api.change(func() {}) })
			all.Go(func() { _ = n.TearDown(ctx, pod.UID) })
			all.Wait()
		}
		Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
		Expect(mountpoint.Below(n.root)).To(BeEmpty())
		Expect(os.ReadDir(filepath.Join(n.root, "pods"))).To(BeEmpty())
	})

	DescribeTable("refuses a UID that is a path", func(ctx SpecContext, uid string) {
		Expect(n.TearDown(ctx, types.UID(uid))).To(MatchError(volume.ErrUnsupported))
		Expect(n.Unbind(ctx, types.UID(uid))).To(MatchError(volume.ErrUnsupported))
		pod.UID = types.UID(uid)
		_, err := n.SetUp(ctx, pod)
		Expect(err).To(MatchError(volume.ErrUnsupported))
	}, Entry("parent", ".."), Entry("nothing", ""), Entry("itself", "."), Entry("elsewhere", "../../etc"))
})
