package provider

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

var noon = time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)

// world describes a pod and what the runtime has of it in few words. Containers are "name" or "name:state[:exit code]", the
// newest first, all of the newest sandbox unless "@n" names an older one. An init container that ends in "*" is a sidecar.
type scene struct {
	policy     corev1.RestartPolicy
	inits      string
	apps       string
	ephemerals string
	sandboxes  string // "ready", "dead", "ready dead", newest first
	have       string
	busy       string
	started    string
	failed     string
	notBefore  string
	changed    string
	injected   string
}

func (s scene) view() view {
	v := view{
		pod: s.pod(), state: s.state(), now: noon, busy: set(s.busy), started: map[string]bool{}, failed: map[string]killReason{},
		notBefore: map[string]time.Time{}, injected: func(n string) bool { return set(s.injected)[n] },
		hash: func(c *corev1.Container) string {
			if set(s.changed)[c.Name] {
				return "new"
			}
			return "old"
		},
	}
	for _, c := range v.state.Containers {
		if set(s.started)[c.Name] {
			v.started[c.ID] = true
		}
		if set(s.failed)[c.Name] {
			v.failed[c.ID] = killLiveness
		}
	}
	for n := range set(s.notBefore) {
		v.notBefore[n] = noon.Add(time.Minute)
	}
	return v
}

func (s scene) pod() *corev1.Pod {
	p := &corev1.Pod{}
	p.Name, p.Namespace, p.UID = "p", "default", "u"
	p.Spec.RestartPolicy = s.policy
	always := corev1.ContainerRestartPolicyAlways
	for _, n := range strings.Fields(s.inits) {
		c := corev1.Container{Name: strings.TrimSuffix(n, "*")}
		if strings.HasSuffix(n, "*") {
			c.RestartPolicy = &always
		}
		p.Spec.InitContainers = append(p.Spec.InitContainers, c)
	}
	for _, n := range strings.Fields(s.apps) {
		p.Spec.Containers = append(p.Spec.Containers, corev1.Container{Name: n})
	}
	for _, n := range strings.Fields(s.ephemerals) {
		p.Spec.EphemeralContainers = append(p.Spec.EphemeralContainers, corev1.EphemeralContainer{
			EphemeralContainerCommon: corev1.EphemeralContainerCommon{Name: n}})
	}
	return p
}

func (s scene) state() cri.Pod {
	st := cri.Pod{UID: "u"}
	boxes := strings.Fields(s.sandboxes)
	for i, b := range boxes {
		st.Sandboxes = append(st.Sandboxes, cri.Sandbox{ID: fmt.Sprint(i), Attempt: uint32(len(boxes) - 1 - i), Ready: b == "ready"})
	}
	attempts := map[string]uint32{}
	for _, h := range strings.Fields(s.have) {
		attempts[strings.SplitN(h, ":", 2)[0]]++
	}
	for i, h := range strings.Fields(s.have) {
		h, box, older := strings.Cut(h, "@")
		if !older {
			box = "0"
		}
		part := append(strings.Split(h, ":"), "", "")
		attempts[part[0]]--
		c := cri.Container{ID: fmt.Sprintf("%s-%d", part[0], i), Name: part[0], SandboxID: box, Hash: "old", Attempt: attempts[part[0]], State: cri.Running}
		switch part[1] {
		case "exit":
			c.State = cri.Exited
			if part[2] != "" && part[2] != "0" {
				c.ExitCode = 1
			}
		case "created":
			c.State = cri.Created
		case "lost":
			c.State = cri.Unknown
		}
		st.Containers = append(st.Containers, c)
	}
	return st
}

func set(words string) map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(words) {
		m[w] = true
	}
	return m
}

// words tells actions in few words: "sandbox#n stop:id kill:name start:name#attempt remove:name wait done".
func (a actions) words() string {
	var w []string
	for _, k := range a.kill {
		w = append(w, "kill:"+k.container.Name)
	}
	for range a.stopSandboxes {
		w = append(w, "stop")
	}
	if a.createSandbox {
		w = append(w, fmt.Sprintf("sandbox#%d", a.attempt))
	}
	for _, s := range a.start {
		w = append(w, fmt.Sprintf("start:%s#%d", s.container.Name, s.attempt))
	}
	for _, c := range a.remove {
		w = append(w, "remove:"+c.Name)
	}
	if !a.wake.IsZero() {
		w = append(w, "wait")
	}
	if a.done {
		w = append(w, "done")
	}
	return strings.Join(w, " ")
}

const (
	always    = corev1.RestartPolicyAlways
	onFailure = corev1.RestartPolicyOnFailure
	never     = corev1.RestartPolicyNever
)

