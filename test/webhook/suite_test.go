// Package webhook runs the admission webhook against a real cluster: ordinary nodes that have nothing of this project.
package webhook

import (
	"bytes"
	"context"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
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
const patience = 90 * time.Second

// port is the webhook's on the host's side of the cluster's network.
const port = "9443"

var (
	cluster *lab.Lab
	hook    *process
)

func TestWebhook(t *testing.T) { space.Run(t, "Pods on nodes of others", patience) }

var _ = BeforeSuite(func(ctx SpecContext) {
	var err error
	cluster, err = lab.Start(ctx, "webhook", GinkgoWriter)
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(func(ctx SpecContext) {
		Expect(cluster.Stop(ctx)).To(Succeed())
		Expect(lab.RemoveData("hook-")).To(Succeed())
	}, NodeTimeout(3*time.Minute))
	hook = &process{address: hostAddress()}
	_, err = cluster.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "sidemount"}}, metav1.CreateOptions{})
	Expect(err).NotTo(HaveOccurred())
	hook.start(ctx)
	DeferCleanup(func() { hook.stop() })
	install(ctx)
}, NodeTimeout(10*time.Minute))

var _ = AfterSuite(func(ctx SpecContext) {
	if cluster == nil {
		return
	}
	By("nothing of the pods is left on the node")
	Eventually(func(g Gomega) {
		mounts, err := cluster.OnNode(ctx, lab.OrdinaryNode, "cat", "/proc/self/mountinfo")
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(mounts).NotTo(MatchRegexp(`/var/lib/kubelet/pods/\S+ .* - fuse\.\S+ `), "a FUSE mount is left")
	}).WithContext(ctx).Should(Succeed())
}, NodeTimeout(2*time.Minute))

// hostAddress is this host's address in the network of the cluster.
func hostAddress() string {
	GinkgoHelper()
	server := strings.TrimPrefix(cluster.Config.Host, "https://")
	conn, err := net.Dial("udp", server)
	Expect(err).NotTo(HaveOccurred())
	defer conn.Close()
	return conn.LocalAddr().(*net.UDPAddr).IP.String()
}

// install applies the webhook's configuration, which test/chart makes from the chart, and waits until a review comes through.
func install(ctx context.Context) {
	GinkgoHelper()
	text, err := os.ReadFile("testdata/admission.yaml")
	Expect(err).NotTo(HaveOccurred())
	text = bytes.ReplaceAll(text, []byte("url: URL"), []byte("url: https://"+net.JoinHostPort(hook.address, port)))
	file := filepath.Join(GinkgoT().TempDir(), "admission.yaml")
	Expect(os.WriteFile(file, text, 0o600)).To(Succeed())
	_, err = cluster.Kubectl(ctx, "apply", "-f", file)
	Expect(err).NotTo(HaveOccurred())
	Eventually(func(g Gomega) {
		c, err := cluster.Client.AdmissionregistrationV1().MutatingWebhookConfigurations().Get(ctx, "sidemount-webhook", metav1.GetOptions{})
		g.Expect(err).NotTo(HaveOccurred())
		for _, w := range c.Webhooks {
			g.Expect(w.ClientConfig.CABundle).NotTo(BeEmpty())
		}
	}).WithContext(ctx).Should(Succeed())
	// The API server reads its configuration by watches. Until it has, a pod that asks for injection is refused or left alone.
	ns := newSpace(ctx, nil)
	f, err := lab.JuiceFS(ns.Name, "first")
	Expect(err).NotTo(HaveOccurred())
	Expect(f.Create(ctx, cluster)).To(Succeed())
	Eventually(func(g Gomega) {
		p, err := cluster.Client.CoreV1().Pods(ns.Name).Create(ctx, pod("first", "true", lab.Claim("first"), asking), metav1.CreateOptions{DryRun: []string{"All"}})
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(injected(p)).To(BeTrue())
	}).WithContext(ctx).Should(Succeed())
}

// process is the webhook as a program on this host.
type process struct {
	address string
	cmd     *exec.Cmd
	ended   chan error
}

func (p *process) start(ctx context.Context) {
	GinkgoHelper()
	server := net.JoinHostPort(p.address, port)
	p.cmd = exec.Command(cluster.Binary("sidemount"), "webhook", "--kubeconfig", cluster.Kubeconfig, "--address", server,
		"--certificate-name", p.address, "--pod-server", server, "--metrics-address", "",
		"--agent-image", "ghcr.io/sidemount/sidemount:dev", "--juicefs-image", "ghcr.io/sidemount/juicefs-client:dev")
	p.cmd.Stdout, p.cmd.Stderr = GinkgoWriter, GinkgoWriter
	Expect(p.cmd.Start()).To(Succeed())
	p.ended = make(chan error, 1)
	go func() { p.ended <- p.cmd.Wait() }()
	Eventually(func() error {
		conn, err := net.Dial("tcp", server)
		if err == nil {
			conn.Close()
		}
		return err
	}).WithContext(ctx).Should(Succeed())
}

func (p *process) stop() {
	GinkgoHelper()
	if p.cmd == nil {
		return
	}
	Expect(p.cmd.Process.Signal(os.Interrupt)).To(Succeed())
	Eventually(p.ended, 20*time.Second).Should(Receive(BeNil()))
	p.cmd = nil
}

// namespace is a namespace of one spec.
type namespace struct{ space.Space }

func newSpace(ctx context.Context, labels map[string]string) namespace {
	GinkgoHelper()
	return namespace{space.New(ctx, cluster, "hook-", labels)}
}

// pod is a pod on the ordinary node.
func pod(name, script string, options ...lab.PodOption) *corev1.Pod {
	return lab.Pod(name, script, append([]lab.PodOption{lab.OnOrdinaryNode}, options...)...)
}

// asking makes a pod ask for injection by itself.
func asking(p *corev1.Pod) {
	if p.Labels == nil {
		p.Labels = map[string]string{}
	}
	p.Labels["sidemount.io/inject"] = "true"
}

func injected(p *corev1.Pod) bool {
	return len(p.Spec.InitContainers) > 1 && p.Spec.InitContainers[0].Name == "sidemount"
}
