// Package sidecars runs the chart on a real cluster with sidecars in the pods of an ordinary node: no pod of a tenant has any privilege.
package sidecars

import (
	"context"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
	"github.com/sidemount/sidemount/test/space"
)

// patience is how long anything may take that takes a second on an idle machine.
const patience = 2 * time.Minute

var (
	cluster *lab.Lab
	chart   *lab.Chart
)

func TestSidecars(t *testing.T) {
	space.Run(t, "Pods with sidecars of their own on ordinary nodes", patience)
}

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	cluster, err = lab.StartSize(ctx, "sidecars", lab.Size{Ordinary: 1}, GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		Expect(cluster.Stop(ctx)).To(Succeed())
		Expect(lab.RemoveData("tenant-")).To(Succeed())
	}, NodeTimeout(3*time.Minute))
	chart, err = cluster.InstallChart(ctx, lab.Values{
		"controller": lab.Values{"enabled": false},
		"node":       lab.Values{"sidecars": true},
		"webhook":    lab.Values{"enabled": true, "replicas": 1},
	})
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		Expect(chart.Uninstall(ctx)).To(Succeed())
	}, NodeTimeout(5*time.Minute))
	awaitWebhook(ctx)
}, NodeTimeout(12*time.Minute))

// awaitWebhook waits until the API server asks the webhook and trusts it.
func awaitWebhook(ctx context.Context) {
	GinkgoHelper()
	ns := newSpace(ctx, nil)
	ns.volume(ctx, "first")
	Eventually(func(g Gomega) {
		p, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("first", "true", "first", func(p *corev1.Pod) {
			p.Labels = map[string]string{"sidemount.io/inject": "node"}
		}), metav1.CreateOptions{DryRun: []string{"All"}})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(p.Spec.InitContainers).NotTo(BeEmpty())
	}).WithContext(ctx).Should(Succeed())
}

// namespace is a namespace of one spec.
type namespace struct{ space.Space }

// Both have their pods injected. A directory of the host, as the volumes of these specs have it, is more than restricted admits.
var (
	tenant     = map[string]string{"sidemount.io/injection": "node"}
	restricted = map[string]string{"sidemount.io/injection": "node", "pod-security.kubernetes.io/enforce": "restricted"}
)

func newSpace(ctx context.Context, labels map[string]string) namespace {
	GinkgoHelper()
	return namespace{space.New(ctx, cluster, "tenant-", labels,
		[]string{"logs", "-n", chart.Namespace, "-l", "app.kubernetes.io/component=node", "--tail=200"})}
}

// volume makes a volume whose Secret is in the chart's namespace. Its data is in a directory of the host, which is all that its sidecar has of it.
func (s namespace) volume(ctx context.Context, name string) *lab.FileSystem {
	GinkgoHelper()
	return s.Volume(ctx, name, chart.Namespace)
}

// pod is what Pod Security "restricted" admits, on the ordinary node.
func pod(name, script, claim string, options ...lab.PodOption) *corev1.Pod {
	no, yes := false, true
	all := append([]lab.PodOption{lab.OnOrdinaryNode, lab.Claim(claim)}, options...)
	p := lab.Pod(name, script, all...)
	p.Spec.SecurityContext.RunAsNonRoot = &yes
	p.Spec.SecurityContext.SeccompProfile = &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault}
	for _, list := range [][]corev1.Container{p.Spec.InitContainers, p.Spec.Containers} {
		for i := range list {
			list[i].SecurityContext = &corev1.SecurityContext{
				AllowPrivilegeEscalation: &no, Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
			}
		}
	}
	return p
}
