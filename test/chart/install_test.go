package chart

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// nodes are one after the other all kinds that a cluster can have.
var nodes = []string{lab.OrdinaryNode, lab.OtherOrdinaryNode, lab.VirtualNode}

// watchful holds a file open and writes into it until /data/stop exists. It reads back each line, makes and renames a file in each
// round, and compares the whole file at the end. It fails at the first call that fails.
const watchful = `set -e
me=$1; i=0
exec 3>>/data/$me
while [ ! -e /data/stop ]; do
  i=$((i + 1))
  echo $i >&3
  [ "$(tail -n 1 /data/$me)" = $i ]
  echo $i >/data/$me.new
  mv /data/$me.new /data/$me.last
  [ "$(cat /data/$me.last)" = $i ]
  sleep 0.05
done
exec 3>&-
seq 1 $i | cmp - /data/$me
echo rounds $i`

const snapshot = `apiVersion: snapshot.storage.k8s.io/v1
kind: VolumeSnapshot
metadata: {name: monday}
spec:
  volumeSnapshotClassName: ` + class + `
  source: {persistentVolumeClaimName: origin}
`

var _ = Describe("The chart", Ordered, func() {
	AfterEach(func(ctx SpecContext) {
		if CurrentSpecReport().Failed() {
			dump(ctx)
		}
	})

	It("serves dynamic claims on every kind of node", func(ctx SpecContext) {
		for _, node := range nodes {
			claim(ctx, "own-"+node)
			start(ctx, "own-"+node, node, "echo hello >/data/file && cat /data/file", lab.Claim("own-"+node))
		}
		for _, node := range nodes {
			Expect(finished(ctx, "own-"+node)).To(Equal("hello\n"))
			unclaim(ctx, "own-"+node)
		}
		Eventually(volumes(ctx)).WithContext(ctx).Should(BeEmpty(), "the controller must delete the volumes")
	}, NodeTimeout(5*time.Minute))

	It("serves one claim on all nodes at the same time", func(ctx SpecContext) {
		claim(ctx, "shared")
		for _, node := range nodes {
			start(ctx, "shared-"+node, node, `set -e
				echo $(hostname) >/data/$0
				until [ $(ls /data | wc -l) = 3 ]; do sleep 0.2; done
				cat /data/*; touch /data/$0; sleep 5`, lab.Claim("shared"), argument("shared-"+node))
		}
		for _, node := range nodes {
			Expect(strings.Fields(finished(ctx, "shared-"+node))).To(HaveLen(3), "the pod on %s sees the files of the other two", node)
		}
		unclaim(ctx, "shared")
	}, NodeTimeout(5*time.Minute))

	It("copies volumes, from snapshots and from claims", func(ctx SpecContext) {
		claim(ctx, "origin")
		start(ctx, "writer", lab.OrdinaryNode, "echo precious >/data/file", lab.Claim("origin"))
		finished(ctx, "writer")
		manifest := filepath.Join(GinkgoT().TempDir(), "snapshot.yaml")
		Expect(os.WriteFile(manifest, []byte(snapshot), 0o600)).To(Succeed())
		_, err := cluster.Kubectl(ctx, "apply", "-n", space, "-f", manifest)
		Expect(err).NotTo(HaveOccurred())
		_, err = cluster.Kubectl(ctx, "wait", "-n", space, "volumesnapshot/monday", "--for=jsonpath={.status.readyToUse}=true", "--timeout=60s")
		Expect(err).NotTo(HaveOccurred())
		claim(ctx, "restored", corev1.TypedLocalObjectReference{APIGroup: ptr.To("snapshot.storage.k8s.io"), Kind: "VolumeSnapshot", Name: "monday"})
		claim(ctx, "cloned", corev1.TypedLocalObjectReference{Kind: "PersistentVolumeClaim", Name: "origin"})
		for _, name := range []string{"restored", "cloned"} {
			start(ctx, name, lab.OtherOrdinaryNode, "cat /data/file", lab.Claim(name))
			Expect(finished(ctx, name)).To(Equal("precious\n"))
			unclaim(ctx, name)
		}
		_, err = cluster.Kubectl(ctx, "delete", "-n", space, "volumesnapshot/monday", "--timeout=60s")
		Expect(err).NotTo(HaveOccurred())
		unclaim(ctx, "origin")
		Eventually(volumes(ctx)).WithContext(ctx).Should(BeEmpty())
	}, NodeTimeout(5*time.Minute))

	It("gives a pod that asks for it a sidecar of its own", func(ctx SpecContext) {
		claim(ctx, "injected")
		wants := lab.Change(func(p *corev1.Pod) { p.Labels = map[string]string{"sidemount.io/inject": "true"} })
		start(ctx, "injected", lab.OrdinaryNode, "echo hello >/data/file && cat /data/file", lab.Claim("injected"), wants)
		pod, err := cluster.Client.CoreV1().Pods(space).Get(ctx, "injected", metav1.GetOptions{})
		Expect(err).NotTo(HaveOccurred())
		Expect(pod.Spec.InitContainers).NotTo(BeEmpty(), "the webhook has not seen the pod")
		Expect(finished(ctx, "injected")).To(Equal("hello\n"))
		unclaim(ctx, "injected")
	}, NodeTimeout(3*time.Minute))

	It("is upgraded and rolled back without anybody noticing", func(ctx SpecContext) {
		claim(ctx, "watched")
		for _, node := range nodes {
			start(ctx, "watch-"+node, node, watchful, lab.Claim("watched"), argument("sh"), argument("watch-"+node))
		}
		for _, node := range nodes {
			Eventually(phase(ctx, "watch-"+node)).WithContext(ctx).Should(Equal(corev1.PodRunning))
		}
		mounts, err := release.MountPods(ctx)
		Expect(err).NotTo(HaveOccurred())
		before := driverPods(ctx)
		By("upgrade")
		Expect(release.Upgrade(ctx, values("info"))).To(Succeed())
		upgraded := driverPods(ctx)
		Expect(intersection(before, upgraded)).To(BeEmpty(), "every pod of the driver is a new one")
		By("rollback")
		Expect(release.Rollback(ctx, 1)).To(Succeed())
		Expect(intersection(upgraded, driverPods(ctx))).To(BeEmpty())
		Expect(release.MountPods(ctx)).To(Equal(mounts), "Mount Pods are not replaced")
		By("another pod on a node that has the volume")
		start(ctx, "late", lab.OrdinaryNode, "ls /data && touch /data/stop", lab.Claim("watched"))
		finished(ctx, "late")
		for _, node := range nodes {
			Expect(finished(ctx, "watch-"+node)).To(ContainSubstring("rounds"))
		}
		unclaim(ctx, "watched")
	}, NodeTimeout(10*time.Minute))

	It("holds the node service to Mount Pods of its own node", func(ctx SpecContext) {
		node := "--as=system:serviceaccount:" + release.Namespace + ":" + release.Release + "-node"
		_, err := cluster.Kubectl(ctx, node, "run", "thief", "-n", release.Namespace, "--image="+lab.Image)
		Expect(err).To(MatchError(ContainSubstring("works with Mount Pods only")))
		_, err = cluster.Kubectl(ctx, node, "run", "thief", "-n", release.Namespace, "--image="+lab.Image, "--labels=app.kubernetes.io/name=sidemount-mount")
		Expect(err).To(MatchError(ContainSubstring("of its own node only")))
		_, err = cluster.Kubectl(ctx, node, "delete", "pod", "-n", release.Namespace, "-l", "app.kubernetes.io/component=controller", "--wait=false")
		Expect(err).To(MatchError(ContainSubstring("works with Mount Pods only")))
	}, NodeTimeout(time.Minute))

	It("gives a node nobody's Secrets by its Mount Pods", func(ctx SpecContext) {
		dry := metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}
		_, err := nodeService(lab.OrdinaryNode).Create(ctx, mountPod(release.Release), dry)
		Expect(err).NotTo(HaveOccurred(), "an honest Mount Pod")
		_, err = nodeService(lab.OtherOrdinaryNode).Create(ctx, mountPod(release.Release), dry)
		Expect(err).To(MatchError(ContainSubstring("of its own node only")))
		for pod, says := range thefts(release.Release) {
			_, err := nodeService(lab.OrdinaryNode).Create(ctx, pod, dry)
			Expect(err).To(MatchError(ContainSubstring(says)))
		}
	}, NodeTimeout(time.Minute))

	It("passes its own tests", func(ctx SpecContext) {
		out, err := release.Test(ctx)
		Expect(err).NotTo(HaveOccurred(), out)
		for _, suite := range []string{"sidemount-test-node", "sidemount-test-virtual-node", "sidemount-test-sidecar"} {
			Expect(out).To(MatchRegexp(`SUITE:\s+%s\n.*\n.*\nPhase:\s+Succeeded`, suite))
		}
	}, NodeTimeout(5*time.Minute))

	It("is not uninstalled while a volume is in use, and leaves nothing but data afterwards", func(ctx SpecContext) {
		claim(ctx, "used")
		start(ctx, "user", lab.OtherOrdinaryNode, "touch /data/file; until [ -e /data/stop ]; do sleep 0.2; done", lab.Claim("used"))
		Eventually(phase(ctx, "user")).WithContext(ctx).Should(Equal(corev1.PodRunning))
		Expect(release.Uninstall(ctx)).NotTo(Succeed())
		Expect(driverPods(ctx)).NotTo(BeEmpty(), "a refused uninstallation must leave the driver")
		why, err := cluster.Kubectl(ctx, "logs", "-n", release.Namespace, "job/"+release.Release+"-uninstall")
		Expect(err).NotTo(HaveOccurred())
		Expect(why).To(ContainSubstring(lab.OtherOrdinaryNode))

		_, err = cluster.Kubectl(ctx, "exec", "-n", space, "user", "--", "touch", "/data/stop")
		Expect(err).NotTo(HaveOccurred())
		finished(ctx, "user")
		keys, err := redis.Keys(ctx, 0)
		Expect(err).NotTo(HaveOccurred())
		Expect(release.Uninstall(ctx)).To(Succeed())
		Expect(left(ctx)).To(BeEmpty())
		Expect(volumes(ctx)()).To(HaveLen(1), "the volume stays")
		Expect(redis.Keys(ctx, 0)).To(BeNumerically(">=", keys/2), "the file system stays")
	}, NodeTimeout(8*time.Minute))
})

