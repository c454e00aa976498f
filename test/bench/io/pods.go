package main

import (
	"context"
	"errors"
	"os"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// user is whose a passthrough client's files are.
const user = 65534

// Shares of the processor: every place has the same, those with a sidecar together with it.
const (
	wholeShare   = "500m"
	appShare     = "250m"
	sidecarShare = "250m"
)

// startPod makes a place and waits until it can be measured.
func (b *benchmark) startPod(ctx context.Context, name string) error {
	dir := b.memory.path(name)
	if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, user, user)); err != nil {
		return err
	}
	var pod *corev1.Pod
	switch name {
	case theirs:
		pod = stockPod(dir)
	case native:
		pod = lab.Pod(name, "", hostPath(dir, "/data"), asUser(user), program(wholeShare, "/load", "idle"))
	default:
		files, err := b.volume(name)
		if err != nil {
			return err
		}
		// The lab makes a directory on disk for each volume; these lie in memory.
		if err := errors.Join(os.RemoveAll(files.Dir), files.Create(ctx, b.lab)); err != nil {
			return err
		}
		pod = lab.Pod(name, "", lab.Claim(name), asUser(user), program(appShare, "/load", "idle"))
	}
	pods := b.lab.Client.CoreV1().Pods(namespace)
	if _, err := pods.Create(ctx, pod, metav1.CreateOptions{}); err != nil {
		return err
	}
	return until(ctx, "pod "+name, func() (bool, error) {
		p, err := pods.Get(ctx, name, metav1.GetOptions{})
		if err != nil || p.Status.Phase != corev1.PodRunning {
			return false, err
		}
		if name != theirs {
			return true, nil
		}
		mounts, err := b.lab.Kubectl(ctx, "exec", "-n", namespace, name, "--", "/load", "mounts")
		return strings.Contains(mounts, " /data fuse."), err
	})
}

// stockPod mounts a volume like ours itself, for which it needs every privilege.
func stockPod(dir string) *corev1.Pod {
	const meta = "sqlite3:///volume/meta.db"
	mount := []string{"/juicefs", "mount", "--no-usage-report", "--no-syslog"}
	for _, o := range clientOptions {
		key, value, _ := strings.Cut(o, "=")
		mount = append(mount, "--"+key, value)
	}
	pod := lab.Pod(theirs, "", lab.Init("format", ""), hostPath(dir, "/volume"), asUser(0), program(wholeShare, append(mount, meta, "/data")...))
	format := &pod.Spec.InitContainers[0]
	format.Image, format.Command = imageName, []string{"/juicefs", "format", "--storage", "file", "--bucket", "/volume/bucket/", "--trash-days", "0", meta, "lab"}
	pod.Spec.Containers[0].SecurityContext = &corev1.SecurityContext{Privileged: ptr.To(true)}
	return pod
}

func program(share string, argv ...string) lab.PodOption {
	return lab.Change(func(p *corev1.Pod) {
		c := &p.Spec.Containers[0]
		c.Image, c.Command = imageName, argv
		c.Resources.Requests[corev1.ResourceCPU] = resource.MustParse(share)
	})
}

func asUser(id int64) lab.PodOption {
	return lab.Change(func(p *corev1.Pod) {
		p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: &id, RunAsGroup: &id}
	})
}

func hostPath(dir, path string) lab.PodOption {
	return lab.Volume("place", path, corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: dir}})
}
