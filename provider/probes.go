package provider

import (
	"context"
	"errors"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/env"
	"github.com/sidemount/sidemount/provider/probe"
)

// verdicts is what the probes of one running container have said. Only the actor uses it, but for the workers' WaitGroup.
type verdicts struct {
	started, ready bool
	failed         killReason
	// begun has the kinds of probes whose workers have been started.
	begun map[probeKind]bool
	// cancels end the workers, workers counts them.
	cancels []context.CancelFunc
	workers sync.WaitGroup
}

// cancel tells the workers to end.
func (v *verdicts) cancel() {
	for _, cancel := range v.cancels {
		cancel()
	}
}

// wait ends the workers.
func (v *verdicts) wait() {
	v.cancel()
	v.workers.Wait()
}

// probeKind is one of the three probes of a container, as events name them.
type probeKind string

const (
	startupProbe   probeKind = "Startup"
	livenessProbe  probeKind = "Liveness"
	readinessProbe probeKind = "Readiness"
)

// followProbes starts the probes of containers that have begun to run and ends those of containers that have ended.
func (a *actor) followProbes(ctx context.Context) {
	running := make(map[string]bool)
	for _, c := range a.state.Containers {
		if c.State == cri.Running {
			running[c.ID] = true
		}
	}
	for id, v := range a.verdicts {
		if !running[id] {
			v.cancel()
			// The workers only have to notice; the actor waits for them when it ends.
			a.wg.Go(v.workers.Wait)
			delete(a.verdicts, id)
		}
	}
	if a.stage != active {
		return
	}
	for _, c := range a.state.Containers {
		if c.State == cri.Running && !a.memory(c.Name).hooked {
			a.probeContainer(ctx, c)
		}
	}
}

// probeContainer starts the probes of a running container whose time has come: the others wait for the startup probe.
func (a *actor) probeContainer(ctx context.Context, c cri.Container) {
	spec, kind := findContainer(a.spec(), c.Name)
	if spec == nil {
		return
	}
	v := a.verdicts[c.ID]
	if v == nil {
		v = &verdicts{begun: make(map[probeKind]bool)}
		v.started, v.ready = spec.StartupProbe == nil, spec.ReadinessProbe == nil
		a.inherit(v, c)
		a.verdicts[c.ID] = v
	}
	if kind == ephemeralKind || kind == initKind && !isSidecar(spec) {
		return
	}
	if !v.started {
		a.startWorker(ctx, v, c, spec, startupProbe, spec.StartupProbe)
		return
	}
	a.startWorker(ctx, v, c, spec, livenessProbe, spec.LivenessProbe)
	a.startWorker(ctx, v, c, spec, readinessProbe, spec.ReadinessProbe)
}

// inherit takes over what the API server says about a container that ran before this process did, so that a restart of this
// process makes no pod unready.
func (a *actor) inherit(v *verdicts, c cri.Container) {
	for _, list := range [][]corev1.ContainerStatus{a.pod.Status.InitContainerStatuses, a.pod.Status.ContainerStatuses} {
		if st := findStatus(list, c.Name); st != nil && st.ContainerID == containerIDScheme+c.ID {
			v.started = v.started || st.Started != nil && *st.Started
			v.ready = v.ready || st.Ready
		}
	}
}

func (a *actor) startWorker(ctx context.Context, v *verdicts, c cri.Container, spec *corev1.Container, kind probeKind, p *corev1.Probe) {
	if p == nil || v.begun[kind] {
		return
	}
	v.begun[kind] = true
	pod, target := a.spec(), a.target(spec, c)
	if p.Exec != nil {
		target.Command = expand(p.Exec.Command, spec.Env)
	}
	w := probe.Worker{
		Prober: a.e.prober, Spec: p, Target: target, Since: c.StartedAt,
		Last: kind == startupProbe, LastFailure: kind == livenessProbe,
		Verdict: func(r probe.Result) {
			a.box.post(func(m *mail) { m.results = append(m.results, func() { a.judge(c.ID, kind, r) }) })
		},
		Attempt: func(r probe.Result, output string, err error) { a.probeEvent(pod, spec.Name, kind, r, output, err) },
	}
	ctx, cancel := context.WithCancel(ctx)
	v.cancels = append(v.cancels, cancel)
	v.workers.Go(func() { w.Run(ctx) })
}

