package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/sidemount/sidemount/test/lab"
)

// image has the workload and the programs that it runs. Git runs its parts through a shell.
var image = lab.ProgramImage{
	Name:     "recovery/workload:1",
	Package:  "test/recovery/workload",
	Programs: []string{"fio", "sqlite3", "git", "busybox"},
	Links: []string{
		"/usr/bin/busybox:/bin/sh", "/usr/bin/git:/usr/lib/git-core/git",
		"git:/usr/bin/git-upload-pack", "git:/usr/bin/git-receive-pack",
	},
}

// user is who the workloads run as: a passthrough client's files belong to the user of the client, so they are that one.
const user = 65534

// newSubjects describes the pods: for each client one that knows every byte, and one with other people's programs.
func (t *trial) newSubjects() []*subject {
	var clients []string
	if len(t.kinds) > 0 {
		clients = append(clients, "juicefs", "passthrough")
	}
	if len(t.mountPodKinds) > 0 {
		clients = append(clients, onMountPod)
	}
	var all []*subject
	for _, client := range clients {
		name := strings.ReplaceAll(client, " ", "-")
		all = append(all,
			&subject{name: name + "-own", kind: client, workloads: []string{"verify", "append", "follow"}},
			&subject{name: name + "-programs", kind: client, workloads: []string{"fio", "sqlite", "git"}})
	}
	return all
}

// memoryLimits are the sidecars'. They are small, because running out of memory is one of the ways to die.
var memoryLimits = map[string]string{"juicefs": "448Mi", "passthrough": "160Mi", onMountPod: "448Mi"}

// start creates a subject's volume and pod.
func (t *trial) start(ctx context.Context, s *subject) error {
	describe := map[string]func(namespace, name string) (*lab.FileSystem, error){"juicefs": lab.JuiceFS, "passthrough": lab.Passthrough, onMountPod: lab.JuiceFS}[s.kind]
	files, err := describe(t.namespace, s.name)
	if err != nil {
		return err
	}
	s.files = files
	s.results = files.Dir + "-results"
	files.PV.Spec.CSI.VolumeAttributes["juicefs/mount-memory-limit"] = memoryLimits[s.kind]
	if files.Secret != nil && slices.Contains(s.workloads, "verify") {
		// A file in JuiceFS's trash counts as a name of its own, which the verifier does not expect.
		files.Secret.StringData["format-options"] = "trash-days=0"
	}
	if err := makeResults(s.results); err != nil {
		return err
	}
	if err := files.Create(ctx, t.lab); err != nil {
		return err
	}
	p, err := t.lab.Client.CoreV1().Pods(t.namespace).Create(ctx, t.pod(s, s.name, s.workloads), metav1.CreateOptions{})
	if err != nil {
		return err
	}
	s.uid = p.UID
	s.logs = s.podLogs(t.podLogs, t.namespace)
	return nil
}

// makeResults makes the directory that workloads write to, as whoever they run.
func makeResults(dir string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	return os.Chmod(dir, 0o777)
}

// pod runs workloads on a subject's volume, each in a container of its own.
func (t *trial) pod(s *subject, name string, workloads []string) *corev1.Pod {
	p := lab.Pod(name, "")
	p.Spec.SecurityContext = &corev1.PodSecurityContext{RunAsUser: ptr.To(int64(user)), RunAsGroup: ptr.To(int64(user))}
	if s.kind == onMountPod {
		lab.OnOrdinaryNode(p)
	}
	p.Spec.Containers = nil
	for i, w := range workloads {
		p.Spec.Containers = append(p.Spec.Containers, t.container(w, t.seed+uint64(i)))
	}
	p.Spec.Volumes = []corev1.Volume{
		{Name: volumeName, VolumeSource: corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: s.name}}},
		{Name: "results", VolumeSource: corev1.VolumeSource{HostPath: &corev1.HostPathVolumeSource{Path: s.results}}},
		{Name: "scratch", VolumeSource: corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{}}},
	}
	return p
}

func (t *trial) container(workload string, seed uint64) corev1.Container {
	return corev1.Container{
		Name:    workload,
		Image:   image.Name,
		Command: []string{"/workload", workload, "--dir", "/data", "--results", "/results", "--scratch", "/scratch", "--seed", fmt.Sprint(seed), "--pace", paces[workload]},
		// The Go runtime interrupts its own threads with signals, and a system call that is interrupted may say so.
		Env: []corev1.EnvVar{{Name: "GODEBUG", Value: "asyncpreemptoff=1"}},
		Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
			corev1.ResourceCPU: resource.MustParse("5m"), corev1.ResourceMemory: resource.MustParse("16Mi"),
		}},
		VolumeMounts: []corev1.VolumeMount{
			{Name: volumeName, MountPath: "/data"},
			{Name: "results", MountPath: "/results"},
			{Name: "scratch", MountPath: "/scratch"},
		},
	}
}

// paces leave some of a small machine to the clients and the node.
var paces = map[string]string{"verify": "10ms", "append": "4ms", "follow": "4ms", "fio": "200ms", "sqlite": "10ms", "git": "200ms", "audit": "1ms"}

// gone reads the error of a request for an object that is to go away.
func gone(err error) (bool, error) {
	if apierrors.IsNotFound(err) {
		return true, nil
	}
	return false, err
}

// remove deletes a pod and waits until it is gone, and with it its session.
func (t *trial) remove(ctx context.Context, name string) error {
	pods := t.lab.Client.CoreV1().Pods(t.namespace)
	if err := pods.Delete(ctx, name, metav1.DeleteOptions{}); err != nil {
		return err
	}
	return t.until(ctx, "pod "+name+" to go", func() (bool, error) {
		_, err := pods.Get(ctx, name, metav1.GetOptions{})
		return gone(err)
	})
}
