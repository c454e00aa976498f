package lab

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
)

// redisImage holds this host's redis-server.
const redisImage = "localhost/redis:lab"

// Redis is a server in a pod. It keeps the metadata and the objects of JuiceFS file systems, so that they need no directory of a host
// and can be used from every node at the same time.
type Redis struct {
	// Address is the host and the port, which pods reach by it.
	Address string

	lab       *Lab
	namespace string
}

// StartRedis runs a server on the first ordinary node, in the given namespace, which it goes away with, and waits until it answers.
func (l *Lab) StartRedis(ctx context.Context, namespace string) (*Redis, error) {
	if err := (ProgramImage{Name: redisImage, Programs: []string{"redis-server", "redis-cli"}}).Push(ctx, l); err != nil {
		return nil, err
	}
	p := Pod("redis", "", OnOrdinaryNode, RestartPolicy(corev1.RestartPolicyAlways), User(65534))
	c := &p.Spec.Containers[0]
	c.Image, c.Command = redisImage, []string{"redis-server", "--bind", "0.0.0.0", "--protected-mode", "no", "--save", "", "--dir", "/tmp"}
	c.ReadinessProbe = &corev1.Probe{PeriodSeconds: 1, TimeoutSeconds: 5, ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"redis-cli", "ping"}}}}
	p.Spec.AutomountServiceAccountToken = ptr.To(false)
	if _, err := l.Client.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{}); err != nil {
		return nil, err
	}
	if _, err := l.Kubectl(ctx, "wait", "-n", namespace, "--for=condition=Ready", "--timeout=60s", "pod/redis"); err != nil {
		return nil, err
	}
	pod, err := l.Client.CoreV1().Pods(namespace).Get(ctx, "redis", metav1.GetOptions{})
	if err != nil {
		return nil, err
	}
	return &Redis{Address: net.JoinHostPort(pod.Status.PodIP, strconv.Itoa(6379)), lab: l, namespace: namespace}, nil
}

// JuiceFS is the content of a Secret for the file system with the given name: metadata in the database with this number (0 to 14), objects
// in number 15. Nobody has formatted it.
func (r *Redis) JuiceFS(name string, database int) map[string]string {
	return map[string]string{
		"name": name, "metaurl": fmt.Sprintf("redis://%s/%d", r.Address, database),
		"storage": "redis", "bucket": fmt.Sprintf("redis://%s/15", r.Address),
	}
}

// Keys is the number of keys in a database.
func (r *Redis) Keys(ctx context.Context, database int) (int, error) {
	out, err := r.lab.Kubectl(ctx, "exec", "-n", r.namespace, "redis", "--", "redis-cli", "-n", strconv.Itoa(database), "dbsize")
	if err != nil {
		return 0, err
	}
	return strconv.Atoi(strings.TrimSpace(out))
}
