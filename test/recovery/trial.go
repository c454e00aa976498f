package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/test/lab"
	"github.com/sidemount/sidemount/test/recovery/report"
)

const (
	// patience is how long anything may take that takes a second on an idle machine.
	patience = 2 * time.Minute
	// poll is how often the state of pods and workloads is looked at.
	poll = 100 * time.Millisecond
)

// trial is one run: a cluster, its subjects, and what became of them.
type trial struct {
	options
	lab       *lab.Lab
	namespace string
	podLogs   string
	log       *nodeLog
	chart     *lab.Chart // with the CSI driver, if there are Mount Pods
	subjects  []*subject
	began     time.Time
	// steady is when all workloads were at work, before the first kill.
	steady, quiet time.Time
	reports       map[string]*report.Report // by pod and workload

	// holders is held for reading while an agent is away, for writing while the broker is: one of the two must be there.
	holders sync.RWMutex
	// background owns what follows the log.
	background sync.WaitGroup
	cancel     context.CancelFunc
}

// newTrial brings the cluster up.
func newTrial(ctx context.Context, o options) (*trial, error) {
	l, err := lab.Start(ctx, "recovery", os.Stderr)
	if err != nil {
		return nil, err
	}
	t := &trial{options: o, lab: l, reports: map[string]*report.Report{}, began: time.Now(), cancel: func() {}}
	state, err := l.State()
	if err != nil {
		return nil, errors.Join(err, l.Stop(context.WithoutCancel(ctx)))
	}
	t.podLogs = state.Nodes[lab.VirtualNode].PodLogs
	t.log = newNodeLog(state.Components[lab.VirtualNode+"/sidemount"].Log)
	follow, cancel := context.WithCancel(context.WithoutCancel(ctx))
	t.cancel = cancel
	t.background.Go(func() { t.log.run(follow) })
	return t, nil
}

// prepare starts the subjects and waits until all workloads are at work.
func (t *trial) prepare(ctx context.Context) error {
	if err := t.until(ctx, "the virtual node", func() (bool, error) {
		node, err := t.lab.Client.CoreV1().Nodes().Get(ctx, lab.VirtualNode, metav1.GetOptions{})
		return err == nil && ready(node), nil
	}); err != nil {
		return err
	}
	if err := image.Push(ctx, t.lab); err != nil {
		return err
	}
	ns, err := t.lab.Client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "recovery-"}}, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	t.namespace = ns.Name
	if err := t.until(ctx, "ServiceAccount default", func() (bool, error) {
		_, err := t.lab.Client.CoreV1().ServiceAccounts(t.namespace).Get(ctx, "default", metav1.GetOptions{})
		return err == nil, nil
	}); err != nil {
		return err
	}
	if err := t.installDriver(ctx); err != nil {
		return err
	}
	t.subjects = t.newSubjects()
	for _, s := range t.subjects {
		if err := t.start(ctx, s); err != nil {
			return err
		}
	}
	for _, s := range t.subjects {
		if err := t.atWork(ctx, s); err != nil {
			return err
		}
	}
	t.steady = time.Now()
	t.say("%d pods at work", len(t.subjects))
	return nil
}

func ready(n *corev1.Node) bool {
	for _, c := range n.Status.Conditions {
		if c.Type == corev1.NodeReady {
			return c.Status == corev1.ConditionTrue
		}
	}
	return false
}

// atWork waits until a subject's pod runs and each of its workloads has done something.
func (t *trial) atWork(ctx context.Context, s *subject) error {
	if _, err := t.reaches(ctx, s.name, corev1.PodRunning); err != nil {
		return err
	}
	if err := t.until(ctx, "the workloads of pod "+s.name, func() (bool, error) {
		w, err := s.behind(nil)
		return w == "", err
	}); err != nil {
		return err
	}
	if err := t.locate(ctx, s); err != nil {
		return err
	}
	said, err := t.started(ctx, s, t.began)
	s.coldStart = said.after()
	return err
}