// expand replaces references to variables in the command of a probe. Only values that stand in the specification itself are known
// here, as of the kubelet.
func expand(command []string, vars []corev1.EnvVar) []string {
	values := make(map[string]string, len(vars))
	for _, v := range vars {
		values[v.Name] = v.Value
	}
	expanded := make([]string, len(command))
	for i, word := range command {
		expanded[i] = env.Expand(word, func(name string) string {
			if v, ok := values[name]; ok {
				return v
			}
			return "$(" + name + ")"
		})
	}
	return expanded
}

// judge takes note of a verdict.
func (a *actor) judge(id string, kind probeKind, r probe.Result) {
	v := a.verdicts[id]
	if v == nil {
		return
	}
	ok := r == probe.Success
	switch kind {
	case readinessProbe:
		v.ready = ok
	case startupProbe:
		v.started = ok
		if !ok {
			v.failed = killStartup
		}
	case livenessProbe:
		if !ok {
			v.failed = killLiveness
		}
	}
}

func (a *actor) probeEvent(pod *corev1.Pod, name string, kind probeKind, r probe.Result, output string, err error) {
	switch {
	case err != nil:
		a.events.container(pod, name, corev1.EventTypeWarning, eventUnhealthy, "%s probe errored and resulted in unknown state: %s", kind, err)
	case r == probe.Warning:
		a.events.container(pod, name, corev1.EventTypeWarning, eventProbeWarning, "%s probe warning: %s", kind, output)
	default:
		a.events.container(pod, name, corev1.EventTypeWarning, eventUnhealthy, "%s probe failed: %s", kind, output)
	}
}

// stopProbes ends liveness and startup probes of a pod that is being ended; they would restart what is to end.
func (a *actor) stopProbes() {
	for _, v := range a.verdicts {
		v.cancel()
	}
}

// startedSidecars returns the ids of the running native sidecars that later containers need not wait for.
func (a *actor) startedSidecars() map[string]bool {
	started := make(map[string]bool)
	for id, v := range a.verdicts {
		started[id] = v.started
	}
	a.sidecarFailure = ""
	for _, c := range a.state.Containers {
		if c.State != cri.Running || !a.injected(c.Name) || !started[c.ID] {
			continue
		}
		ok, failure := a.e.preparer.Started(a.pod, c.Name)
		started[c.ID] = ok
		if ok {
			continue
		}
		a.alarm.set(time.Now().Add(sidecarPoll))
		if failure != "" {
			a.sidecarFailure = failure
			a.events.once(a.pod, eventFailedMount, failure)
		}
	}
	return started
}

// failedProbes returns the running containers that a probe wants to be ended.
func (a *actor) failedProbes() map[string]killReason {
	failed := make(map[string]killReason)
	for id, v := range a.verdicts {
		if v.failed != "" {
			failed[id] = v.failed
		}
	}
	return failed
}

// probeResults returns which containers have started and which are ready, by id.
func (a *actor) probeResults() (started, ready map[string]bool) {
	started, ready = make(map[string]bool), make(map[string]bool)
	for id, v := range a.verdicts {
		started[id], ready[id] = v.started, v.ready && v.failed == ""
	}
	return started, ready
}

// execProbe runs the command of a probe.
func execProbe(r Containers) probe.Exec {
	return func(ctx context.Context, id string, command []string, timeout time.Duration) ([]byte, int32, bool, error) {
		output, exitCode, err := r.ExecSync(ctx, id, command, timeout)
		if errors.Is(err, cri.ErrTimeout) {
			return output, 0, true, nil
		}
		return output, exitCode, false, err
	}
}