// argument adds an argument of the pod's script: the first is $0.
func argument(a string) lab.PodOption {
	return lab.Change(func(p *corev1.Pod) { p.Spec.Containers[0].Command = append(p.Spec.Containers[0].Command, a) })
}

// volumes returns the names of the driver's PersistentVolumes.
func volumes(ctx context.Context) func() ([]string, error) {
	return func() ([]string, error) {
		list, err := cluster.Client.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err != nil {
			return nil, err
		}
		var names []string
		for _, pv := range list.Items {
			names = append(names, pv.Name)
		}
		return names, nil
	}
}

// driverPods returns the names of the driver's pods that are not about to end.
func driverPods(ctx context.Context) map[string]bool {
	GinkgoHelper()
	list, err := cluster.Client.CoreV1().Pods(release.Namespace).List(ctx, metav1.ListOptions{LabelSelector: "app.kubernetes.io/component in (controller,node,webhook)"})
	Expect(err).NotTo(HaveOccurred())
	names := map[string]bool{}
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil {
			names[p.Name] = true
		}
	}
	return names
}

func intersection(a, b map[string]bool) []string {
	var both []string
	for name := range a {
		if b[name] {
			both = append(both, name)
		}
	}
	return both
}

// kept is what the next installation finds on a node: the agent's program, a lock, and the key of the node's hashes.
var kept = []string{"/var/lib/sidemount/csi/bin/sidemount-agent", "/var/lib/sidemount/csi/lock", "/var/lib/sidemount/csi/shares/key"}