// reaches waits for a pod's phase.
func (t *trial) reaches(ctx context.Context, name string, phase corev1.PodPhase) (*corev1.Pod, error) {
	var p *corev1.Pod
	err := t.until(ctx, fmt.Sprintf("pod %s to be %s", name, phase), func() (done bool, err error) {
		p, err = t.lab.Client.CoreV1().Pods(t.namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, err
		}
		if p.Status.Phase == corev1.PodFailed {
			return false, fmt.Errorf("pod %s has failed: %s %s", name, p.Status.Reason, p.Status.Message)
		}
		return p.Status.Phase == phase, nil
	})
	return p, err
}

// until polls, because not everything that is waited for tells of itself.
func (t *trial) until(ctx context.Context, what string, done func() (bool, error)) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(poll)
	defer tick.Stop()
	for {
		ok, err := done()
		if ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w", what, ctx.Err())
		case <-tick.C:
		}
	}
}

func (t *trial) say(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "%7.1f s  %s\n", time.Since(t.began).Seconds(), fmt.Sprintf(format, args...))
}

// end removes what the trial has made. After a failure it keeps what explains it.
func (t *trial) end(ctx context.Context, failed bool) error {
	defer t.background.Wait()
	defer t.cancel()
	if failed {
		t.keepTraces(ctx)
	}
	err := t.removeObjects(ctx)
	err = errors.Join(err, t.lab.Stop(ctx))
	for _, s := range t.subjects {
		if s.files != nil {
			err = errors.Join(err, os.RemoveAll(s.files.Dir), os.RemoveAll(s.results))
		}
	}
	return err
}

// removeObjects empties the cluster, which may be somebody's own.
func (t *trial) removeObjects(ctx context.Context) error {
	if t.namespace == "" {
		return nil
	}
	err := t.lab.Client.CoreV1().Namespaces().Delete(ctx, t.namespace, metav1.DeleteOptions{})
	err = errors.Join(err, t.until(ctx, "namespace "+t.namespace+" to go", func() (bool, error) {
		_, err := t.lab.Client.CoreV1().Namespaces().Get(ctx, t.namespace, metav1.GetOptions{})
		return gone(err)
	}))
	for _, s := range t.subjects {
		if s.files != nil {
			err = errors.Join(err, t.lab.Client.CoreV1().PersistentVolumes().Delete(ctx, s.files.PV.Name, metav1.DeleteOptions{}))
		}
	}
	return errors.Join(err, t.removeDriver(ctx))
}

// keepTraces copies logs and objects to where the next run does not remove them.
func (t *trial) keepTraces(ctx context.Context) {
	if err := os.RemoveAll(t.traces); err != nil {
		t.say("keep traces: %v", err)
		return
	}
	keep := func(name string, text string, err error) {
		if err != nil {
			text += "\n" + err.Error()
		}
		path := filepath.Join(t.traces, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.say("keep %s: %v", name, err)
		}
	}
	raw, err := os.ReadFile(t.log.path)
	keep("node.log", string(raw), err)
	for name, args := range map[string][]string{"pods.yaml": {"get", "pods", "-o", "yaml"}, "events.txt": {"get", "events", "--sort-by=.lastTimestamp"}} {
		out, err := t.lab.Kubectl(ctx, append(args, "-n", t.namespace)...)
		keep(name, out, err)
	}
	for name, args := range t.driverTraces() {
		out, err := t.lab.Kubectl(ctx, args...)
		keep(name, out, err)
	}
	for _, s := range t.subjects {
		if s.evidence == nil {
			s.keepEvidence()
		}
		for name, text := range s.evidence {
			keep(filepath.Join(s.name, name), text, nil)
		}
		for w, r := range t.reports {
			keep(w+".json", fmt.Sprintf("%+v", *r), nil)
		}
	}
	t.say("traces are in %s", t.traces)
}
