package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/test/lab"
)

// onMountPod is the kind of a subject on the ordinary node: a JuiceFS client in a Mount Pod, below the kubelet and the CSI driver.
const onMountPod = "mount pod"

// mountPodKinds are the ways to kill below a subject on the ordinary node.
var mountPodKinds = []kind{
	{name: "client", strike: killClient, agentLives: true},
	{name: "oom", strike: exhaust, agentLives: true},
	{name: "stop", strike: stopClient, agentLives: true},
	{name: "delete", strike: deleteMountPod, alone: takesAgent},
	{name: "server", strike: killServer, agentLives: true, alone: takesEveryonesBroker},
}

// installDriver puts the CSI driver on the ordinary node. Its log goes with its pods, so what the test waits for is in the API, in metrics and in the
// logs of the Mount Pods.
func (t *trial) installDriver(ctx context.Context) (err error) {
	if len(t.mountPodKinds) == 0 {
		return nil
	}
	t.chart, err = t.lab.InstallNodeService(ctx)
	return err
}

// locate finds the Mount Pod that serves a subject, which is another one than before.
func (t *trial) locate(ctx context.Context, s *subject) error {
	if s.kind != onMountPod {
		return nil
	}
	state, err := t.lab.State()
	if err != nil {
		return err
	}
	return t.until(ctx, "the Mount Pod of pod "+s.name, func() (bool, error) {
		pods, err := t.lab.Client.CoreV1().Pods(t.chart.Namespace).List(ctx, metav1.ListOptions{LabelSelector: mountpod.NameLabel + "=" + mountpod.NameValue})
		if err != nil {
			return false, err
		}
		for _, p := range pods.Items {
			if p.Annotations[mountpod.VolumeAnnotation] != s.files.PV.Spec.CSI.VolumeHandle || p.UID == s.server || p.DeletionTimestamp != nil {
				continue
			}
			s.mountPod, s.server = p.Name, p.UID
			s.logs = filepath.Join(state.Nodes[lab.OrdinaryNode].PodLogs, p.Namespace+"_"+p.Name+"_"+string(p.UID))
			return true, nil
		}
		return false, nil
	})
}

// deleteMountPod deletes the Mount Pod as anybody may, and waits until it is gone. Its agent's log goes with it, so it is held open.
func deleteMountPod(ctx context.Context, t *trial, s *subject) error {
	logs, err := s.sidecarLogs()
	if err != nil {
		return err
	}
	if len(logs) == 0 {
		return fmt.Errorf("the agent of Mount Pod %s has no log", s.mountPod)
	}
	log, err := os.Open(logs[len(logs)-1])
	if err != nil {
		return err
	}
	defer log.Close()
	pods := t.lab.Client.CoreV1().Pods(t.chart.Namespace)
	if err := pods.Delete(ctx, s.mountPod, metav1.DeleteOptions{}); err != nil {
		return err
	}
	if err := t.until(ctx, "Mount Pod "+s.mountPod+" to go", func() (bool, error) {
		_, err := pods.Get(ctx, s.mountPod, metav1.GetOptions{})
		return gone(err)
	}); err != nil {
		return err
	}
	s.yielded, err = yielded(log)
	return err
}

// yielded is when an agent began to give its session away, by its log; zero if it did not.
func yielded(log io.Reader) (at time.Time, err error) {
	lines := bufio.NewScanner(log)
	for lines.Scan() {
		if r := parseLine(lines.Text()); r["msg"] == "the session goes to another agent" {
			if at, err = time.Parse(time.RFC3339Nano, r["time"]); err != nil {
				return at, fmt.Errorf("log of a Mount Pod: %w", err)
			}
		}
	}
	return at, lines.Err()
}

// killServer kills the process of the node service. Its pod is deleted afterwards, because a container that is killed again and again would
// be started with longer and longer pauses.
func killServer(ctx context.Context, t *trial, s *subject) error {
	pod, err := t.nodeService(ctx)
	if err != nil {
		return err
	}
	pids, err := lab.Processes(pod.UID, "sidemount csi node")
	if err != nil {
		return err
	}
	if len(pids) != 1 {
		return fmt.Errorf("pod %s has %d processes of the node service", pod.Name, len(pids))
	}
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		return fmt.Errorf("kill the node service: %w", err)
	}
	s.nodeService = pod.UID
	return t.lab.Client.CoreV1().Pods(pod.Namespace).Delete(ctx, pod.Name, metav1.DeleteOptions{GracePeriodSeconds: new(int64)})
}

