package e2e

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// acquainted pods write a file, wait for those of the others, and stay until /data/stop is there; $0 is the pod's name.
const acquainted = `set -e; echo $0 > /data/$0.pod; until [ $(ls /data | grep -c 'pod$') = 3 ]; do sleep 0.1; done; cat /data/*.pod
until [ -e /data/stop ]; do sleep 0.1; done`

var _ = Describe("A volume on an ordinary node", func() {
	var ns namespace
	onOrdinaryNodes(&ns)

	It("is shared by the pods of a node through one Mount Pod, and with the virtual node", func(ctx SpecContext) {
		driver.claim(ctx, ns, "data", class)
		names := map[string]lab.PodOption{"one": lab.OnOrdinaryNode, "two": lab.OnOrdinaryNode, "three": func(*corev1.Pod) {}}
		for name, node := range names {
			ns.Create(ctx, lab.Pod(name, acquainted, lab.Claim("data"), node, named(name)))
		}
		for name := range names {
			Eventually(func() string { ns.Running(ctx, name); return ns.Logs(ctx, name) }).WithContext(ctx).Should(Equal("one\nthree\ntwo\n"))
		}
		handle := driver.bound(ctx, ns, "data")
		m := driver.mountPod(ctx, handle)
		By("nobody has a privilege, and no object the credentials")
		for _, pid := range append(agents(m), juicefs.pid(ctx, m)) {
			status, err := lab.Status(pid)
			Expect(err).NotTo(HaveOccurred())
			Expect(strings.Fields(status["Uid"])).To(HaveEach("65534"))
			Expect([]string{status["CapPrm"], status["CapEff"], status["CapBnd"]}).To(HaveEach("0000000000000000"))
			Expect(status["NoNewPrivs"]).To(Equal("1"))
		}
		objects, err := cluster.Kubectl(ctx, "get", "pods,configmaps,events,pv", "-A", "-o", "yaml")
		Expect(err).NotTo(HaveOccurred())
		Expect(objects).NotTo(ContainSubstring(driver.redis.JuiceFS(class, dynamicVolumes)["metaurl"]))

		By("the Mount Pod goes with the last of them")
		_, err = ns.Exec(ctx, "three", "touch", "/data/stop")
		Expect(err).NotTo(HaveOccurred())
		for name := range names {
			ns.Succeeds(ctx, name)
		}
		driver.released(ctx, handle)
	}, SpecTimeout(4*patience))

	It("is made where its first pod runs, and its directory goes with the claim", func(ctx SpecContext) {
		nodes := map[string]lab.PodOption{"ordinary": lab.OnOrdinaryNode, "virtual": func(*corev1.Pod) {}}
		for name, node := range nodes {
			driver.claim(ctx, ns, name, waitingClass)
			ns.Create(ctx, lab.Pod(name, "echo kept > /data/file && cat /data/file", lab.Claim(name), node))
		}
		for name := range nodes {
			Expect(ns.Succeeds(ctx, name)).To(Equal("kept\n"))
			pv := driver.bound(ctx, ns, name)
			Expect(hasDirectory(ctx, pv)).To(BeTrue())
			ns.Delete(ctx, name)
			ns.Gone(ctx, name)
			Expect(cluster.Client.CoreV1().PersistentVolumeClaims(ns.Name).Delete(ctx, name, metav1.DeleteOptions{})).To(Succeed())
			Eventually(hasDirectory).WithArguments(ctx, pv).WithContext(ctx).Should(BeFalse())
		}
	}, SpecTimeout(4*patience))

	It("is what manifests of the JuiceFS CSI driver mean, on both kinds of node", func(ctx SpecContext) {
		raw, err := os.ReadFile("testdata/juicefs-static.yaml")
		Expect(err).NotTo(HaveOccurred())
		secret := driver.redis.JuiceFS("ten-pb-fs", juicefsVolumes)
		text := strings.NewReplacer("NAMESPACE", ns.Name, "METAURL", secret["metaurl"], "BUCKET", secret["bucket"]).Replace(string(raw))
		file := filepath.Join(GinkgoT().TempDir(), "juicefs.yaml")
		Expect(os.WriteFile(file, []byte(text), 0o600)).To(Succeed())
		_, err = cluster.Kubectl(ctx, "apply", "-f", file)
		Expect(err).NotTo(HaveOccurred())
		_, err = cluster.Kubectl(ctx, "rollout", "status", "-n", ns.Name, "deployment/app", "--timeout=80s")
		Expect(err).NotTo(HaveOccurred())
		ns.Create(ctx, lab.Pod("virtual", "until [ -s /data/out.txt ]; do sleep 0.1; done; wc -l < /data/out.txt", lab.Claim("juicefs-pvc")))
		lines, err := strconv.Atoi(strings.TrimSpace(ns.Succeeds(ctx, "virtual")))
		Expect(err).NotTo(HaveOccurred())
		Expect(lines).To(BeNumerically(">", 0))
		m := driver.mountPod(ctx, ns.Name+"-juicefs-pv")
		Expect(m.Labels).To(HaveKeyWithValue("team", "storage"))
		Expect(m.Namespace).To(Equal(compatible))
		_, err = cluster.Kubectl(ctx, "delete", "-n", ns.Name, "deployment/app", "--timeout=60s")
		Expect(err).NotTo(HaveOccurred())
		driver.released(ctx, ns.Name+"-juicefs-pv")
	}, SpecTimeout(4*patience))

	It("keeps its Mount Pod for the next pod, as long as it was told to", func(ctx SpecContext) {
		f := driver.volume(ns, "data")
		f.PV.Spec.CSI.VolumeAttributes["juicefs/mount-delete-delay"] = "12s"
		Expect(f.Create(ctx, cluster)).To(Succeed())
		ns.Create(ctx, lab.Pod("first", forever, lab.Claim("data"), lab.OnOrdinaryNode))
		ns.Running(ctx, "first")
		m := driver.mountPod(ctx, f.PV.Name)
		ns.Delete(ctx, "first")
		ns.Gone(ctx, "first")
		ns.Create(ctx, lab.Pod("second", forever, lab.Claim("data"), lab.OnOrdinaryNode))
		ns.Running(ctx, "second")
		Expect(driver.mountPod(ctx, f.PV.Name).UID).To(Equal(m.UID))
		ns.Delete(ctx, "second")
		ns.Gone(ctx, "second")
		Expect(driver.mountPods(ctx, f.PV.Name)).To(HaveLen(1), "the delay has not passed")
		driver.released(ctx, f.PV.Name)
	}, SpecTimeout(4*patience))

	It("may be written down in the pod itself", func(ctx SpecContext) {
		f := driver.volume(ns, "inline")
		f.PV, f.PVC = nil, nil
		Expect(f.Create(ctx, cluster)).To(Succeed())
		inline := corev1.VolumeSource{CSI: &corev1.CSIVolumeSource{
			Driver: lab.Driver, NodePublishSecretRef: &corev1.LocalObjectReference{Name: "inline"},
			VolumeAttributes: map[string]string{
				"mountOptions": "subdir=" + ns.Name + "-inline", "juicefs/mount-cpu-request": "10m", "juicefs/mount-memory-request": "64Mi",
			},
		}}
		ns.Create(ctx, lab.Pod("writer", "echo written > /data/file", lab.OnOrdinaryNode, lab.Volume("data", "/data", inline)))
		ns.Succeeds(ctx, "writer")
		reading := inline.DeepCopy()
		reading.CSI.ReadOnly = ptr.To(true)
		ns.Create(ctx, lab.Pod("reader", "cat /data/file; touch /data/x 2>&1; true", lab.OnOrdinaryNode, lab.Volume("data", "/data", *reading)))
		Expect(ns.Succeeds(ctx, "reader")).To(And(HavePrefix("written\n"), ContainSubstring("Read-only file system")))
	}, SpecTimeout(4*patience))
})

// named gives a pod's script its name as $0.
func named(name string) lab.PodOption {
	return lab.Change(func(p *corev1.Pod) { p.Spec.Containers[0].Command = append(p.Spec.Containers[0].Command, name) })
}

// hasDirectory tells whether the root of the dynamic volumes' file system has a directory, as its metadata engine knows it.
func hasDirectory(ctx SpecContext, name string) (bool, error) {
	out, err := cluster.Kubectl(ctx, "exec", "-n", driverSpace, "redis", "--", "redis-cli", "-n", strconv.Itoa(dynamicVolumes), "hexists", "d1", name)
	return strings.TrimSpace(out) == "1", err
}
