package main

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/component-helpers/storage/ephemeral"

	"github.com/sidemount/sidemount/sidecar"
	"github.com/sidemount/sidemount/sidecar/session"
)

// upgrade asks the node of a pod for new clients, through the API server alone: an annotation asks, a condition answers.
type upgrade struct {
	client                 kubernetes.Interface
	namespace, pod, volume string
	image                  string
	timeout                time.Duration
	out                    io.Writer
}

// limited ends with the command's patience.
func (u *upgrade) limited(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeoutCause(ctx, u.timeout, fmt.Errorf("no answer within %s", u.timeout))
}

func (u *upgrade) run(ctx context.Context) error {
	pod, err := u.client.CoreV1().Pods(u.namespace).Get(ctx, u.pod, metav1.GetOptions{})
	if err != nil {
		return err
	}
	if err := u.applicable(pod); err != nil {
		return err
	}
	if u.image != "" {
		if err := u.writeImage(ctx, pod); err != nil {
			return err
		}
	}
	request := strings.ToLower(rand.Text()[:8])
	if u.volume != "" {
		request = u.volume + "/" + request
	}
	if err := u.ask(ctx, pod, request); err != nil {
		return err
	}
	return u.await(ctx, pod, request)
}

// applicable refuses at once what no node would answer.
func (u *upgrade) applicable(pod *corev1.Pod) error {
	ready := conditionOf(pod, session.VolumesReady)
	switch {
	case pod.Status.Phase != corev1.PodRunning:
		return fmt.Errorf("pod %s is %s, and only the clients of running pods can be replaced", u.pod, pod.Status.Phase)
	case ready == nil:
		return fmt.Errorf("pod %s has no volume that a virtual node serves", u.pod)
	case u.volume == "":
		return nil
	}
	for _, v := range pod.Spec.Volumes {
		if v.Name == u.volume {
			return nil
		}
	}
	return fmt.Errorf("pod %s has no volume %q", u.pod, u.volume)
}

// writeImage chooses the image on the PersistentVolumes: only who may change those decides what code gets a volume's Secret.
func (u *upgrade) writeImage(ctx context.Context, pod *corev1.Pod) error {
	written := 0
	for _, v := range pod.Spec.Volumes {
		claim := ""
		switch {
		case u.volume != "" && v.Name != u.volume:
			continue
		case v.PersistentVolumeClaim != nil:
			claim = v.PersistentVolumeClaim.ClaimName
		case v.Ephemeral != nil:
			claim = ephemeral.VolumeClaimName(pod, &v)
		default:
			continue
		}
		c, err := u.client.CoreV1().PersistentVolumeClaims(u.namespace).Get(ctx, claim, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if c.Spec.VolumeName == "" {
			continue
		}
		if err := u.patch(ctx, "persistentvolumes", c.Spec.VolumeName, sidecar.ImageAnnotation, u.image); err != nil {
			return err
		}
		written++
	}
	if written == 0 {
		return errors.New("--image needs a volume with a PersistentVolume")
	}
	return nil
}

func (u *upgrade) ask(ctx context.Context, pod *corev1.Pod, request string) error {
	return u.patch(ctx, "pods", pod.Name, session.UpgradeAnnotation, request)
}

func (u *upgrade) patch(ctx context.Context, resource, name, annotation, value string) error {
	patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]string{annotation: value}}})
	if err != nil {
		return err
	}
	if resource == "pods" {
		_, err = u.client.CoreV1().Pods(u.namespace).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	} else {
		_, err = u.client.CoreV1().PersistentVolumes().Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	}
	return err
}

// await follows the pod until its node has answered.
func (u *upgrade) await(ctx context.Context, pod *corev1.Pod, request string) error {
	for {
		answered, err := u.follow(ctx, pod, request)
		if answered || err != nil {
			return err
		}
		// The API server has ended the watch, as it does from time to time.
		pause := time.NewTimer(time.Second)
		select {
		case <-ctx.Done():
			pause.Stop()
			return fmt.Errorf("wait for pod %s: %w", u.pod, context.Cause(ctx))
		case <-pause.C:
		}
	}
}

func (u *upgrade) follow(ctx context.Context, pod *corev1.Pod, request string) (answered bool, err error) {
	selector := fields.OneTermEqualSelector("metadata.name", pod.Name).String()
	watcher, err := u.client.CoreV1().Pods(u.namespace).Watch(ctx, metav1.ListOptions{FieldSelector: selector})
	if err != nil {
		if ctx.Err() != nil || apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
			return false, fmt.Errorf("wait for pod %s: %w", u.pod, err)
		}
		return false, nil
	}
	defer watcher.Stop()
	for {
		select {
		case <-ctx.Done():
			return false, fmt.Errorf("wait for pod %s: %w", u.pod, context.Cause(ctx))
		case e, open := <-watcher.ResultChan():
			if !open {
				return false, nil
			}
			now, ok := e.Object.(*corev1.Pod)
			if !ok {
				continue
			}
			if answered, err := u.judge(now, pod, request); answered || err != nil {
				return answered, err
			}
		}
	}
}

// judge looks for the answer to the request in the pod's status.
func (u *upgrade) judge(now, asked *corev1.Pod, request string) (answered bool, err error) {
	if now.UID != asked.UID || now.DeletionTimestamp != nil || now.Status.Phase != corev1.PodRunning {
		return false, fmt.Errorf("pod %s has ended meanwhile", u.pod)
	}
	c := conditionOf(now, session.ClientUpgraded)
	if c == nil || c.Status == corev1.ConditionUnknown || !strings.HasSuffix(c.Message, session.Answer(request)) {
		return false, nil
	}
	message := strings.TrimSuffix(c.Message, session.Answer(request))
	if c.Status != corev1.ConditionTrue {
		return true, errors.New(oneLine(message))
	}
	say(u.out, "%s", message)
	return true, nil
}

func conditionOf(pod *corev1.Pod, t corev1.PodConditionType) *corev1.PodCondition {
	for i := range pod.Status.Conditions {
		if pod.Status.Conditions[i].Type == t {
			return &pod.Status.Conditions[i]
		}
	}
	return nil
}