// nodeService is the pod of the node service on the ordinary node.
func (t *trial) nodeService(ctx context.Context) (*corev1.Pod, error) {
	pods, err := t.lab.Client.CoreV1().Pods(t.chart.Namespace).List(ctx, metav1.ListOptions{
		LabelSelector: "app.kubernetes.io/component=node", FieldSelector: "spec.nodeName=" + lab.OrdinaryNode,
	})
	if err != nil {
		return nil, err
	}
	if len(pods.Items) != 1 {
		return nil, fmt.Errorf("%s has %d pods of the node service", lab.OrdinaryNode, len(pods.Items))
	}
	return &pods.Items[0], nil
}

// servedAgain waits for what must follow a kill on the ordinary node.
func (t *trial) servedAgain(ctx context.Context, s *subject, what kind, k *kill) error {
	switch {
	case what.alone == takesEveryonesBroker:
		return t.holdsAgain(ctx, s.nodeService)
	case !what.agentLives:
		if err := t.locate(ctx, s); err != nil {
			return err
		}
	}
	said, err := t.started(ctx, s, k.At)
	if err != nil {
		return err
	}
	k.Start, k.Pause = said.after(), said.pause()
	if !what.agentLives {
		at, err := time.Parse(time.RFC3339Nano, said["time"])
		if err != nil {
			return fmt.Errorf("log of Mount Pod %s: %w", s.mountPod, err)
		}
		k.Pause = at.Sub(k.At) // nobody knows when a client that was told to end took its last request: it was after the deletion
		if !s.yielded.IsZero() {
			k.Start, k.Pause = 0, at.Sub(s.yielded) // it was relieved by one that had started before
		}
	}
	now, err := s.client()
	if err == nil && now == k.client {
		err = fmt.Errorf("process %d serves pod %s as before the kill", now, s.name)
	}
	return err
}

// holdsAgain waits until another process of the node service holds the sessions of all subjects.
func (t *trial) holdsAgain(ctx context.Context, before types.UID) error {
	want := 0
	for _, s := range t.subjects {
		if s.kind == onMountPod {
			want++
		}
	}
	return t.until(ctx, "the next node service to hold the sessions", func() (bool, error) {
		pod, err := t.nodeService(ctx)
		if err != nil || pod.UID == before || !isReady(pod) {
			return false, nil // between two pods
		}
		raw, err := t.lab.Client.CoreV1().Pods(pod.Namespace).ProxyGet("http", pod.Name, "9808", "/metrics", nil).DoRaw(ctx)
		return err == nil && attached(string(raw)) >= want, nil
	})
}

// attached is how many sessions of the process with these metrics have a client, which it has the connections from.
func attached(metrics string) int {
	for line := range strings.Lines(metrics) {
		if number, ok := strings.CutPrefix(line, `sidemount_sessions{state="Attached"} `); ok {
			n, err := strconv.Atoi(strings.TrimSpace(number))
			if err != nil {
				return 0
			}
			return n
		}
	}
	return 0
}

func isReady(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// removeDriver takes the driver off the cluster, which may be somebody's own.
func (t *trial) removeDriver(ctx context.Context) error {
	if t.chart == nil {
		return nil
	}
	return t.chart.Uninstall(ctx)
}

// driverTraces are the commands that tell what the driver did.
func (t *trial) driverTraces() map[string][]string {
	if t.chart == nil {
		return nil
	}
	return map[string][]string{
		"csi-node.log":    {"logs", "-n", t.chart.Namespace, "-l", "app.kubernetes.io/component=node", "--tail=-1"},
		"csi-pods.yaml":   {"get", "pods", "-n", t.chart.Namespace, "-o", "yaml"},
		"csi-events.txt":  {"get", "events", "-n", t.chart.Namespace, "--sort-by=.lastTimestamp"},
		"mount-pods.logs": {"logs", "-n", t.chart.Namespace, "-l", mountpod.NameLabel + "=" + mountpod.NameValue, "--tail=-1", "--prefix"},
	}
}
