package volume_test

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/volume"
)

// mounting replaces the only container's mounts.
func mounting(pod *corev1.Pod, mounts ...corev1.VolumeMount) (*corev1.Pod, *corev1.Container) {
	pod.Spec.Containers[0].VolumeMounts = mounts
	return pod, &pod.Spec.Containers[0]
}

var _ = Describe("The mounts of a container", func() {
	var n *node
	BeforeEach(func() {
		n = newNode()
		n.api.configMaps["conf"] = map[string]string{"a": "1"}
	})

	It("follow the volumeMounts in order", func(ctx SpecContext) {
		pod, c := mounting(podWith(emptyDir("data", ""), configMap("conf", nil), hostPath("host", "/srv", "")),
			corev1.VolumeMount{Name: "host", MountPath: "/host", MountPropagation: ptr(corev1.MountPropagationHostToContainer)},
			corev1.VolumeMount{Name: "data", MountPath: "relative/", ReadOnly: true},
			corev1.VolumeMount{Name: "conf", MountPath: "/conf"},
		)
		volumes := n.setUp(ctx, pod)
		Expect(n.Mounts(ctx, pod, c, volumes, nil)).To(Equal([]volume.Bind{
			{Volume: "host", HostPath: "/srv", ContainerPath: "/host", Propagation: corev1.MountPropagationHostToContainer},
			{Volume: "data", HostPath: volumes["data"].HostPath, ContainerPath: "/relative", ReadOnly: true, Propagation: corev1.MountPropagationNone},
			{Volume: "conf", HostPath: volumes["conf"].HostPath, ContainerPath: "/conf", ReadOnly: true, Propagation: corev1.MountPropagationNone},
		}))
	})

	It("need a volume and no block device", func(ctx SpecContext) {
		pod, c := mounting(podWith(), corev1.VolumeMount{Name: "none", MountPath: "/x"})
		_, err := n.Mounts(ctx, pod, c, n.setUp(ctx, pod), nil)
		Expect(err).To(MatchError(`cannot find volume "none" to mount into container "app"`))
		c.VolumeDevices = []corev1.VolumeDevice{{Name: "none"}}
		_, err = n.Mounts(ctx, pod, c, nil, nil)
		Expect(err).To(MatchError(volume.ErrUnsupported))
	})

	DescribeTable("are read-only as deep as the runtime can", func(ctx SpecContext, vm corev1.VolumeMount, runtime, want bool, failure string) {
		n := newNode(func(o *volume.Options) { o.RecursiveReadOnly = func(*corev1.Pod) bool { return runtime } })
		vm.Name, vm.MountPath = "data", "/data"
		pod, c := mounting(podWith(emptyDir("data", "")), vm)
		binds, err := n.Mounts(ctx, pod, c, n.setUp(ctx, pod), nil)
		if failure != "" {
			Expect(err).To(MatchError(ContainSubstring(failure)))
			return
		}
		Expect(err).NotTo(HaveOccurred())
		Expect(binds[0].RecursiveReadOnly).To(Equal(want))
	},
		Entry("not asked for", corev1.VolumeMount{ReadOnly: true}, true, false, ""),
		Entry("disabled", corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyDisabled)}, true, false, ""),
		Entry("if possible, and it is", corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyIfPossible)}, true, true, ""),
		Entry("if possible, but it is not", corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyIfPossible)}, false, false, ""),
		Entry("enabled", corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyEnabled)}, true, true, ""),
		Entry("enabled but impossible", corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyEnabled)}, false, false, "not supported by the runtime"),
		Entry("writable", corev1.VolumeMount{RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyEnabled)}, true, false, "but it is not read-only"),
		Entry("with propagation", corev1.VolumeMount{ReadOnly: true, RecursiveReadOnly: ptr(corev1.RecursiveReadOnlyEnabled), MountPropagation: ptr(corev1.MountPropagationHostToContainer)}, true, false, "not compatible with propagation"),
	)

	Context("with a subPath", func() {
		sub := func(ctx context.Context, vm corev1.VolumeMount, vars ...env.Var) (string, string, error) {
			vm.MountPath = "/mnt"
			pod, c := mounting(podWith(emptyDir("data", ""), configMap("conf", nil)), vm)
			volumes, err := n.SetUp(ctx, pod)
			if err != nil {
				return "", "", err
			}
			binds, err := n.Mounts(ctx, pod, c, volumes, vars)
			if err != nil {
				return "", volumes[vm.Name].HostPath, err
			}
			return binds[0].HostPath, volumes[vm.Name].HostPath, nil
		}

		It("binds a directory that is there, by expression too", func(ctx SpecContext) {
			_, dir, err := sub(ctx, corev1.VolumeMount{Name: "data", SubPath: "x"})
			Expect(err).NotTo(HaveOccurred())
			Expect(os.WriteFile(filepath.Join(dir, "x/file"), []byte("content"), 0o600)).To(Succeed())
			got, _, err := sub(ctx, corev1.VolumeMount{Name: "data", SubPathExpr: "$(DIR)"}, env.Var{Name: "DIR", Value: "x"})
			Expect(err).NotTo(HaveOccurred())
			Expect(got).To(Equal(filepath.Join(n.root, "pods/4f1c/volume-subpaths/data/app/0")))
			Expect(os.ReadFile(filepath.Join(got, "file"))).To(BeEquivalentTo("content"))
		})

		It("makes a directory as open as the volume", func(ctx SpecContext) {
			got, dir, err := sub(ctx, corev1.VolumeMount{Name: "data", SubPath: "deep/er"})
			Expect(err).NotTo(HaveOccurred())
			for _, d := range []string{got, filepath.Join(dir, "deep"), filepath.Join(dir, "deep/er")} {
				mode, _, _ := stat(d)
				Expect(mode).To(Equal(fs.ModeDir | 0o777))
			}
		})

		It("binds one file of a config map", func(ctx SpecContext) {
			got, _, err := sub(ctx, corev1.VolumeMount{Name: "conf", SubPath: "a"})
			Expect(err).NotTo(HaveOccurred())
			Expect(os.ReadFile(got)).To(BeEquivalentTo("1"))
			// As on every node, it is that version for the life of the container, and the next start sees the new one.
			n.api.configMaps["conf"] = map[string]string{"a": "2"}
			got, _, err = sub(ctx, corev1.VolumeMount{Name: "conf", SubPath: "a"})
			Expect(err).NotTo(HaveOccurred())
			Expect(os.ReadFile(got)).To(BeEquivalentTo("2"))
			Expect(mountpoint.Below(filepath.Join(n.root, "pods/4f1c/volume-subpaths"))).To(HaveLen(1))
		})

		It("changes its kind between starts", func(ctx SpecContext) {
			_, dir, err := sub(ctx, corev1.VolumeMount{Name: "data", SubPath: "x"})
			Expect(err).NotTo(HaveOccurred())
			Expect(os.Remove(filepath.Join(dir, "x"))).To(Succeed())
			Expect(os.WriteFile(filepath.Join(dir, "x"), []byte("a file"), 0o600)).To(Succeed())
			got, _, err := sub(ctx, corev1.VolumeMount{Name: "data", SubPath: "x"})
			Expect(err).NotTo(HaveOccurred())
			Expect(os.ReadFile(got)).To(BeEquivalentTo("a file"))
		})

		DescribeTable("never leaves the volume", func(ctx SpecContext, link, target, path string, want error) {
			_, dir, err := sub(ctx, corev1.VolumeMount{Name: "data", SubPath: "."})
			Expect(err).NotTo(HaveOccurred())
			if link != "" {
				Expect(os.Symlink(target, filepath.Join(dir, link))).To(Succeed())
			}
			before, err := os.ReadDir(n.root)
			Expect(err).NotTo(HaveOccurred())
			_, _, err = sub(ctx, corev1.VolumeMount{Name: "data", SubPath: path})
			Expect(errors.Is(err, want)).To(BeTrue(), "%v", err)
			Expect(os.ReadDir(n.root)).To(HaveLen(len(before)))
			Expect("/etc/new").NotTo(BeADirectory())
			Expect(filepath.Join(n.root, "pods/4f1c/volumes/kubernetes.io~empty-dir/new")).NotTo(BeADirectory())
		},
			Entry("absolute path", "", "", "/etc", volume.ErrEscape),
			Entry("backsteps", "", "", "a/../../x", volume.ErrEscape),
			Entry("absolute link", "l", "/etc", "l", volume.ErrEscape),
			Entry("absolute link on the way", "l", "/etc", "l/passwd", volume.ErrEscape),
			Entry("absolute link to make below", "l", "/etc", "l/new", volume.ErrEscape),
			Entry("relative link", "l", "..", "l/new", volume.ErrEscape),
			Entry("link to a process", "l", "/proc/self/root", "l", volume.ErrEscape),
			Entry("link within the volume", "l", ".", "l/made/here", nil),
			Entry("link to nothing", "l", "x/y", "l", fs.ErrNotExist),
			Entry("endless link", "l", "l", "l", unix.ELOOP),
		)

		It("cannot be raced out of the volume by a directory that becomes a link", func(ctx SpecContext) {
			pod, c := mounting(podWith(emptyDir("data", "")), corev1.VolumeMount{Name: "data", MountPath: "/mnt", SubPath: "a/b"})
			volumes := n.setUp(ctx, pod)
			dir := volumes["data"].HostPath
			outside := GinkgoT().TempDir()
			Expect(os.MkdirAll(filepath.Join(outside, "b"), 0o755)).To(Succeed())
			Expect(os.WriteFile(filepath.Join(outside, "b/secret"), nil, 0o600)).To(Succeed())
			Expect(os.MkdirAll(filepath.Join(dir, "real/b"), 0o755)).To(Succeed())
			Expect(os.Symlink(outside, filepath.Join(dir, "link"))).To(Succeed())
			Expect(os.Rename(filepath.Join(dir, "real"), filepath.Join(dir, "a"))).To(Succeed())
			stop := make(chan struct{})
			var attacker sync.WaitGroup
			attacker.Go(func() {
				for {
					select {
					case <-stop:
						return
					default:
						_ = unix.Renameat2(unix.AT_FDCWD, filepath.Join(dir, "a"), unix.AT_FDCWD, filepath.Join(dir, "link"), unix.RENAME_EXCHANGE)
					}
				}
			})
			escapes, binds := 0, 0
			for range 400 {
				got, err := n.Mounts(ctx, pod, c, volumes, nil)
				if errors.Is(err, volume.ErrEscape) {
					escapes++
					continue
				}
				Expect(err).NotTo(HaveOccurred())
				binds++
				Expect(filepath.Join(got[0].HostPath, "secret")).NotTo(BeAnExistingFile())
			}
			close(stop)
			attacker.Wait()
			Expect(escapes).NotTo(BeZero(), "the attack was never met")
			Expect(binds).NotTo(BeZero(), "the honest path was never met")
		})

		It("gives up on a file system that does not answer, and closes what comes too late", func(ctx SpecContext) {
			n := newNode(func(o *volume.Options) { o.Deadline = 100 * time.Millisecond })
			dir, answer := hangingDirectory()
			pod, c := mounting(podWith(hostPath("fuse", dir, "")), corev1.VolumeMount{Name: "fuse", MountPath: "/mnt", SubPath: "x"})
			volumes := n.setUp(ctx, pod)
			begun := time.Now()
			for range 2 {
				_, err := n.Mounts(ctx, pod, c, volumes, nil)
				Expect(err).To(MatchError(volume.ErrStalled))
			}
			Expect(time.Since(begun)).To(BeNumerically("<", 5*time.Second))
			Expect(n.TearDown(ctx, pod.UID)).To(Succeed())
			answer()
		})
	})

	It("cannot be prepared for a pod that is gone", func(ctx SpecContext) {
		pod, c := mounting(podWith(emptyDir("data", "")), corev1.VolumeMount{Name: "data", MountPath: "/mnt", SubPath: "x"})
		volumes := n.setUp(ctx, pod)
		other := pod.DeepCopy()
		other.UID = types.UID("unknown")
		_, err := n.Mounts(ctx, other, c, volumes, nil)
		Expect(err).To(MatchError(volume.ErrTornDown))
	})
})

