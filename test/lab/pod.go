package lab

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// Image has a shell and the usual small tools; hack/cluster serves it.
const Image = "busybox:1.36"

// PodOption changes a pod under construction.
type PodOption func(*corev1.Pod)

// Pod is a non-root pod on the virtual node whose one container "app" runs a shell script.
func Pod(name, script string, options ...PodOption) *corev1.Pod {
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{
			RestartPolicy:                 corev1.RestartPolicyNever,
			TerminationGracePeriodSeconds: ptr.To(int64(5)),
			NodeSelector:                  map[string]string{"sidemount.io/serverless": "true"},
			Tolerations: []corev1.Toleration{{
				Key: "virtual-kubelet.io/provider", Operator: corev1.TolerationOpEqual, Value: "sidemount", Effect: corev1.TaintEffectNoSchedule,
			}},
			SecurityContext: &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(1000)), RunAsGroup: ptr.To(int64(1000))},
			Containers: []corev1.Container{{
				Name: "app", Image: Image, Command: []string{"sh", "-c", script},
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("10m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
				}},
			}},
		},
	}
	for _, o := range options {
		o(p)
	}
	return p
}

// OnOrdinaryNode puts the pod on the kubelet's node instead.
func OnOrdinaryNode(p *corev1.Pod) {
	p.Spec.NodeSelector = map[string]string{"kubernetes.io/hostname": OrdinaryNode}
	p.Spec.Tolerations = nil
}

// RestartPolicy sets the pod's restart policy.
func RestartPolicy(policy corev1.RestartPolicy) PodOption {
	return func(p *corev1.Pod) { p.Spec.RestartPolicy = policy }
}

// Volume adds a volume and mounts it into every container at path.
func Volume(name, path string, source corev1.VolumeSource) PodOption {
	return func(p *corev1.Pod) {
		p.Spec.Volumes = append(p.Spec.Volumes, corev1.Volume{Name: name, VolumeSource: source})
		for i := range p.Spec.Containers {
			p.Spec.Containers[i].VolumeMounts = append(p.Spec.Containers[i].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
		}
		for i := range p.Spec.InitContainers {
			p.Spec.InitContainers[i].VolumeMounts = append(p.Spec.InitContainers[i].VolumeMounts, corev1.VolumeMount{Name: name, MountPath: path})
		}
	}
}

// User runs the pod's containers as another user and group.
func User(id int64) PodOption {
	return func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(id), RunAsGroup: ptr.To(id)}
	}
}

// Claim mounts a PersistentVolumeClaim at /data.
func Claim(name string) PodOption {
	return Volume("data", "/data", corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: name}})
}

// Init adds an init container that runs a shell script.
func Init(name, script string) PodOption {
	return func(p *corev1.Pod) {
		p.Spec.InitContainers = append(p.Spec.InitContainers, corev1.Container{
			Name: name, Image: Image, Command: []string{"sh", "-c", script}, VolumeMounts: p.Spec.Containers[0].VolumeMounts,
		})
	}
}

// Change applies any other change.
func Change(f func(*corev1.Pod)) PodOption { return f }
