package main

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/session"
)

// shop has a running pod with a volume.
func shop() *fake.Clientset {
	return fake.NewClientset(
		&corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
			Spec: corev1.PodSpec{Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: "data"}}}}},
			Status: corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{
				{Type: session.VolumesReady, Status: corev1.ConditionTrue},
				{Type: session.ClientUpgraded, Status: corev1.ConditionTrue, Message: "volume \"data\": of an earlier request" + session.Answer("earlier")},
			}},
		},
		&corev1.PersistentVolumeClaim{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "data"}, Spec: corev1.PersistentVolumeClaimSpec{VolumeName: "pv-1"}},
		&corev1.PersistentVolume{ObjectMeta: metav1.ObjectMeta{Name: "pv-1"}},
	)
}

// answer plays the node: it waits for the request and answers it.
func answer(ctx context.Context, t *testing.T, client *fake.Clientset, status corev1.ConditionStatus, message string) {
	t.Helper()
	pods := client.CoreV1().Pods("shop")
	for tick := time.NewTicker(5 * time.Millisecond); ; {
		p, err := pods.Get(ctx, "web", metav1.GetOptions{})
		if err != nil {
			return
		}
		if asked := p.Annotations[session.UpgradeAnnotation]; asked != "" {
			p.Status.Conditions[1] = corev1.PodCondition{Type: session.ClientUpgraded, Status: status, Message: message + session.Answer(asked)}
			if _, err := pods.UpdateStatus(ctx, p, metav1.UpdateOptions{}); err != nil {
				t.Error(err)
			}
			return
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

func TestClientUpgrade(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := shop()
	var out bytes.Buffer
	u := &upgrade{client: client, namespace: "shop", pod: "web", volume: "data", image: "client:2", out: &out}
	go answer(ctx, t, client, corev1.ConditionTrue, "volume \"data\": the client was upgraded")
	if err := u.run(ctx); err != nil {
		t.Fatal(err)
	}
	if got := out.String(); got != "volume \"data\": the client was upgraded\n" {
		t.Errorf("it says %q", got)
	}
	pv, err := client.CoreV1().PersistentVolumes().Get(ctx, "pv-1", metav1.GetOptions{})
	if err != nil || pv.Annotations[sidecar.ImageAnnotation] != "client:2" {
		t.Errorf("the PersistentVolume has %v, %v", pv.Annotations, err)
	}
	p, err := client.CoreV1().Pods("shop").Get(ctx, "web", metav1.GetOptions{})
	if err != nil || !strings.HasPrefix(p.Annotations[session.UpgradeAnnotation], "data/") {
		t.Errorf("the pod has %v, %v", p.Annotations, err)
	}
}

func TestClientUpgradeThatFailsIsOneLine(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	client := shop()
	u := &upgrade{client: client, namespace: "shop", pod: "web", out: &bytes.Buffer{}}
	go answer(ctx, t, client, corev1.ConditionFalse, "volume \"data\": no such\nimage")
	err := u.run(ctx)
	if err == nil || err.Error() != `volume "data": no such image` {
		t.Errorf("error = %v", err)
	}
}

func TestClientUpgradeRefusesWhatNobodyWouldAnswer(t *testing.T) {
	for want, change := range map[string]func(*corev1.Pod, *upgrade){
		"is Pending":                           func(p *corev1.Pod, _ *upgrade) { p.Status.Phase = corev1.PodPending },
		"no volume that a virtual node":        func(p *corev1.Pod, _ *upgrade) { p.Status.Conditions = nil },
		`pod web has no volume "other"`:        func(_ *corev1.Pod, u *upgrade) { u.volume = "other" },
		"wait for pod web: no answer within 1": func(_ *corev1.Pod, u *upgrade) { u.timeout = 100 * time.Millisecond },
	} {
		client := shop()
		u := &upgrade{client: client, namespace: "shop", pod: "web", timeout: 10 * time.Second, out: &bytes.Buffer{}}
		p, err := client.CoreV1().Pods("shop").Get(t.Context(), "web", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		change(p, u)
		if _, err := client.CoreV1().Pods("shop").Update(t.Context(), p, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := u.limited(t.Context())
		err = u.run(ctx)
		cancel()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want %q, got %v", want, err)
		}
	}
}
