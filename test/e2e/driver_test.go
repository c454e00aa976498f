package e2e

import (
	"context"
	"fmt"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

const (
	// class and waitingClass are StorageClasses of one file system; volumes of the second are made when a pod has been given a node.
	class        = "e2e"
	waitingClass = "e2e-waiting"
	// compatible is the release that serves volumes of the JuiceFS CSI driver's name.
	compatible = "juicefs-compatible"
	// driverSpace is the namespace of the Redis that the driver's volumes lie in.
	driverSpace = "e2e-driver"
)

// Databases of the Redis.
const (
	dynamicVolumes = iota
	staticVolumes
	juicefsVolumes
)

// csiDriver is the CSI driver as the chart installs it, which the specs of ordinary nodes share. It is installed for the first of them.
type csiDriver struct {
	releases []*lab.Chart
	redis    *lab.Redis
	err      error
}

var driver csiDriver

// installed installs the driver unless it is there.
func (d *csiDriver) installed(ctx context.Context) {
	GinkgoHelper()
	if d.redis == nil && d.err == nil {
		d.err = d.install(ctx)
	}
	Expect(d.err).NotTo(HaveOccurred(), "the driver must install")
}

func (d *csiDriver) install(ctx context.Context) (err error) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: driverSpace}}
	if _, err := cluster.Client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return err
	}
	if d.redis, err = cluster.StartRedis(ctx, driverSpace); err != nil {
		return err
	}
	if err := cluster.PushChartImages(ctx); err != nil {
		return err
	}
	waiting := lab.StorageClass(waitingClass, nil)
	waiting["secret"] = lab.Values{"name": lab.ChartRelease + "-" + class}
	waiting["volumeBindingMode"] = "WaitForFirstConsumer"
	ours := lab.Values{
		"controller":     lab.Values{"replicas": 1},
		"storageClasses": []lab.Values{lab.StorageClass(class, d.redis.JuiceFS(class, dynamicVolumes)), waiting},
	}
	theirs := lab.Values{
		"driverName": "csi.juicefs.com",
		"controller": lab.Values{"enabled": false},
		"node":       lab.Values{"stateDir": "/var/lib/sidemount/juicefs", "runDir": "/run/sidemount/juicefs"},
	}
	d.releases = make([]*lab.Chart, 2)
	var both errgroup.Group
	both.Go(func() (err error) {
		d.releases[0], err = cluster.InstallRelease(ctx, lab.ChartRelease, ours)
		return err
	})
	both.Go(func() (err error) { d.releases[1], err = cluster.InstallRelease(ctx, compatible, theirs); return err })
	return both.Wait()
}

// remove removes the driver, which must leave nothing on the node but what the next one finds.
func (d *csiDriver) remove(ctx context.Context) {
	GinkgoHelper()
	var all errgroup.Group
	for _, release := range d.releases {
		all.Go(func() error { return release.Uninstall(ctx) })
	}
	Expect(all.Wait()).To(Succeed())
	if d.redis != nil {
		Expect(cluster.Client.CoreV1().Namespaces().Delete(ctx, driverSpace, metav1.DeleteOptions{})).To(Succeed())
	}
	Eventually(func(g Gomega) {
		mounts, err := cluster.OnNode(ctx, lab.OrdinaryNode, "cat", "/proc/self/mountinfo")
		g.Expect(err).NotTo(HaveOccurred())
		for line := range strings.Lines(mounts) {
			g.Expect(line).NotTo(MatchRegexp(` /var/lib/sidemount/\S+/mounts/\S+ .* - fuse`), "a session is left")
			g.Expect(line).NotTo(MatchRegexp(` /volumes/kubernetes.io~csi/\S+ .* - fuse`), "a volume is left")
		}
	}).WithContext(ctx).Should(Succeed())
}

// dump prints what a person would look at in the driver's namespaces.
func (d *csiDriver) dump(ctx context.Context) {
	for _, release := range d.releases {
		for _, args := range [][]string{
			{"get", "pods", "-o", "wide"},
			{"get", "events", "--sort-by=.lastTimestamp"},
			{"logs", "-l", "app.kubernetes.io/component=node", "--tail=100"},
			{"logs", "-l", "app.kubernetes.io/component=controller", "--all-containers", "--tail=40"},
			{"logs", "-l", "app.kubernetes.io/name=sidemount-mount", "--tail=60", "--prefix"},
		} {
			out, err := cluster.Kubectl(ctx, append(args, "-n", release.Namespace)...)
			fmt.Fprintln(GinkgoWriter, release.Namespace, strings.Join(args, " "), err, "\n", out)
		}
	}
}

