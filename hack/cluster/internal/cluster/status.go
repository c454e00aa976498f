package cluster

import (
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/sidemount/sidemount/hack/cluster/internal/process"
)

// Status is how one component is.
type Status struct {
	Name string
	PID  int
	RSS  int64 // bytes
	// Err says what is wrong, nil when the component is healthy.
	Err error
}

// Check asks every component of the cluster how it is. It takes no lock: it can be called while others work on it.
func Check(ctx context.Context, s *State) ([]Status, error) {
	probe, err := newProber(s)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	machine := Component{Ref: s.Machine}
	all := map[string]Component{"machine": machine}
	maps.Copy(all, s.Components)
	for name, n := range s.Nodes {
		all[name] = Component{Ref: n.Holder}
	}
	names := slices.Sorted(maps.Keys(all))
	statuses := make([]Status, len(names))
	var wg sync.WaitGroup
	for i, name := range names {
		wg.Go(func() {
			component := all[name]
			statuses[i] = Status{Name: name, PID: component.PID, RSS: component.RSS(), Err: probe.check(ctx, component)}
		})
	}
	wg.Wait()
	return statuses, nil
}

// Holder is the process whose namespaces are those of the node, or of the machine when node is "".
func (s *State) Holder(node string) (process.Ref, bool) {
	if node == "" {
		return s.Machine, true
	}
	n, ok := s.Nodes[node]
	return n.Holder, ok
}
