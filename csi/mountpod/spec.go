package mountpod

import (
	"crypto/rand"
	"encoding/hex"
	"maps"
	"slices"
	"strconv"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// Labels and annotations of a Mount Pod.
const (
	// NameLabel and NameValue are what all Mount Pods have in common.
	NameLabel = "app.kubernetes.io/name"
	NameValue = "sidemount-mount"
	// DriverLabel is the CSI driver's name.
	DriverLabel = "sidemount.io/driver"
	// SessionLabel is the session that the pod serves.
	SessionLabel = "sidemount.io/session"
	// VolumeAnnotation is the volume's handle, VolumeObjectAnnotation the PersistentVolume's name.
	VolumeAnnotation       = "sidemount.io/volume"
	VolumeObjectAnnotation = "sidemount.io/persistent-volume"
	// UpgradeAnnotation, set on a Mount Pod by an administrator, names the image that its client shall be replaced by; see Keeper.Upgrade. An Event on the
	// pod says how that has ended.
	UpgradeAnnotation = "sidemount.io/upgrade-image"
	// autoscalerAnnotation makes the cluster autoscaler take the pod for a part of the node: it neither keeps the node nor is it evicted.
	autoscalerAnnotation = "cluster-autoscaler.kubernetes.io/daemonset-pod"
)

const (
	// volumeName is what a Mount Pod calls its volume; its container is called after it.
	volumeName = "volume"
	// nameNode is how much of the node's name is in a pod's name.
	nameNode = 20
	// nameHash are the digits that make a pod's name its own.
	nameHash = 6
)

// place is what a Mount Pod is told about this node.
type place struct {
	session    mount.SessionID
	name       string
	sessionDir string
	// agent is the agent's generation.
	agent int
}

// podOf builds the Mount Pod of a share. It is pure.
func podOf(o *Options, m sidecar.Mount, p place) *corev1.Pod {
	m.Volume.Name = volumeName
	container, volumes := sidecar.Container(m, sidecar.Place{SessionDir: p.sessionDir})
	container.ImagePullPolicy = o.ImagePullPolicy
	// Flags stand between the agent's subcommand and the client's command.
	container.Command = slices.Insert(container.Command, 2, agentArgs(p.agent)...)
	grace := int64((o.Relief + o.Grace).Seconds())
	no := false
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: p.name, Namespace: o.Namespace, Labels: podLabels(o, m, p.session), Annotations: podAnnotations(m), OwnerReferences: owner(o),
		},
		Spec: corev1.PodSpec{
			NodeName:                      o.NodeName,
			Containers:                    []corev1.Container{container},
			Volumes:                       append([]corev1.Volume{sidecar.AgentVolume(o.AgentDir)}, volumes...),
			RestartPolicy:                 corev1.RestartPolicyAlways,
			TerminationGracePeriodSeconds: &grace,
			PriorityClassName:             o.PriorityClass,
			ServiceAccountName:            o.ServiceAccount,
			AutomountServiceAccountToken:  &no,
			EnableServiceLinks:            &no,
			Tolerations:                   slices.Clone(o.Tolerations),
			ImagePullSecrets:              slices.Clone(o.ImagePullSecrets),
			SecurityContext:               podSecurity(m),
			HostNetwork:                   o.HostNetwork,
			DNSPolicy:                     corev1.DNSClusterFirst,
		},
	}
	if o.HostNetwork {
		pod.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
	}
	if m.Pod.ServiceAccount != "" {
		// Whoever gives the client an identity means it to be used.
		pod.Spec.ServiceAccountName, pod.Spec.AutomountServiceAccountToken = m.Pod.ServiceAccount, nil
	}
	return pod
}

// podLabels are the volume's own, under those that the keeper finds its pods by.
func podLabels(o *Options, m sidecar.Mount, id mount.SessionID) map[string]string {
	out := maps.Clone(filled(m.Pod.Labels))
	out[NameLabel], out[DriverLabel], out[SessionLabel] = NameValue, o.Driver, string(id)
	return out
}

func podAnnotations(m sidecar.Mount) map[string]string {
	out := maps.Clone(filled(m.Pod.Annotations))
	delete(out, UpgradeAnnotation) // it is about one pod, and not about its successors
	out[autoscalerAnnotation] = "true"
	out[VolumeAnnotation] = string(m.Volume.ID)
	if m.PersistentVolume != "" {
		out[VolumeObjectAnnotation] = m.PersistentVolume
	}
	return out
}

// agentArgs are the agent's flags. One that is deleted has until noticed to hear that it shall serve on.
func agentArgs(generation int) []string {
	args := []string{"-relief", noticed.String()}
	if generation > 0 {
		args = append(args, "-generation", strconv.Itoa(generation))
	}
	return args
}

// owner is the Node; see the package's comment.
func owner(o *Options) []metav1.OwnerReference {
	if o.NodeUID == "" {
		return nil
	}
	yes := true
	return []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: o.NodeName, UID: o.NodeUID, Controller: &yes}}
}

// podSecurity gives the client's group to volumes that the cluster provides: a new claim belongs to root.
func podSecurity(m sidecar.Mount) *corev1.PodSecurityContext {
	nonRoot := m.UID != 0
	sc := &corev1.PodSecurityContext{
		RunAsNonRoot:   &nonRoot,
		SeccompProfile: &corev1.SeccompProfile{Type: corev1.SeccompProfileTypeRuntimeDefault},
	}
	if slices.ContainsFunc(m.Caches, func(c sidecar.Cache) bool { return c.Claim != "" || c.Inline != nil }) {
		change := corev1.FSGroupChangeOnRootMismatch
		sc.FSGroup, sc.FSGroupChangePolicy = &m.GID, &change
	}
	return sc
}

// newName returns a name that no other pod has: sidemount-<node>-<volume>-<6 digits>, at most 57 characters, so that it is a host name too.
func newName(node string, volume mount.VolumeID) string {
	var b [nameHash / 2]byte
	_, _ = rand.Read(b[:]) // it never fails (crypto/rand)
	name := lead(node)
	if len(name) > nameNode {
		name = name[:nameNode]
	}
	return "sidemount-" + name + "-" + lead(string(volume)) + "-" + hex.EncodeToString(b[:])
}

// cpuAndMemory is the pod's request in words.
func cpuAndMemory(m sidecar.Mount) string {
	cpu, memory := m.Resources.Requests[corev1.ResourceCPU], m.Resources.Requests[corev1.ResourceMemory]
	return "cpu " + cpu.String() + ", memory " + memory.String()
}

// session returns the session that a pod serves.
func session(pod *corev1.Pod) mount.SessionID { return mount.SessionID(pod.Labels[SessionLabel]) }