// election are the Leases of the Kubernetes project's sidecars, which no release owns; they say who was the last to lead (docs/install.md).
var election = regexp.MustCompile(`^((external-(resizer|snapshotter-leader)-)?csi-sidemount-io|snapshot-controller-leader)$`)

// unlabelled lists what could be left in the release's namespace without a label of the release: Secrets and Leases.
func unlabelled(ctx context.Context) []string {
	GinkgoHelper()
	var found []string
	secrets, err := cluster.Client.CoreV1().Secrets(release.Namespace).List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	for _, s := range secrets.Items {
		found = append(found, "secret/"+s.Name)
	}
	leases, err := cluster.Client.CoordinationV1().Leases(release.Namespace).List(ctx, metav1.ListOptions{})
	Expect(err).NotTo(HaveOccurred())
	for _, l := range leases.Items {
		if !election.MatchString(l.Name) {
			found = append(found, "lease/"+l.Name)
		}
	}
	return found
}

// left lists what an uninstallation should have taken with it: objects of the release, pods, mounts, sockets.
func left(ctx context.Context) []string {
	GinkgoHelper()
	var found []string
	kinds := "deployments,daemonsets,serviceaccounts,roles,rolebindings,clusterroles,clusterrolebindings,csidrivers,storageclasses,services,mutatingwebhookconfigurations,validatingadmissionpolicies,secrets,networkpolicies,poddisruptionbudgets,jobs,priorityclasses"
	out, err := cluster.Kubectl(ctx, "get", kinds, "-A", "-l", "app.kubernetes.io/instance="+release.Release, "-o", "name")
	Expect(err).NotTo(HaveOccurred())
	found = append(found, strings.Fields(out)...)
	found = append(found, unlabelled(ctx)...)
	Eventually(func() ([]corev1.Pod, error) {
		pods, err := cluster.Client.CoreV1().Pods(release.Namespace).List(ctx, metav1.ListOptions{})
		return pods.Items, err
	}).WithContext(ctx).Should(BeEmpty(), "every pod must go")
	for _, node := range []string{lab.OrdinaryNode, lab.OtherOrdinaryNode} {
		mounts, err := cluster.OnNode(ctx, node, "cat", "/proc/self/mountinfo")
		Expect(err).NotTo(HaveOccurred())
		for line := range strings.Lines(mounts) {
			// Other mounts of FUSE can be the host's, which were there before the node.
			if ours := strings.Contains(line, " /var/lib/sidemount/") || strings.Contains(line, " /var/lib/kubelet/pods/") && strings.Contains(line, " - fuse"); ours {
				found = append(found, fmt.Sprintf("mount on %s: %s", node, line))
			}
		}
		files, err := cluster.OnNode(ctx, node, "find", "/var/lib/sidemount", "/run/sidemount", "-type", "f,s")
		Expect(err).NotTo(HaveOccurred())
		for _, file := range strings.Fields(files) {
			if !slices.Contains(kept, file) {
				found = append(found, node+":"+file)
			}
		}
	}
	return found
}
