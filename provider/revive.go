package provider

import (
	"context"
	"time"

	"github.com/sidemount/sidemount/provider/cri"
)

// revive starts injected sidecars again that have died while their pod is being ended, and reports whether there are any: the application still reads and
// writes through them, and only a client can write out what the one before has left. It does so no longer than a sidecar may take to end. A pod that an
// earlier process of the node has begun to end was not prepared by this one, so nothing of it is started.
func (a *actor) revive(ctx context.Context, live []cri.Container) (waits bool) {
	sandbox, ok := a.state.Sandbox()
	if a.running == nil || !ok || !sandbox.Ready || a.stop.cut || !time.Now().Before(a.stop.deadline.Add(a.e.sidecarGrace)) {
		return false
	}
	v, acts := a.view(), actions{}
	for i := range a.running.Spec.InitContainers {
		c := &a.running.Spec.InitContainers[i]
		have, ok := inSandbox(a.state, c.Name, sandbox.ID)
		if !ok || have.State != cri.Exited || !a.injected(c.Name) || a.stop.killed[have.ID] {
			continue
		}
		if len(live) > 0 {
			a.alarm.set(time.Now().Add(sidecarPoll)) // whether it is needed may show later than its end
		}
		if !a.e.preparer.Owes(a.pod, c.Name) {
			continue
		}
		waits = true
		if !v.busy[c.Name] {
			v.startOne(&acts, c, initKind)
		}
	}
	a.alarm.set(acts.wake)
	for _, s := range acts.start {
		a.startOne(ctx, s, sandbox, operation{container: s.container.Name, ends: true})
	}
	return waits
}
