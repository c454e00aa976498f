package chart

import (
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// nodeService reaches the driver's pods as the node service of a node does, with a token that was issued for that node.
func nodeService(node string) typedv1.PodInterface {
	GinkgoHelper()
	config := rest.CopyConfig(cluster.Config)
	config.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + release.Namespace + ":" + release.Release + "-node",
		Groups:   []string{"system:serviceaccounts", "system:serviceaccounts:" + release.Namespace, "system:authenticated"},
		Extra:    map[string][]string{"authentication.kubernetes.io/node-name": {node}},
	}
	client, err := typedv1.NewForConfig(config)
	Expect(err).NotTo(HaveOccurred())
	return client.Pods(release.Namespace)
}

// mountPod is one as the node service of a release makes it, as far as its policy looks at it.
func mountPod(release string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "thief", Labels: map[string]string{"app.kubernetes.io/name": "sidemount-mount"}},
		Spec: corev1.PodSpec{
			NodeName: lab.OrdinaryNode, ServiceAccountName: release + "-mount",
			Containers: []corev1.Container{{
				Name: "sidemount-volume", Image: lab.Image,
				Env: []corev1.EnvVar{{Name: "PLAIN", Value: "x"}, {Name: "NODE", ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: "spec.nodeName"}}}},
				SecurityContext: &corev1.SecurityContext{
					AllowPrivilegeEscalation: ptr.To(false), Capabilities: &corev1.Capabilities{Drop: []corev1.Capability{"ALL"}},
				},
			}},
			Volumes: []corev1.Volume{
				{Name: "agent", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: "/tmp"}}},
				{Name: "cache", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
				{Name: "claim", VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "cache"}}},
				projected(corev1.VolumeProjection{ServiceAccountToken: &corev1.ServiceAccountTokenProjection{Path: "token"}}),
			},
		},
	}
}

func projected(source corev1.VolumeProjection) corev1.Volume {
	return corev1.Volume{Name: "projected", VolumeSource: corev1.VolumeSource{Projected: &corev1.ProjectedVolumeSource{Sources: []corev1.VolumeProjection{source}}}}
}

// thefts are Mount Pods by which a node would get what others have, and what its policy says of each.
func thefts(release string) map[*corev1.Pod]string {
	of := corev1.LocalObjectReference{Name: release + "-" + class}
	all := map[*corev1.Pod]string{}
	add := func(says string, change func(*corev1.PodSpec)) {
		p := mountPod(release)
		change(&p.Spec)
		all[p] = says
	}
	for _, part := range []string{"controller", "node", "webhook"} {
		add("no service account of Sidemount's other parts", func(p *corev1.PodSpec) { p.ServiceAccountName = release + "-" + part })
	}
	add("no service account of Sidemount's other parts", func(p *corev1.PodSpec) {
		p.ServiceAccountName, p.DeprecatedServiceAccount = "", release+"-controller"
	})
	add("no Secret as a volume", func(p *corev1.PodSpec) {
		p.Volumes[1].VolumeSource = corev1.VolumeSource{Secret: &corev1.SecretVolumeSource{SecretName: of.Name}}
	})
	add("no Secret as a volume", func(p *corev1.PodSpec) {
		p.Volumes[3] = projected(corev1.VolumeProjection{Secret: &corev1.SecretProjection{LocalObjectReference: of}})
	})
	add("no Secret in its environment", func(p *corev1.PodSpec) {
		p.Containers[0].EnvFrom = []corev1.EnvFromSource{{SecretRef: &corev1.SecretEnvSource{LocalObjectReference: of}}}
	})
	add("no Secret in its environment", func(p *corev1.PodSpec) {
		p.InitContainers = []corev1.Container{*p.Containers[0].DeepCopy()}
		p.InitContainers[0].Name = "first"
		p.InitContainers[0].Env[1].ValueFrom = &corev1.EnvVarSource{SecretKeyRef: &corev1.SecretKeySelector{LocalObjectReference: of, Key: "metaurl"}}
	})
	return all
}
