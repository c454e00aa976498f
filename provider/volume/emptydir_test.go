package volume_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/provider/volume"
)

var _ = Describe("An emptyDir", func() {
	var n *node
	BeforeEach(func() {
		n = newNode()
		old := syscall.Umask(0o077)
		DeferCleanup(func() { syscall.Umask(old) })
	})

	It("is writable for everybody, on disk or in memory", func(ctx SpecContext) {
		mounts := n.setUp(ctx, podWith(emptyDir("disk", ""), emptyDir("memory", corev1.StorageMediumMemory)))
		mode, _, gid := stat(mounts["disk"].HostPath)
		Expect(mode).To(Equal(fs.ModeDir | 0o777))
		Expect(gid).To(BeZero())
		mode, _, _ = stat(mounts["memory"].HostPath)
		Expect(mode).To(Equal(fs.ModeDir | fs.ModeSticky | 0o777))
		for _, m := range mounts {
			Expect(m.ReadOnly || m.Foreign).To(BeFalse())
		}
	})

	It("belongs to the fsGroup and hands it down", func(ctx SpecContext) {
		pod := podWith(emptyDir("disk", ""), emptyDir("memory", corev1.StorageMediumMemory))
		pod.Spec.SecurityContext = &corev1.PodSecurityContext{FSGroup: ptr(int64(2000))}
		for _, m := range n.setUp(ctx, pod) {
			mode, uid, gid := stat(m.HostPath)
			Expect(mode &^ fs.ModeSticky).To(Equal(fs.ModeDir | fs.ModeSetgid | 0o777))
			Expect([]uint32{uid, gid}).To(Equal([]uint32{0, 2000}))
			Expect(os.WriteFile(filepath.Join(m.HostPath, "f"), nil, 0o600)).To(Succeed())
			_, _, gid = stat(filepath.Join(m.HostPath, "f"))
			Expect(gid).To(BeEquivalentTo(2000))
		}
	})

	It("keeps what containers did to it", func(ctx SpecContext) {
		pod := podWith(emptyDir("disk", ""), emptyDir("memory", corev1.StorageMediumMemory))
		mounts := n.setUp(ctx, pod)
		for _, m := range mounts {
			Expect(os.WriteFile(filepath.Join(m.HostPath, "f"), []byte("kept"), 0o600)).To(Succeed())
			Expect(os.Chmod(m.HostPath, 0o700)).To(Succeed())
		}
		again, err := volume.New(volume.Options{Root: n.root, Objects: n.api, Tokens: n.api})
		Expect(err).NotTo(HaveOccurred())
		Expect(again.SetUp(ctx, pod)).To(Equal(mounts))
		for _, m := range mounts {
			Expect(os.ReadFile(filepath.Join(m.HostPath, "f"))).To(BeEquivalentTo("kept"))
			mode, _, _ := stat(m.HostPath)
			Expect(mode.Perm()).To(Equal(fs.FileMode(0o700)))
		}
	})

	It("is measured, and known to outgrow its limit", func(ctx SpecContext) {
		pod := podWith(emptyDir("disk", ""), emptyDir("memory", corev1.StorageMediumMemory), hostPath("host", "/etc", ""))
		pod.Spec.Volumes[0].EmptyDir.SizeLimit = ptr(resource.MustParse("1Mi"))
		Expect(n.Usage(ctx, pod)).To(BeEmpty())
		for _, m := range n.setUp(ctx, pod) {
			if !m.Foreign {
				Expect(os.WriteFile(filepath.Join(m.HostPath, "f"), make([]byte, 2<<20), 0o600)).To(Succeed())
			}
		}
		usage, err := n.Usage(ctx, pod)
		Expect(err).NotTo(HaveOccurred())
		Expect(usage).To(HaveLen(2))
		for _, u := range usage {
			Expect(u.Bytes).To(BeNumerically("~", 2<<20, 1<<16))
			Expect(u.Inodes).To(BeNumerically(">=", 1))
		}
		Expect([]bool{usage[0].Memory, usage[0].Exceeded()}).To(Equal([]bool{false, true}))
		Expect([]bool{usage[1].Memory, usage[1].Exceeded()}).To(Equal([]bool{true, false}))
	})

	It("finishes one that a crash has left half made", func(ctx SpecContext) {
		dir := filepath.Join(n.root, "pods/4f1c/volumes/kubernetes.io~empty-dir/disk")
		Expect(os.MkdirAll(dir+".new", 0o700)).To(Succeed())
		mode, _, _ := stat(n.setUp(ctx, podWith(emptyDir("disk", "")))["disk"].HostPath)
		Expect(mode).To(Equal(fs.ModeDir | 0o777))
		Expect(dir + ".new").NotTo(BeADirectory())
	})

	DescribeTable("in memory is as large as the least limit", func(ctx SpecContext, change func(*corev1.Pod), want int64) {
		pod := podWith(emptyDir("memory", corev1.StorageMediumMemory))
		change(pod)
		var st unix.Statfs_t
		Expect(unix.Statfs(n.setUp(ctx, pod)["memory"].HostPath, &st)).To(Succeed())
		Expect(int64(st.Blocks) * st.Bsize).To(Equal(want))
	},
		Entry("of the node", func(*corev1.Pod) {}, int64(1<<30)),
		Entry("of the volume", func(p *corev1.Pod) { p.Spec.Volumes[0].EmptyDir.SizeLimit = ptr(resource.MustParse("8Mi")) }, int64(8<<20)),
		Entry("of the containers", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("64Mi")}
			p.Spec.Volumes[0].EmptyDir.SizeLimit = ptr(resource.MustParse("1Gi"))
		}, int64(64<<20)),
		Entry("of the node if one container has none", func(p *corev1.Pod) {
			p.Spec.Containers[0].Resources.Limits = corev1.ResourceList{"memory": resource.MustParse("64Mi")}
			p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: "other"})
		}, int64(1<<30)),
		Entry("of the pod", func(p *corev1.Pod) {
			p.Spec.Resources = &corev1.ResourceRequirements{Limits: corev1.ResourceList{"memory": resource.MustParse("32Mi")}}
		}, int64(32<<20)),
	)
})

