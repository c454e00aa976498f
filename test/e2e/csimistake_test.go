package e2e

import (
	"context"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
)

// csiMistakes are made on ordinary nodes as well; there the kubelet writes the Event and repeats the call.
func csiMistakes() map[string]mistake {
	return map[string]mistake{
		"no-secret": {
			make: func(f *lab.FileSystem) { f.Secret = nil },
			says: []string{"no-secret", "not found"},
			mend: createSecret,
		},
		"no-metaurl": {
			make: func(f *lab.FileSystem) { delete(f.Secret.StringData, "metaurl") },
			says: []string{"Secret", "metaurl"},
			mend: replaceSecret,
		},
		"no-engine": {
			make: func(f *lab.FileSystem) { f.Secret.StringData["metaurl"] = "redis://:hunter2@127.0.0.1:1/1" },
			says: []string{"127.0.0.1:1"},
			mend: replaceSecret,
		},
		"option": {
			make: func(f *lab.FileSystem) { f.PV.Spec.MountOptions = append(f.PV.Spec.MountOptions, "cache-sise=100") },
			says: []string{"cache-sise", "cache-size"},
			mend: func(ctx context.Context, good *lab.FileSystem) error {
				pv, err := cluster.Client.CoreV1().PersistentVolumes().Get(ctx, good.PV.Name, metav1.GetOptions{})
				if err != nil {
					return err
				}
				pv.Spec.MountOptions = good.PV.Spec.MountOptions
				_, err = cluster.Client.CoreV1().PersistentVolumes().Update(ctx, pv, metav1.UpdateOptions{})
				return err
			},
		},
		"image": {
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["sidemount.io/image"] = "nowhere/client:1" },
			says: []string{"nowhere/client:1"},
		},
		"quantity": {
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-cpu-limit"] = "two" },
			says: []string{"juicefs/mount-cpu-limit", "two"},
		},
		"room": {
			make: func(f *lab.FileSystem) { f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-memory-request"] = "100Ti" },
			says: []string{"juicefs/mount-memory-request", "100Ti"},
		},
	}
}

var _ = Describe("Mistakes in volumes on an ordinary node", func() {
	var ns namespace
	onOrdinaryNodes(&ns)

	// All at the same time: what takes long is the kubelet's pause between two attempts.
	It("keep their pods Pending, are told in Events, and are forgiven", func(ctx SpecContext) {
		mistakes, good := csiMistakes(), map[string]*lab.FileSystem{}
		for name, m := range mistakes {
			f := driver.volume(ns, name)
			whole := *f
			whole.PV, whole.PVC, whole.Secret = f.PV.DeepCopy(), f.PVC.DeepCopy(), f.Secret.DeepCopy()
			good[name] = &whole
			m.make(f)
			Expect(f.Create(ctx, cluster)).To(Succeed())
			ns.Create(ctx, lab.Pod(name, "echo served > /data/f && cat /data/f", lab.Claim(name), lab.OnOrdinaryNode))
		}
		for name, m := range mistakes {
			By(name)
			for _, part := range m.says {
				Eventually(ns.Events).WithArguments(ctx, name).WithContext(ctx).Should(ContainElement(ContainSubstring(part)))
			}
			for _, e := range ns.Events(ctx, name) {
				Expect(e).NotTo(ContainSubstring("hunter2"), "no event shows a secret")
			}
			Expect(ns.Get(ctx, name).Status.Phase).To(Equal(corev1.PodPending))
			if m.mend != nil {
				Expect(m.mend(ctx, good[name])).To(Succeed())
			}
		}
		for name, m := range mistakes {
			By(name)
			if m.mend != nil {
				Expect(ns.Succeeds(ctx, name)).To(Equal("served\n"))
				continue
			}
			ns.Delete(ctx, name)
			ns.Gone(ctx, name)
		}
		for name := range mistakes {
			Eventually(func(g Gomega) {
				pods, err := driver.mountPods(ctx, good[name].PV.Name)
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(pods).To(BeEmpty())
			}).WithContext(ctx).Should(Succeed(), "no Mount Pod of a mistake stays")
		}
	}, SpecTimeout(5*patience))
})
