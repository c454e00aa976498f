package cluster

import (
	"fmt"
	"maps"
	"time"
)

// timer tells how long each phase took, counted from the start of the command: phases run at the same time.
type timer struct {
	c       *Cluster
	start   time.Time
	running map[string]bool // components that ran before
}

func newTimer(c *Cluster) *timer {
	t := &timer{c: c, start: time.Now(), running: map[string]bool{}}
	if c.state != nil {
		for name := range maps.Keys(c.state.Components) {
			t.running[name] = c.state.Components[name].Alive()
		}
	}
	return t
}

func (t *timer) done(phase string) {
	t.c.say("%5.1f s  %s", time.Since(t.start).Seconds(), phase)
}

// total says what Up has changed.
func (t *timer) total(fresh bool) {
	started := 0
	for name := range t.c.state.Components {
		if !t.running[name] {
			started++
		}
	}
	what := fmt.Sprintf("started %d processes", started)
	switch {
	case fresh:
		what = "is up"
	case started == 0:
		what = "was up already, every component is healthy"
	}
	t.c.say("%5.1f s  cluster %s %s: export KUBECONFIG=%s", time.Since(t.start).Seconds(), t.c.state.Name, what, t.c.state.Kubeconfig)
}