var _ = Describe("A hostPath", func() {
	var n *node
	var dir string
	BeforeEach(func() {
		n = newNode()
		dir = GinkgoT().TempDir()
		Expect(os.WriteFile(filepath.Join(dir, "file"), nil, 0o600)).To(Succeed())
		Expect(os.Symlink("file", filepath.Join(dir, "link"))).To(Succeed())
		Expect(unix.Mknod(filepath.Join(dir, "char"), unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))).To(Succeed())
		Expect(unix.Mknod(filepath.Join(dir, "block"), unix.S_IFBLK|0o600, int(unix.Mkdev(7, 0)))).To(Succeed())
		socket, err := net.Listen("unix", filepath.Join(dir, "socket"))
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(socket.Close)
	})

	DescribeTable("is checked as its type demands", func(ctx SpecContext, name string, t corev1.HostPathType, failure string) {
		path := filepath.Join(dir, name)
		mounts, err := n.SetUp(ctx, podWith(hostPath("h", path, t)))
		if failure != "" {
			Expect(err).To(MatchError(ContainSubstring(failure)))
			return
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(mounts["h"]).To(Equal(volume.Mount{HostPath: path, Foreign: true}))
	},
		Entry("nothing, unset", "none", corev1.HostPathUnset, ""),
		Entry("a directory", "", corev1.HostPathDirectory, ""),
		Entry("no directory", "file", corev1.HostPathDirectory, "file is not a directory"),
		Entry("a missing directory", "none", corev1.HostPathDirectory, "none is not a directory"),
		Entry("a directory to make", "new/deep", corev1.HostPathDirectoryOrCreate, ""),
		Entry("a directory that cannot be made", "file", corev1.HostPathDirectoryOrCreate, "not a directory"),
		Entry("a file", "file", corev1.HostPathFile, ""),
		Entry("a file behind a link", "link", corev1.HostPathFile, ""),
		Entry("no file", "socket", corev1.HostPathFile, "socket is not a file"),
		Entry("a file to make", "newfile", corev1.HostPathFileOrCreate, ""),
		Entry("a file that is there", "file", corev1.HostPathFileOrCreate, ""),
		Entry("a directory in place of a file", "", corev1.HostPathFileOrCreate, "is not a file"),
		Entry("a file in a directory that is missing", "none/file", corev1.HostPathFileOrCreate, "no such file or directory"),
		Entry("a socket", "socket", corev1.HostPathSocket, ""),
		Entry("no socket", "file", corev1.HostPathSocket, "file is not a socket file"),
		Entry("a character device", "char", corev1.HostPathCharDev, ""),
		Entry("no character device", "block", corev1.HostPathCharDev, "block is not a character device"),
		Entry("a block device", "block", corev1.HostPathBlockDev, ""),
		Entry("no block device", "char", corev1.HostPathBlockDev, "char is not a block device"),
		Entry("an unknown type", "", corev1.HostPathType("Pipe"), "unsupported"),
	)
})

var _ = DescribeTable("A volume of another kind is refused with the reason", func(ctx SpecContext, source corev1.VolumeSource, text string) {
	n := newNode()
	_, err := n.SetUp(ctx, podWith(corev1.Volume{Name: "v", VolumeSource: source}))
	Expect(err).To(MatchError(volume.ErrUnsupported))
	Expect(err).To(MatchError(ContainSubstring(text)))
},
	Entry("PVC", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}, `PersistentVolumeClaim "data" is not bound to a volume that this node serves`),
	Entry("ephemeral", corev1.VolumeSource{Ephemeral: &corev1.EphemeralVolumeSource{}}, "ephemeral"),
	Entry("CSI", corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{Driver: "ebs.csi.aws.com"}}, `CSI driver "ebs.csi.aws.com"`),
	Entry("image", corev1.VolumeSource{Image: &corev1.ImageVolumeSource{}}, "image volumes"),
	Entry("git", corev1.VolumeSource{GitRepo: &corev1.GitRepoVolumeSource{}}, "gitRepo"),
	Entry("NFS", corev1.VolumeSource{NFS: &corev1.NFSVolumeSource{}}, "ordinary node"),
	Entry("huge pages", corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: corev1.StorageMediumHugePages}}, "HugePages"),
)
