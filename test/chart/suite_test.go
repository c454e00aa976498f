package chart

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
	suite "github.com/sidemount/sidemount/test/space"
)

const (
	// patience is how long anything may take that takes seconds on an idle machine.
	patience = 2 * time.Minute
	// space is the namespace of the pods that use volumes.
	space = "apps"
	// class is the StorageClass that the chart makes.
	class = "juicefs"
)

var (
	cluster *lab.Lab
	redis   *lab.Redis
	release *lab.Chart
)

// TestInstallation takes minutes and a machine for itself, so it runs when it is asked to.
func TestInstallation(t *testing.T) {
	if os.Getenv("SIDEMOUNT_CHART") != "install" {
		t.Skip("skipped: set SIDEMOUNT_CHART=install, or run hack/chart-test.sh")
	}
	suite.Run(t, "The chart on a real cluster", patience)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	cluster, err = lab.StartSize(ctx, "chart", lab.Size{Ordinary: 2, Virtual: 1}, GinkgoWriter)
	DeferCleanup(func(ctx SpecContext) {
		if cluster != nil {
			Expect(cluster.Stop(ctx)).To(Succeed())
		}
	}, NodeTimeout(3*time.Minute))
	Expect(err).NotTo(HaveOccurred())
	_, err = cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: space}}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	Eventually(func() error {
		_, err := cluster.Client.CoreV1().ServiceAccounts(space).Get(ctx, "default", metav1.GetOptions{})
		return err
	}).WithContext(ctx).Should(Succeed())
	redis, err = cluster.StartRedis(ctx, space)
	Expect(err).NotTo(HaveOccurred())
	Expect(cluster.PushChartImages(ctx)).To(Succeed())
	Expect(cluster.InstallSnapshotCRDs(ctx)).To(Succeed())
	release, err = cluster.InstallChart(ctx, values("debug"))
	Expect(err).NotTo(HaveOccurred(), "the chart must install")
}, NodeTimeout(15*time.Minute))

// values of the release; the log's level is what the upgrade changes.
func values(level string) lab.Values {
	return lab.Values{
		"log":            lab.Values{"level": level},
		"storageClasses": []lab.Values{lab.StorageClass(class, redis.JuiceFS("chart", 0))},
		"snapshots": lab.Values{"enabled": true, "controller": true, "classes": []lab.Values{
			{"name": class, "secret": lab.Values{"name": lab.ChartRelease + "-" + class}},
		}},
		"webhook": lab.Values{"enabled": true},
		"tests":   lab.Values{"virtualNode": true},
	}
}

// dump prints what a person would look at first.
func dump(ctx context.Context) {
	for _, args := range [][]string{
		{"get", "pods,pvc,pv", "-A", "-o", "wide"},
		{"get", "events", "-A", "--sort-by=.lastTimestamp"},
		{"logs", "-n", lab.ChartNamespace, "-l", "app.kubernetes.io/component=node", "--tail=60", "--prefix"},
		{"logs", "-n", lab.ChartNamespace, "-l", "app.kubernetes.io/component=controller", "--all-containers", "--tail=40", "--prefix"},
		{"logs", "-n", lab.ChartNamespace, "-l", "app.kubernetes.io/component=webhook", "--tail=40", "--prefix"},
		{"logs", "-n", lab.ChartNamespace, "-l", "app.kubernetes.io/name=sidemount-mount", "--tail=40", "--prefix"},
	} {
		out, err := cluster.Kubectl(ctx, args...)
		fmt.Fprintln(GinkgoWriter, "kubectl", args, err, "\n", out)
	}
}

// claim asks the StorageClass for a volume, which may begin as a copy of something.
func claim(ctx context.Context, name string, source ...corev1.TypedLocalObjectReference) {
	GinkgoHelper()
	var from *corev1.TypedLocalObjectReference
	if len(source) > 0 {
		from = &source[0]
	}
	_, err := cluster.Client.CoreV1().PersistentVolumeClaims(space).Create(ctx, &corev1.PersistentVolumeClaim{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PersistentVolumeClaimSpec{
			AccessModes: []corev1.PersistentVolumeAccessMode{corev1.ReadWriteMany}, StorageClassName: ptr.To(class), DataSource: from,
			Resources: corev1.VolumeResourceRequirements{Requests: corev1.ResourceList{corev1.ResourceStorage: resource.MustParse("1Gi")}},
		},
	}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
}

func unclaim(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(cluster.Client.CoreV1().PersistentVolumeClaims(space).Delete(ctx, name, metav1.DeleteOptions{})).To(Succeed())
}

// on puts a pod on a node, whatever its kind.
func on(node string) lab.PodOption {
	return func(p *corev1.Pod) { p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": node} }
}

func start(ctx context.Context, name, node, script string, options ...lab.PodOption) {
	GinkgoHelper()
	p := lab.Pod(name, script, append(options, on(node))...)
	_, err := cluster.Client.CoreV1().Pods(space).Create(ctx, p, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
}

func phase(ctx context.Context, name string) func() (corev1.PodPhase, error) {
	return func() (corev1.PodPhase, error) {
		p, err := cluster.Client.CoreV1().Pods(space).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		if p.Status.Phase == corev1.PodFailed {
			out, _ := cluster.Kubectl(ctx, "logs", "-n", space, name)
			StopTrying("pod "+name+" failed").Attach("log", out).Now()
		}
		return p.Status.Phase, nil
	}
}

// finished waits for the end of a pod and removes it.
func finished(ctx context.Context, name string) string {
	GinkgoHelper()
	Eventually(phase(ctx, name)).WithContext(ctx).Should(Equal(corev1.PodSucceeded), "pod %s", name)
	out, err := cluster.Kubectl(ctx, "logs", "-n", space, name)
	Expect(err).NotTo(HaveOccurred())
	_, err = cluster.Kubectl(ctx, "delete", "pod", "-n", space, name, "--timeout=60s")
	Expect(err).NotTo(HaveOccurred())
	return out
}
