package e2e

import (
	"context"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// mistake is a volume that somebody described wrongly.
type mistake struct {
	// make spoils the description before anything is created.
	make func(f *lab.FileSystem)
	// says is what an Event on the pod must say: the object, the field, the cure.
	says []string
	// mend repairs it as a user would; nil where only a new PV can (a PV's source is immutable).
	mend func(ctx context.Context, f *lab.FileSystem) error
}

var _ = Describe("A mistake in a volume", func() {
	var ns namespace
	BeforeEach(func(ctx SpecContext) { ns = newSpace(ctx) }, NodeTimeout(patience))

	DescribeTable("keeps the pod Pending, is told in an Event, and is forgiven",
		func(ctx SpecContext, m mistake) {
			f, err := lab.JuiceFS(ns.Name, "data")
			Expect(err).NotTo(HaveOccurred())
			good := *f
			good.PV, good.PVC, good.Secret = f.PV.DeepCopy(), f.PVC.DeepCopy(), f.Secret.DeepCopy()
			m.make(f)
			Expect(f.Create(ctx, cluster)).To(Succeed())
			ns.Create(ctx, lab.Pod("app", "echo served > /data/f && cat /data/f", lab.Claim("data"), lab.Change(func(p *corev1.Pod) {
				// The scheduler holds a pod back whose claim is missing or unbound; to see what the node says, it is passed over.
				p.Spec.NodeName = lab.VirtualNode
			})))
			Eventually(func(g Gomega) {
				for _, part := range m.says {
					g.Expect(ns.Events(ctx, "app")).To(ContainElement(ContainSubstring(part)))
				}
			}).WithContext(ctx).Should(Succeed())
			Expect(ns.Get(ctx, "app").Status.Phase).To(Equal(corev1.PodPending))
			for _, e := range ns.Events(ctx, "app") {
				Expect(e).NotTo(ContainSubstring("hunter2"), "no event shows a secret")
			}
			if m.mend == nil {
				ns.Delete(ctx, "app")
				ns.Gone(ctx, "app")
				return
			}
			Expect(m.mend(ctx, &good)).To(Succeed())
			Expect(ns.Succeeds(ctx, "app")).To(Equal("served\n"))
		},
		Entry("no claim", mistake{
			make: func(f *lab.FileSystem) { f.PVC = nil },
			says: []string{"PersistentVolumeClaim", "data", "not found"},
			mend: func(ctx context.Context, good *lab.FileSystem) error {
				_, err := cluster.Client.CoreV1().PersistentVolumeClaims(good.PVC.Namespace).Create(ctx, good.PVC, metav1.CreateOptions{})
				return err
			},
		}, SpecTimeout(2*patience)),
		Entry("a claim that is not bound", mistake{
			make: func(f *lab.FileSystem) { f.PV = nil },
			says: []string{"PersistentVolumeClaim", "not bound"},
			mend: func(ctx context.Context, good *lab.FileSystem) error {
				_, err := cluster.Client.CoreV1().PersistentVolumes().Create(ctx, good.PV, metav1.CreateOptions{})
				return err
			},
		}, SpecTimeout(2*patience)),
		Entry("another driver's volume", mistake{
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.Driver = "ebs.csi.aws.com" },
			says: []string{"ebs.csi.aws.com", lab.Driver},
		}, SpecTimeout(2*patience)),
		Entry("no Secret", mistake{
			make: func(f *lab.FileSystem) { f.Secret = nil },
			says: []string{"Secret", "not found"},
			mend: createSecret,
		}, SpecTimeout(2*patience)),
		Entry("a Secret without metaurl", mistake{
			make: func(f *lab.FileSystem) { delete(f.Secret.StringData, "metaurl") },
			says: []string{"Secret", "metaurl"},
			mend: replaceSecret,
		}, SpecTimeout(2*patience)),
		Entry("a metaurl that is none", mistake{
			make: func(f *lab.FileSystem) { f.Secret.StringData["metaurl"] = "nosuchengine://user:hunter2@host/1" },
			says: []string{"metaurl"},
			mend: replaceSecret,
		}, SpecTimeout(2*patience)),
		Entry("a metadata engine that does not answer", mistake{
			make: func(f *lab.FileSystem) { f.Secret.StringData["metaurl"] = "redis://:hunter2@127.0.0.1:1/1" },
			says: []string{"127.0.0.1:1"},
			mend: replaceSecret,
		}, SpecTimeout(2*patience)),
		Entry("an unknown client", mistake{
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["sidemount.io/client"] = "floppy" },
			says: []string{"floppy", "juicefs"},
		}, SpecTimeout(2*patience)),
		Entry("an unknown mount option", mistake{
			make: func(f *lab.FileSystem) { f.PV.Spec.MountOptions = []string{"cache-sise=100"} },
			says: []string{"cache-sise", "cache-size"},
			mend: func(ctx context.Context, good *lab.FileSystem) error {
				pv, err := cluster.Client.CoreV1().PersistentVolumes().Get(ctx, good.PV.Name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				pv.Spec.MountOptions = []string{"cache-size=100"}
				_, err = cluster.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
				return err
			},
		}, SpecTimeout(2*patience)),
		Entry("a client image that cannot be pulled", mistake{
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-image"] = "nowhere/client:1" },
			says: []string{"nowhere/client:1"},
		}, SpecTimeout(2*patience)),
		Entry("a client that ends at once", mistake{
			// busybox has no client: the agent finds nothing to start.
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-image"] = lab.Image },
			says: []string{"sidemount-juicefs"},
		}, SpecTimeout(2*patience)),
		Entry("a resource that is no quantity", mistake{
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-cpu-limit"] = "two" },
			says: []string{"juicefs/mount-cpu-limit", "two"},
		}, SpecTimeout(2*patience)),
	)

	It("is told when a client never becomes ready", func(ctx SpecContext) {
		f, err := lab.JuiceFS(ns.Name, "data")
		Expect(err).NotTo(HaveOccurred())
		By("a metadata engine accepts the connection and never says a word")
		ns.Create(ctx, lab.Pod("silent", "sleep 600 | nc -l -p 6379 > /dev/null; "+forever))
		engine := ns.Running(ctx, "silent").Status.PodIP + ":6379"
		f.Secret.StringData["metaurl"] = "redis://" + engine + "/1"
		Expect(f.Create(ctx, cluster)).To(Succeed())
		ns.Create(ctx, lab.Pod("app", "true", lab.Claim("data")))
		Eventually(ns.Events).WithArguments(ctx, "app").WithContext(ctx).Should(ContainElement(ContainSubstring(engine)))
		Expect(ns.Get(ctx, "app").Status.Phase).To(Equal(corev1.PodPending))
		began := time.Now()
		ns.Delete(ctx, "app")
		ns.Gone(ctx, "app")
		Expect(time.Since(began)).To(BeNumerically("<", patience))
	}, SpecTimeout(3*patience))
})

func createSecret(ctx context.Context, good *lab.FileSystem) error {
	_, err := cluster.Client.CoreV1().Secrets(good.Secret.Namespace).Create(ctx, good.Secret, metav1.CreateOptions{})
	return err
}

func replaceSecret(ctx context.Context, good *lab.FileSystem) error {
	_, err := cluster.Client.CoreV1().Secrets(good.Secret.Namespace).Update(ctx, good.Secret, metav1.UpdateOptions{})
	return err
}
