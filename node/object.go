package node

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const (
	// TaintKey keeps away pods that do not ask for a virtual node; it is virtual-kubelet's conventional key.
	TaintKey = "virtual-kubelet.io/provider"
	// LabelServerless marks the node for people's nodeSelectors.
	LabelServerless = "sidemount.io/serverless"
	// LabelType is virtual-kubelet's conventional label; cloud controllers and charts exclude type=virtual-kubelet.
	LabelType = "type"
	// labelExcludeBalancers keeps cloud load balancers from sending traffic to a node that runs no kube-proxy of its own.
	labelExcludeBalancers = corev1.LabelNodeExcludeBalancers
)

// Object describes the Node object. Only Name, Addresses and Version are required.
type Object struct {
	// Name is the node's name in the cluster, a DNS subdomain.
	Name string
	// Addresses are the node's addresses. The API server reaches the HTTPS API at the first one of the type that it prefers.
	Addresses []corev1.NodeAddress
	// Port of the HTTPS API. Default 10250.
	Port int32
	// Version is what the node reports as its kubelet's version, see Version.
	Version string
	// RuntimeVersion is the container runtime as <name>://<version>, e.g. containerd://2.4.2.
	RuntimeVersion string
	// Labels are added to the node's own labels and win over them. Validate refuses those that NodeRestriction forbids.
	Labels map[string]string
	// Taints replace the default taint virtual-kubelet.io/provider=sidemount:NoSchedule if not nil; an empty slice means no
	// taint at all. They are set at registration only: NodeRestriction forbids a node to change its taints later.
	Taints []corev1.Taint
	// ProviderID is spec.providerID. Default sidemount://<name>: a scheme that no cloud controller knows, so that none of
	// them deletes the node for not being one of its machines.
	ProviderID string
	// Capacity replaces single quantities of the host's capacity (cpu, memory, ephemeral-storage, pods, …). Pods default to
	// 110, the kubelet's default.
	Capacity corev1.ResourceList
	// Reserved is taken off the capacity to make the allocatable resources. Default nothing.
	Reserved corev1.ResourceList
	// RuntimeHandlers are the RuntimeClass handlers that the runtime announces. Optional.
	RuntimeHandlers []corev1.NodeRuntimeHandler
}

// DefaultTaint is the taint of a node whose options name none.
func DefaultTaint() corev1.Taint {
	return corev1.Taint{Key: TaintKey, Value: "sidemount", Effect: corev1.TaintEffectNoSchedule}
}

// Version is the version that a node reports: the Kubernetes version that it behaves like, with Sidemount's own version as
// a pre-release part, so that version parsers (kubectl, kubeadm, autoscalers) still read it.
func Version(kubernetes, own string) string {
	return kubernetes + "-sidemount-" + own
}

// Build makes the Node object as it is registered. It is pure.
func Build(o Object, h Host, conditions []corev1.NodeCondition) *corev1.Node {
	capacity := capacityOf(o, h)
	return &corev1.Node{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Node"},
		ObjectMeta: metav1.ObjectMeta{
			Name:   o.Name,
			Labels: labelsOf(o, h),
		},
		Spec: corev1.NodeSpec{
			ProviderID: orDefault(o.ProviderID, "sidemount://"+o.Name),
			Taints:     taintsOf(o),
		},
		Status: corev1.NodeStatus{
			Capacity:        capacity,
			Allocatable:     allocatableOf(capacity, o.Reserved),
			Conditions:      conditions,
			Addresses:       slices.Clone(o.Addresses),
			DaemonEndpoints: corev1.NodeDaemonEndpoints{KubeletEndpoint: corev1.DaemonEndpoint{Port: orDefault(o.Port, 10250)}},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID:               h.MachineID,
				SystemUUID:              h.SystemUUID,
				BootID:                  h.BootID,
				KernelVersion:           h.KernelVersion,
				OSImage:                 h.OSImage,
				ContainerRuntimeVersion: o.RuntimeVersion,
				KubeletVersion:          o.Version,
				OperatingSystem:         "linux",
				Architecture:            h.Architecture,
			},
			RuntimeHandlers: slices.Clone(o.RuntimeHandlers),
		},
	}
}

func labelsOf(o Object, h Host) map[string]string {
	labels := map[string]string{
		LabelType:              "virtual-kubelet",
		LabelServerless:        "true",
		labelExcludeBalancers:  "true",
		corev1.LabelHostname:   o.Name,
		corev1.LabelOSStable:   "linux",
		corev1.LabelArchStable: h.Architecture,
	}
	maps.Copy(labels, o.Labels)
	return labels
}

func taintsOf(o Object) []corev1.Taint {
	if o.Taints == nil {
		return []corev1.Taint{DefaultTaint()}
	}
	return slices.Clone(o.Taints)
}

func capacityOf(o Object, h Host) corev1.ResourceList {
	capacity := corev1.ResourceList{
		corev1.ResourceCPU:              *resource.NewQuantity(h.CPUs, resource.DecimalSI),
		corev1.ResourceMemory:           *resource.NewQuantity(h.MemoryBytes, resource.BinarySI),
		corev1.ResourceEphemeralStorage: *resource.NewQuantity(h.StorageBytes, resource.BinarySI),
		corev1.ResourcePods:             *resource.NewQuantity(110, resource.DecimalSI),
	}
	for size, bytes := range h.HugePages {
		page := resource.NewQuantity(size, resource.BinarySI)
		capacity[corev1.ResourceName(corev1.ResourceHugePagesPrefix+page.String())] = *resource.NewQuantity(bytes, resource.BinarySI)
	}
	maps.Copy(capacity, o.Capacity)
	return capacity
}

// allocatableOf subtracts what is reserved, and huge pages from memory, because a page that is set aside for huge pages
// cannot serve a memory request.
func allocatableOf(capacity, reserved corev1.ResourceList) corev1.ResourceList {
	allocatable := capacity.DeepCopy()
	subtract := func(name corev1.ResourceName, q resource.Quantity) {
		left, ok := allocatable[name]
		if !ok {
			return
		}
		left.Sub(q)
		if left.Sign() < 0 {
			left = *resource.NewQuantity(0, left.Format)
		}
		allocatable[name] = left
	}
	for name, q := range reserved {
		subtract(name, q)
	}
	for name, q := range capacity {
		if isHugePages(name) {
			subtract(corev1.ResourceMemory, q)
		}
	}
	return allocatable
}

func isHugePages(name corev1.ResourceName) bool {
	return len(name) > len(corev1.ResourceHugePagesPrefix) &&
		string(name[:len(corev1.ResourceHugePagesPrefix)]) == corev1.ResourceHugePagesPrefix
}

func orDefault[T comparable](value, fallback T) T {
	var zero T
	if value == zero {
		return fallback
	}
	return value
}
