package main

import (
	"slices"
	"strings"
	"testing"
)

func TestKindsAreForTheirPlaces(t *testing.T) {
	for text, want := range map[string][2][]string{
		"client":                 {{"client"}, {"client"}},
		"client@sidecar,delete":  {{"client"}, {"delete"}},
		"client@mountpod,server": {nil, {"client", "server"}},
		"oom":                    {{"oom"}, {"oom"}},
		"upgrade":                {{"upgrade"}, nil},
	} {
		var o options
		if err := o.setKinds(text); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		if got := [2][]string{names(o.kinds), names(o.mountPodKinds)}; !slices.Equal(got[0], want[0]) || !slices.Equal(got[1], want[1]) {
			t.Errorf("%s: got %v, want %v", text, got, want)
		}
	}
	var o options
	if err := o.setKinds("nothing"); err == nil {
		t.Error("there is no such kind")
	}
	if err := o.setKinds("delete@sidecar"); err == nil {
		t.Error("a sidecar has no such kind")
	}
}

func TestEachPlaceGetsStrikesOfItsOwnKinds(t *testing.T) {
	trial := &trial{options: options{kills: 27, kinds: allKinds, mountPodKinds: mountPodKinds}}
	trial.subjects = trial.newSubjects()
	dealt := 0
	for s, strikes := range trial.deal() {
		kinds := allKinds
		if s.kind == onMountPod {
			kinds = mountPodKinds
		}
		for _, strike := range strikes {
			dealt++
			if !slices.Contains(names(kinds), strike.kind.name) {
				t.Errorf("%s on %s", strike.kind.name, s.name)
			}
		}
	}
	if dealt != 27 {
		t.Errorf("%d of 27 strikes", dealt)
	}
	if got := names(trial.everyKind()); len(got) != len(allKinds)+2 {
		t.Errorf("kinds of the table: %v", got)
	}
	trial.kinds = nil
	for _, s := range trial.newSubjects() {
		if s.kind != onMountPod {
			t.Errorf("%s has nothing to fear", s.name)
		}
	}
}

func TestAttached(t *testing.T) {
	text := "# TYPE x counter\nsidemount_sessions{state=\"Mounted\"} 5\nsidemount_sessions{state=\"Attached\"} 2\n"
	if got := attached(text); got != 2 {
		t.Errorf("got %d, want 2", got)
	}
	if got := attached("nothing"); got != 0 {
		t.Errorf("got %d of nothing", got)
	}
}

func names(kinds []kind) []string {
	var all []string
	for _, k := range kinds {
		all = append(all, k.name)
	}
	return all
}

func TestAnAgentsLogTellsWhenItGaveItsSessionAway(t *testing.T) {
	const log = `2026-11-29T19:00:55.1Z stderr F time=2026-11-29T19:00:55.1Z level=info msg="ending"
2026-11-29T19:00:56.25Z stderr F time=2026-11-29T19:00:56.25Z level=info msg="the session goes to another agent" session="s"
2026-11-29T19:00:56.3Z stderr F time=2026-11-29T19:00:56.3Z level=info msg="let go of the session" session="s"
`
	at, err := yielded(strings.NewReader(log))
	if err != nil || at.Nanosecond() != 250e6 || at.Second() != 56 {
		t.Errorf("at %s, %v", at, err)
	}
	if at, err := yielded(strings.NewReader(log[:100])); err != nil || !at.IsZero() {
		t.Errorf("an agent that has not: at %s, %v", at, err)
	}
}
