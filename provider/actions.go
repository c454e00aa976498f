package provider

import (
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// killReason says why a container is ended; it decides about the grace period.
type killReason string

const (
	killLiveness  killReason = "LivenessProbe"
	killStartup   killReason = "StartupProbe"
	killChanged   killReason = "DefinitionChanged"
	killLost      killReason = "Unknown"
	killPostStart killReason = "FailedPostStartHook"
	killSandbox   killReason = "SandboxDied"
	killResize    killReason = "Resize"
	killRetired   killReason = "Retired"
)

// view is all that decides what a pod needs next.
type view struct {
	// pod is the pod as it runs, with injected sidecars.
	pod   *corev1.Pod
	state cri.Pod
	now   time.Time
	// busy has the names of the containers that an operation works on.
	busy map[string]bool
	// started has the ids of running sidecars that later containers need not wait for any more.
	started map[string]bool
	// failed has the ids of running containers whose liveness or startup probe has failed, and which.
	failed map[string]killReason
	// notBefore has the names of containers that are not to be started before a time.
	notBefore map[string]time.Time
	// leastAttempt has the names of containers whose restart count must not be lower.
	leastAttempt map[string]uint32
	// injected reports whether a container was added to the API's pod.
	injected func(name string) bool
	// hash is Runtime.ContainerHash.
	hash func(*corev1.Container) string
	// unenforced is Runtime.Unenforced; nil asks nobody.
	unenforced func(*corev1.Pod, *corev1.Container, cri.Container) (cpu, memory bool)
}

// actions are what a pod needs next, in this order.
type actions struct {
	// kill are containers to end; they are started again only after that.
	kill []kill
	// stopSandboxes are ids of sandboxes that have died.
	stopSandboxes []string
	// createSandbox asks for a new sandbox with that attempt.
	createSandbox bool
	attempt       uint32
	// start are containers to create and start, in order.
	start []start
	// resize are running containers whose resources are to be changed.
	resize []resize
	// remove are dead containers that nobody needs any more.
	remove []cri.Container
	// wake is the earliest time at which something that waits can be started; zero if nothing waits.
	wake time.Time
	// done says that nothing runs and nothing will run again: the pod is to be stopped.
	done bool
}

type kill struct {
	container cri.Container
	reason    killReason
	message   string
}

type start struct {
	container *corev1.Container
	kind      containerKind
	attempt   uint32
}

// computeActions decides what the pod needs next. It is a pure function of the view.
func computeActions(v view) actions {
	var a actions
	sandbox, ok := v.state.Sandbox()
	if !ok || !sandbox.Ready {
		v.sandboxActions(&a, sandbox, ok)
		return a
	}
	v.retire(&a, sandbox)
	v.ephemeralActions(&a, sandbox)
	if v.initActions(&a, sandbox) {
		v.appActions(&a, sandbox)
	}
	if a.done {
		return actions{done: true}
	}
	a.remove = garbage(v.state, v.retired)
	return a
}

// sandboxActions decides about a pod without a ready sandbox. Its containers cannot go on: they share namespaces that are gone.
func (v view) sandboxActions(a *actions, old cri.Sandbox, exists bool) {
	if v.neverAgain() {
		a.done = true
		return
	}
	for _, c := range liveContainers(v.state) {
		if !v.busy[c.Name] {
			a.kill = append(a.kill, kill{c, killSandbox, "Pod sandbox changed, it will be killed and re-created."})
		}
	}
	if exists {
		a.attempt = old.Attempt + 1
	}
	if len(liveContainers(v.state)) > 0 || len(v.busy) > 0 {
		return
	}
	for _, s := range v.state.Sandboxes {
		a.stopSandboxes = append(a.stopSandboxes, s.ID)
	}
	a.createSandbox = true
}

// retire ends injected sidecars that the pod has no more: another one has taken over.
func (v view) retire(a *actions, s cri.Sandbox) {
	for _, c := range liveContainers(v.state) {
		if c.SandboxID == s.ID && v.retired(c.Name) && !v.busy[c.Name] {
			a.kill = append(a.kill, kill{c, killRetired, fmt.Sprintf("Stopping container %s, another one has taken over", c.Name)})
		}
	}
}

func (v view) retired(name string) bool {
	c, _ := findContainer(v.pod, name)
	return c == nil && v.injected(name)
}

// neverAgain reports whether a pod that lost its sandbox has nothing to run in a new one.
func (v view) neverAgain() bool {
	if len(v.state.Containers) == 0 {
		return false
	}
	if v.pod.Spec.RestartPolicy == corev1.RestartPolicyNever {
		return true
	}
	begun := false
	for i := range v.pod.Spec.Containers {
		c := &v.pod.Spec.Containers[i]
		last, ok := v.state.Container(c.Name)
		begun = begun || ok
		if !ok || !runsOnce(v.pod, c) || last.State != cri.Exited || last.ExitCode != 0 {
			return false
		}
	}
	return begun
}

func (v view) ephemeralActions(a *actions, s cri.Sandbox) {
	for i := range v.pod.Spec.EphemeralContainers {
		c := (*corev1.Container)(&v.pod.Spec.EphemeralContainers[i].EphemeralContainerCommon)
		if _, ok := v.state.Container(c.Name); !ok && !v.busy[c.Name] {
			v.startOne(a, c, ephemeralKind)
		}
	}
}

// initActions decides about init containers and native sidecars and reports whether application containers may run. Containers
// before the last one that has begun in this sandbox are known to have had their turn: the completed ones may have been removed.
func (v view) initActions(a *actions, s cri.Sandbox) bool {
	inits := v.pod.Spec.InitContainers
	if v.appBegun(s) {
		for i := range inits {
			if isSidecar(&inits[i]) {
				v.keepSidecar(a, &inits[i], s)
			}
		}
		return true
	}
	last := v.lastInitBegun(s)
	for i := range inits {
		c := &inits[i]
		switch {
		case i < last && isSidecar(c):
			v.keepSidecar(a, c, s)
		case i < last:
		case isSidecar(c):
			if !v.keepSidecar(a, c, s) {
				return false
			}
		default:
			if !v.runInit(a, c, s) {
				return false
			}
		}
	}
	return true
}

func (v view) appBegun(s cri.Sandbox) bool {
	for i := range v.pod.Spec.Containers {
		if _, ok := inSandbox(v.state, v.pod.Spec.Containers[i].Name, s.ID); ok {
			return true
		}
	}
	return false
}

func (v view) lastInitBegun(s cri.Sandbox) int {
	for i := len(v.pod.Spec.InitContainers) - 1; i > 0; i-- {
		if _, ok := inSandbox(v.state, v.pod.Spec.InitContainers[i].Name, s.ID); ok {
			return i
		}
	}
	return 0
}

// keepSidecar keeps a native sidecar running and reports whether the containers after it may start.
func (v view) keepSidecar(a *actions, c *corev1.Container, s cri.Sandbox) bool {
	if v.busy[c.Name] {
		return false
	}
	have, ok := inSandbox(v.state, c.Name, s.ID)
	if !ok || have.State != cri.Running {
		v.restart(a, c, initKind, have, ok)
		return false
	}
	if v.killIfBad(a, c, "Init container", have) || v.resizeIfNeeded(a, c, have) {
		return false
	}
	return v.started[have.ID]
}

// runInit runs an init container to its success and reports whether that has been reached.
func (v view) runInit(a *actions, c *corev1.Container, s cri.Sandbox) bool {
	have, ok := inSandbox(v.state, c.Name, s.ID)
	switch {
	case v.busy[c.Name]:
	case !ok || have.State == cri.Created || have.State == cri.Unknown:
		v.restart(a, c, initKind, have, ok)
	case have.State == cri.Running:
	case have.ExitCode == 0:
		return true
	case restartsAfter(v.pod, c, initKind, have.ExitCode):
		v.startOne(a, c, initKind)
	default:
		a.done = true
	}
	return false
}

// appActions decides about application containers; the pod is done when none runs and none will.
func (v view) appActions(a *actions, s cri.Sandbox) {
	kept := 0
	for i := range v.pod.Spec.Containers {
		if v.keepApp(a, &v.pod.Spec.Containers[i], s) {
			kept++
		}
	}
	a.done = kept == 0
}

// keepApp keeps an application container as its restart policy says and reports whether it runs or will run.
func (v view) keepApp(a *actions, c *corev1.Container, s cri.Sandbox) bool {
	if v.busy[c.Name] {
		return true
	}
	have, ok := inSandbox(v.state, c.Name, s.ID)
	if !ok {
		if last, ran := v.state.Container(c.Name); ran && runsOnce(v.pod, c) && last.State == cri.Exited && last.ExitCode == 0 {
			return false
		}
	}
	switch {
	case !ok || have.State == cri.Created || have.State == cri.Unknown:
		v.restart(a, c, appKind, have, ok)
		return true
	case have.State == cri.Running:
		if !v.killIfBad(a, c, "Container", have) {
			v.resizeIfNeeded(a, c, have)
		}
		return true
	case restartsAfter(v.pod, c, appKind, have.ExitCode):
		v.startOne(a, c, appKind)
		return true
	}
	return false
}

// restart starts a container that does not run. One that the runtime has lost track of may still have processes: it is ended
// first and started in a later pass.
func (v view) restart(a *actions, c *corev1.Container, kind containerKind, have cri.Container, exists bool) {
	if exists && have.State == cri.Unknown {
		a.kill = append(a.kill, kill{have, killLost,
			fmt.Sprintf("Container %s is in %q state, try killing it before restart", c.Name, have.State)})
		return
	}
	v.startOne(a, c, kind)
}

// killIfBad ends a running container whose definition has changed or whose probe has failed. A changed definition of an injected
// sidecar is no reason: a new version of this program must not disturb running pods.
func (v view) killIfBad(a *actions, c *corev1.Container, noun string, have cri.Container) bool {
	if have.Hash != v.hash(c) && !v.injected(c.Name) {
		a.kill = append(a.kill, kill{have, killChanged, fmt.Sprintf("%s %s definition changed, will be restarted", noun, c.Name)})
		return true
	}
	reason, bad := v.failed[have.ID]
	if !bad {
		return false
	}
	message := fmt.Sprintf("%s %s failed liveness probe, will be restarted", noun, c.Name)
	if reason == killStartup {
		message = fmt.Sprintf("%s %s failed startup probe, will be restarted", noun, c.Name)
	}
	a.kill = append(a.kill, kill{have, reason, message})
	return true
}

func (v view) startOne(a *actions, c *corev1.Container, kind containerKind) {
	if at := v.notBefore[c.Name]; at.After(v.now) {
		if a.wake.IsZero() || at.Before(a.wake) {
			a.wake = at
		}
		return
	}
	s := start{container: c, kind: kind}
	if last, ok := v.state.Container(c.Name); ok {
		s.attempt = last.Attempt + 1
	} else {
		s.attempt = v.leastAttempt[c.Name]
	}
	a.start = append(a.start, s)
}

// garbage returns the dead containers of a pod that nobody needs: of each name, the newest two are kept, one for the state and
// one for the last termination and the previous log. Of retired sidecars, all together, it is the newest two as well.
func garbage(p cri.Pod, retired func(name string) bool) []cri.Container {
	var old []cri.Container
	seen := make(map[string]int, len(p.Containers))
	for _, c := range p.Containers {
		name := c.Name
		if retired(name) {
			name = ""
		}
		seen[name]++
		if seen[name] > 2 && !isLive(c) {
			old = append(old, c)
		}
	}
	return old
}