// volume describes a directory of the static file system as a volume of its own, before it is created.
func (d *csiDriver) volume(ns namespace, name string) *lab.FileSystem {
	GinkgoHelper()
	f, err := lab.JuiceFS(ns.Name, name)
	Expect(err).NotTo(HaveOccurred())
	f.Secret.StringData = d.redis.JuiceFS("static", staticVolumes)
	delete(f.PV.Spec.CSI.VolumeAttributes, "juicefs/host-path")
	f.PV.Spec.MountOptions = []string{"subdir=" + f.PV.Name}
	return f
}

// claim asks a StorageClass for a volume.
func (d *csiDriver) claim(ctx context.Context, ns namespace, name, class string) {
	GinkgoHelper()
	_, err := cluster.Client.CoreV1().PersistentVolumeClaims(ns.Name).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, StorageClassName: ptr.To(class),
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
}

// bound is the PersistentVolume of a claim.
func (d *csiDriver) bound(ctx context.Context, ns namespace, name string) string {
	GinkgoHelper()
	c, err := cluster.Client.CoreV1().PersistentVolumeClaims(ns.Name).Get(ctx, name, metav1.GetOptions{})
	Expect(err).NotTo(HaveOccurred())
	return c.Spec.VolumeName
}

// mountPods are the Mount Pods of a volume that are not about to go, or of all volumes.
func (d *csiDriver) mountPods(ctx context.Context, handle string) ([]corev1.Pod, error) {
	list, err := cluster.Client.CoreV1().Pods("").List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/name=sidemount-mount"})
	if err != nil {
		return nil, err
	}
	var pods []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil && (handle == "" || p.Annotations["sidemount.io/volume"] == handle) {
			pods = append(pods, p)
		}
	}
	return pods, nil
}

// mountPod is the one Mount Pod of a volume, once it runs.
func (d *csiDriver) mountPod(ctx context.Context, handle string) *corev1.Pod {
	GinkgoHelper()
	var pods []corev1.Pod
	Eventually(func(g Gomega) {
		var err error
		pods, err = d.mountPods(ctx, handle)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(pods).To(HaveLen(1))
		g.Expect(pods[0].Status.Phase).To(Equal(corev1.PodRunning))
	}).WithContext(ctx).Should(Succeed())
	return &pods[0]
}

// released waits until a volume has no Mount Pod.
func (d *csiDriver) released(ctx context.Context, handle string) {
	GinkgoHelper()
	Eventually(d.mountPods).WithArguments(ctx, handle).WithContext(ctx).Should(BeEmpty(), "the Mount Pod must go")
}

// nodePod is the driver's pod on the ordinary node, once it is ready.
func (d *csiDriver) nodePod(ctx context.Context) *corev1.Pod {
	GinkgoHelper()
	var pod corev1.Pod
	Eventually(func(g Gomega) {
		list, err := cluster.Client.CoreV1().Pods(lab.ChartNamespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=node"})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(list.Items).To(HaveLen(1))
		pod = list.Items[0]
		g.Expect(pod.DeletionTimestamp).To(BeNil())
		g.Expect(pod.Status.Conditions).To(ContainElement(And(HaveField("Type", corev1.PodReady), HaveField("Status", corev1.ConditionTrue))))
	}).WithContext(ctx).Should(Succeed())
	return &pod
}

// onOrdinaryNodes declares specs with a namespace of their own and the driver.
func onOrdinaryNodes(ns *namespace) {
	BeforeEach(func(ctx SpecContext) {
		driver.installed(ctx)
		*ns = newSpace(ctx)
		DeferCleanup(func(ctx SpecContext) {
			if CurrentSpecReport().Failed() {
				driver.dump(ctx)
			}
		}, NodeTimeout(patience))
	}, NodeTimeout(10*time.Minute))
}