func TestComputeActions(t *testing.T) {
	for _, tt := range []struct {
		name string
		scene
		want string
	}{
		{"a new pod needs a sandbox", scene{policy: always, apps: "a"}, "sandbox#0"},
		{"then all application containers in order", scene{policy: always, apps: "a b", sandboxes: "ready"}, "start:a#0 start:b#0"},
		{"and then nothing", scene{policy: always, apps: "a b", sandboxes: "ready", have: "b a"}, ""},
		{"nothing for a container that is being worked on", scene{policy: always, apps: "a b", sandboxes: "ready", busy: "a"}, "start:b#0"},

		{"Always restarts a success", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:0"}, "start:a#1"},
		{"Always restarts a failure", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:1"}, "start:a#1"},
		{"OnFailure leaves a success", scene{policy: onFailure, apps: "a", sandboxes: "ready", have: "a:exit:0"}, "done"},
		{"OnFailure restarts a failure", scene{policy: onFailure, apps: "a", sandboxes: "ready", have: "a:exit:1"}, "start:a#1"},
		{"Never leaves a failure", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:exit:1"}, "done"},
		{"a pod is done when its last container is", scene{policy: never, apps: "a b", sandboxes: "ready", have: "b a:exit:0"}, ""},
		{"a back-off is waited for", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:1", notBefore: "a"}, "wait"},
		{"the other containers do not wait with it", scene{policy: always, apps: "a b", sandboxes: "ready", have: "a:exit:1", notBefore: "a"}, "start:b#0 wait"},
		{"a container that was created and not started is replaced", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:created"}, "start:a#1"},
		{"one that the runtime has lost is ended first", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:lost"}, "kill:a"},
		{"the third dead container is removed", scene{policy: always, apps: "a", sandboxes: "ready", have: "a a:exit:1 a:exit:1"}, "remove:a"},

		{"a changed definition restarts", scene{policy: always, apps: "a b", sandboxes: "ready", have: "b a", changed: "a"}, "kill:a"},
		{"a failed liveness probe ends the container", scene{policy: always, apps: "a", sandboxes: "ready", have: "a", failed: "a"}, "kill:a"},

		{"the first init container comes first", scene{policy: always, inits: "i j", apps: "a", sandboxes: "ready"}, "start:i#0"},
		{"the second waits for the first", scene{policy: always, inits: "i j", apps: "a", sandboxes: "ready", have: "i"}, ""},
		{"and follows its success", scene{policy: always, inits: "i j", apps: "a", sandboxes: "ready", have: "i:exit:0"}, "start:j#0"},
		{"the application follows the last", scene{policy: always, inits: "i j", apps: "a", sandboxes: "ready", have: "j:exit:0 i:exit:0"}, "start:a#0"},
		{"removed init containers are not run again", scene{policy: always, inits: "i j", apps: "a", sandboxes: "ready", have: "j:exit:0"}, "start:a#0"},
		{"nor all of them once the application has begun", scene{policy: always, inits: "i j", apps: "a", sandboxes: "ready", have: "a:exit:1"}, "start:a#1"},
		{"a failed init container is restarted", scene{policy: always, inits: "i", apps: "a", sandboxes: "ready", have: "i:exit:1"}, "start:i#1"},
		{"but not with Never", scene{policy: never, inits: "i", apps: "a", sandboxes: "ready", have: "i:exit:1"}, "done"},

		{"a sidecar that has not started holds up the others", scene{policy: always, inits: "s* i", apps: "a", sandboxes: "ready", have: "s"}, ""},
		{"one that has does not", scene{policy: always, inits: "s* i", apps: "a", sandboxes: "ready", have: "s", started: "s"}, "start:i#0"},
		{"a sidecar that ends while an init container runs is restarted beside it", scene{policy: never, inits: "s* i", apps: "a", sandboxes: "ready", have: "i s:exit:0"}, "start:s#1"},
		{"and does not hold up what follows that", scene{policy: never, inits: "s* i j", apps: "a", sandboxes: "ready", have: "i:exit:0 s:exit:0"}, "start:s#1 start:j#0"},
		{"a sidecar is restarted while the application runs, even with Never", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a s:exit:1"}, "start:s#1"},
		{"a sidecar does not keep a done pod alive", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a:exit:0 s", started: "s"}, "done"},
		{"nor is it restarted in one", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a:exit:0 s:exit:1"}, "done"},
		{"a new default image does not restart an injected sidecar", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a s", started: "s", changed: "s", injected: "s"}, ""},
		{"a changed sidecar of the pod's own is restarted", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a s", started: "s", changed: "s"}, "kill:s"},

		{"a dead sandbox is replaced", scene{policy: always, apps: "a", sandboxes: "dead", have: "a:exit:1"}, "stop sandbox#1"},
		{"after what still runs in it has been ended", scene{policy: always, apps: "a b", sandboxes: "dead", have: "b a:exit:1"}, "kill:b"},
		{"not with Never once something has run", scene{policy: never, apps: "a", sandboxes: "dead", have: "a:exit:1"}, "done"},
		{"with Never if nothing has run", scene{policy: never, apps: "a", sandboxes: "dead"}, "stop sandbox#1"},
		{"not when all have succeeded", scene{policy: onFailure, apps: "a b", sandboxes: "dead", have: "b:exit:0 a:exit:0"}, "done"},
		{"when one has not", scene{policy: onFailure, apps: "a b", sandboxes: "dead", have: "b:exit:1 a:exit:0"}, "stop sandbox#1"},
		{"in a new sandbox init containers run again", scene{policy: always, inits: "i", apps: "a", sandboxes: "ready dead", have: "a:exit:1@1 i:exit:0@1"}, "start:i#1"},
		{"and a container that has succeeded once does not", scene{policy: onFailure, apps: "a b", sandboxes: "ready dead", have: "b:exit:1@1 a:exit:0@1"}, "start:b#1"},

		{"an ephemeral container starts beside the application", scene{policy: always, apps: "a", ephemerals: "e", sandboxes: "ready", have: "a"}, "start:e#0"},
		{"and is never restarted", scene{policy: always, apps: "a", ephemerals: "e", sandboxes: "ready", have: "e:exit:1 a"}, ""},
	} {
		if got := computeActions(tt.view()).words(); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestRestartsAfterContainerRules(t *testing.T) {
	pod := &corev1.Pod{Spec: corev1.PodSpec{RestartPolicy: never}}
	policy := func(p corev1.ContainerRestartPolicy) *corev1.ContainerRestartPolicy { return &p }
	rule := func(op corev1.ContainerRestartRuleOnExitCodesOperator, codes ...int32) corev1.ContainerRestartRule {
		return corev1.ContainerRestartRule{Action: corev1.ContainerRestartRuleActionRestart,
			ExitCodes: &corev1.ContainerRestartRuleOnExitCodes{Operator: op, Values: codes}}
	}
	retry := corev1.Container{RestartPolicy: policy(corev1.ContainerRestartPolicyNever),
		RestartPolicyRules: []corev1.ContainerRestartRule{rule(corev1.ContainerRestartRuleOnExitCodesOpIn, 42)}}
	others := corev1.Container{RestartPolicy: policy(corev1.ContainerRestartPolicyNever),
		RestartPolicyRules: []corev1.ContainerRestartRule{rule(corev1.ContainerRestartRuleOnExitCodesOpNotIn, 0, 42)}}
	own := corev1.Container{RestartPolicy: policy(corev1.ContainerRestartPolicyOnFailure)}
	for _, tt := range []struct {
		name string
		c    *corev1.Container
		kind containerKind
		code int32
		want bool
	}{
		{"the pod's policy", &corev1.Container{}, appKind, 1, false},
		{"the container's own policy", &own, appKind, 1, true},
		{"its own policy on success", &own, appKind, 0, false},
		{"a rule that matches", &retry, appKind, 42, true},
		{"a rule that does not", &retry, appKind, 1, false},
		{"a negative rule that matches", &others, appKind, 1, true},
		{"a negative rule that does not", &others, appKind, 42, false},
		{"an ephemeral container", &own, ephemeralKind, 1, false},
	} {
		if got := restartsAfter(pod, tt.c, tt.kind, tt.code); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestCrashBackoff(t *testing.T) {
	b := crashBackoff{of: crashPauses}
	at := noon
	var got []time.Duration
	for range 8 {
		until := b.until(at)
		got = append(got, max(until.Sub(at), 0))
		if until.After(at) {
			at = until
		}
		b.restarted(at, at.Add(-max(until.Sub(at), 0)))
	}
	want := []time.Duration{0, 10, 20, 40, 80, 160, 300, 300}
	for i := range want {
		want[i] *= time.Second
	}
	if !slices.Equal(got, want) {
		t.Errorf("pauses %v, want %v", got, want)
	}
	if until := b.until(at.Add(11 * time.Minute)); !until.IsZero() {
		t.Errorf("after ten good minutes the container waits until %v, want at once", until)
	}
}

func TestBackoffDoublesAndResets(t *testing.T) {
	var b backoff
	at := noon
	for i, want := range []time.Duration{1, 2, 4, 8, 16, 30, 30} {
		b.failed(at, retryPauses)
		if got := b.until().Sub(at); got != want*time.Second {
			t.Errorf("pause %d is %v, want %vs", i, got, int(want))
		}
		if !b.waiting(at) || b.waiting(b.until()) {
			t.Errorf("pause %d does not end when it should", i)
		}
		at = b.until()
	}
	b.failed(at.Add(time.Hour), retryPauses)
	if b.pause != time.Second {
		t.Errorf("after an hour the pause is %v, want 1s", b.pause)
	}
}
