package main

import (
	"math/rand/v2"
	"time"
)

// strike is a kill that is to be done: after a pause, on one of the subjects.
type strike struct {
	kind kind
	wait time.Duration
}

// longestWait is the longest pause before a kill, so that it can meet every moment of what the workloads do and of what the kill before
// has left to be done.
const longestWait = 2 * time.Second

// where says by whom a subject's volume is served.
type where bool

const (
	sidecars  where = false
	mountPods where = true
)

// on are the subjects of one place.
func (t *trial) on(w where) []*subject {
	var all []*subject
	for _, s := range t.subjects {
		if where(s.kind == onMountPod) == w {
			all = append(all, s)
		}
	}
	return all
}

// deal gives each subject its strikes. Places get as many as they have kinds.
func (t *trial) deal() map[*subject][]strike {
	own := t.kills * len(t.kinds) / (len(t.kinds) + len(t.mountPodKinds))
	all := map[*subject][]strike{}
	give := func(w where, n int, kinds []kind) {
		for i, strikes := range plan(n, len(t.on(w)), kinds, t.seed) {
			all[t.on(w)[i]] = strikes
		}
	}
	give(sidecars, own, t.kinds)
	give(mountPods, t.kills-own, t.mountPodKinds)
	return all
}

// plan draws kinds in turn and deals them out, each kind evenly, to lanes that strike at the same time. The same seed gives the same plan.
func plan(n, lanes int, kinds []kind, seed uint64) [][]strike {
	r := rand.New(rand.NewPCG(seed, 0))
	all := make([][]strike, lanes)
	for i := range n {
		k := i % len(kinds)
		lane := (i/len(kinds) + k) % lanes
		all[lane] = append(all[lane], strike{kinds[k], time.Duration(r.Int64N(int64(longestWait)))})
	}
	for _, lane := range all {
		r.Shuffle(len(lane), func(i, j int) { lane[i], lane[j] = lane[j], lane[i] })
	}
	return all
}
