package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sidemount/sidemount/sidecar"
)

func mountPod(namespace, name, label string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name,
			Labels:      map[string]string{"app.kubernetes.io/name": label, "sidemount.io/driver": "csi.sidemount.io"},
			Annotations: map[string]string{"sidemount.io/volume": "data"}},
		Spec: corev1.PodSpec{NodeName: "node-1"},
	}
}

func TestCheckUnusedNamesTheMountPods(t *testing.T) {
	client := fake.NewClientset(mountPod("sidemount", "sidemount-node-1-data", "sidemount-mount"))
	o := checkUnusedOptions{namespace: "sidemount", driverName: "csi.sidemount.io"}
	err := o.check(t.Context(), client)
	if err == nil || !strings.Contains(err.Error(), "data on node-1 by Mount Pod sidemount/sidemount-node-1-data") {
		t.Errorf("got %v, want an error that names node and pod", err)
	}
}

func TestCheckUnusedIgnoresOtherPods(t *testing.T) {
	client := fake.NewClientset(mountPod("sidemount", "other", "sidemount"), mountPod("elsewhere", "mount", "sidemount-mount"))
	other := mountPod("sidemount", "juicefs", "sidemount-mount")
	other.Labels["sidemount.io/driver"] = "csi.juicefs.com"
	if err := client.Tracker().Add(other); err != nil {
		t.Fatal(err)
	}
	o := checkUnusedOptions{namespace: "sidemount", driverName: "csi.sidemount.io"}
	if err := o.check(t.Context(), client); err != nil {
		t.Error(err)
	}
}

func TestCheckUnusedWaitsForTheLastMountPod(t *testing.T) {
	client := fake.NewClientset(mountPod("sidemount", "last", "sidemount-mount"))
	o := checkUnusedOptions{namespace: "sidemount", driverName: "csi.sidemount.io", wait: 30 * time.Second}
	checked := make(chan error, 1)
	go func() { checked <- o.check(t.Context(), client) }()
	if err := client.CoreV1().Pods("sidemount").Delete(t.Context(), "last", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := <-checked; err != nil {
		t.Error(err)
	}
}

// ownSidecar is a pod whose volume a sidecar of its own serves.
func ownSidecar(name, node string, phase corev1.PodPhase) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name},
		Spec: corev1.PodSpec{NodeName: node, Volumes: []corev1.Volume{{Name: "sidemount-session-data", VolumeSource: corev1.VolumeSource{
			CSI: &corev1.CSIVolumeSource{Driver: "csi.sidemount.io", VolumeAttributes: map[string]string{sidecar.SessionAttribute: "data"}},
		}}}},
		Status: corev1.PodStatus{Phase: phase},
	}
}

func TestCheckUnusedNamesPodsWithSidecarsOfTheirOwn(t *testing.T) {
	client := fake.NewClientset(ownSidecar("running", "node-1", corev1.PodRunning), ownSidecar("starting", "node-2", corev1.PodPending))
	o := checkUnusedOptions{namespace: "sidemount", driverName: "csi.sidemount.io", sidecars: true}
	err := o.check(t.Context(), client)
	if err == nil || !strings.Contains(err.Error(), "data on node-1 by Pod shop/running; data on node-2 by Pod shop/starting") {
		t.Errorf("got %v, want an error that names both pods", err)
	}
	o.sidecars = false
	if err := o.check(t.Context(), client); err != nil {
		t.Errorf("without --sidecars: %v", err)
	}
}

func TestCheckUnusedIgnoresPodsWithoutAMountOfTheirOwn(t *testing.T) {
	other := ownSidecar("juicefs", "node-1", corev1.PodRunning)
	other.Spec.Volumes[0].CSI.Driver = "csi.juicefs.com"
	client := fake.NewClientset(other, ownSidecar("waits", "", corev1.PodPending), ownSidecar("done", "node-1", corev1.PodSucceeded), ownSidecar("failed", "node-1", corev1.PodFailed))
	o := checkUnusedOptions{namespace: "sidemount", driverName: "csi.sidemount.io", sidecars: true}
	if err := o.check(t.Context(), client); err != nil {
		t.Error(err)
	}
}