var _ = Describe("A file for the environment", func() {
	It("is read from a volume of the node's own, if it is a regular file", func(ctx SpecContext) {
		n := newNode()
		volumes := n.setUp(ctx, podWith(emptyDir("data", ""), hostPath("host", "/etc", "")))
		dir := volumes["data"].HostPath
		Expect(os.WriteFile(filepath.Join(dir, "env"), []byte("A='1'"), 0o600)).To(Succeed())
		Expect(unix.Mkfifo(filepath.Join(dir, "pipe"), 0o600)).To(Succeed())
		Expect(os.Symlink("/etc/passwd", filepath.Join(dir, "link"))).To(Succeed())
		f, err := n.OpenFile(ctx, volumes, "data", "env")
		Expect(err).NotTo(HaveOccurred())
		defer f.Close()
		Expect(io.ReadAll(f)).To(BeEquivalentTo("A='1'"))
		for path, want := range map[string]error{"pipe": volume.ErrUnsupported, ".": volume.ErrUnsupported, "link": volume.ErrEscape, "none": fs.ErrNotExist} {
			_, err := n.OpenFile(ctx, volumes, "data", path)
			Expect(errors.Is(err, want)).To(BeTrue(), "%s: %v", path, err)
		}
		_, err = n.OpenFile(ctx, volumes, "host", "passwd")
		Expect(err).To(MatchError(volume.ErrUnsupported))
		_, err = n.OpenFile(ctx, volumes, "none", "x")
		Expect(err).To(MatchError(ContainSubstring("cannot find")))
	})
})
