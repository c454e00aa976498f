package main

import (
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
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
