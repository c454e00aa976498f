package provider

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// factsOf completes a scene: every running container has started and is ready unless it is named in unready.
func factsOf(s scene, unready string) facts {
	f := facts{
		pod: s.pod(), old: &corev1.PodStatus{}, state: s.state(), now: noon, hostIPs: []string{"10.0.0.1"},
		waiting: map[string]corev1.ContainerStateWaiting{}, hooked: map[string]bool{}, started: map[string]bool{}, ready: map[string]bool{},
	}
	for _, c := range f.state.Containers {
		f.started[c.ID], f.ready[c.ID] = true, !set(unready)[c.Name]
	}
	return f
}

func TestPhase(t *testing.T) {
	for _, tt := range []struct {
		name string
		scene
		ended bool
		want  corev1.PodPhase
	}{
		{"nothing yet", scene{policy: always, apps: "a"}, false, corev1.PodPending},
		{"a sandbox is no container", scene{policy: always, apps: "a", sandboxes: "ready"}, false, corev1.PodPending},
		{"one of two has not been started", scene{policy: always, apps: "a b", sandboxes: "ready", have: "a"}, false, corev1.PodPending},
		{"all run", scene{policy: always, apps: "a b", sandboxes: "ready", have: "b a"}, false, corev1.PodRunning},
		{"one has ended, one runs", scene{policy: never, apps: "a b", sandboxes: "ready", have: "b a:exit:1"}, false, corev1.PodRunning},
		{"all will be restarted", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:1"}, false, corev1.PodRunning},
		{"success, containers may still run", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:exit:0"}, false, corev1.PodPending},
		{"success", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:exit:0"}, true, corev1.PodSucceeded},
		{"failure", scene{policy: never, apps: "a b", sandboxes: "ready", have: "b:exit:0 a:exit:1"}, true, corev1.PodFailed},
		{"an ended server that succeeded", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:0"}, true, corev1.PodSucceeded},
		{"an ended server that failed", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:1"}, true, corev1.PodFailed},
		{"ended before anything ran", scene{policy: always, apps: "a"}, true, corev1.PodFailed},
		{"an init container runs", scene{policy: always, inits: "i", apps: "a", sandboxes: "ready", have: "i"}, false, corev1.PodPending},
		{"an init container failed for good", scene{policy: never, inits: "i", apps: "a", sandboxes: "ready", have: "i:exit:1"}, true, corev1.PodFailed},
		{"an init container will be restarted", scene{policy: always, inits: "i", apps: "a", sandboxes: "ready", have: "i:exit:1"}, false, corev1.PodPending},
		{"only the sidecar runs yet", scene{policy: always, inits: "s*", apps: "a", sandboxes: "ready", have: "s"}, false, corev1.PodPending},
		{"the application is done, the sidecar runs", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a:exit:0 s"}, false, corev1.PodRunning},
		{"the sidecar crashes beside the application", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a s:exit:1"}, false, corev1.PodRunning},
		{"the sidecar's exit code does not matter", scene{policy: never, inits: "s*", apps: "a", sandboxes: "ready", have: "a:exit:0 s:exit:1"}, true, corev1.PodSucceeded},
		{"an injected sidecar does not count", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:exit:0 fuse:exit:1"}, true, corev1.PodSucceeded},
	} {
		f := factsOf(tt.scene, "")
		f.ended = tt.ended
		if got := computeStatus(f).Phase; got != tt.want {
			t.Errorf("%s: got %s, want %s", tt.name, got, tt.want)
		}
	}
}

func TestFinalPhaseNeverChanges(t *testing.T) {
	f := factsOf(scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, "")
	f.old = &corev1.PodStatus{Phase: corev1.PodFailed, Reason: "Evicted", Message: "why"}
	s := computeStatus(f)
	if s.Phase != corev1.PodFailed || s.Reason != "Evicted" || s.Message != "why" {
		t.Errorf("got %s %s %q", s.Phase, s.Reason, s.Message)
	}
}

func TestVerdict(t *testing.T) {
	f := factsOf(scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:0"}, "")
	f.verdict = &verdict{reason: "Evicted", message: "memory", condition: &corev1.PodCondition{Type: corev1.DisruptionTarget, Status: corev1.ConditionTrue}}
	if s := computeStatus(f); s.Phase == corev1.PodFailed || findCondition(s.Conditions, corev1.DisruptionTarget) != nil {
		t.Errorf("a pod that has not ended is %s already", s.Phase)
	}
	f.ended = true
	s := computeStatus(f)
	if s.Phase != corev1.PodFailed || s.Reason != "Evicted" || findCondition(s.Conditions, corev1.DisruptionTarget) == nil {
		t.Errorf("got %s %s %v", s.Phase, s.Reason, s.Conditions)
	}
}

// conditionWords tells conditions in few words: the initials of those that are true, reasons of the others.
func conditionWords(s corev1.PodStatus) string {
	var w []string
	for _, c := range s.Conditions {
		word := string(c.Type) + "=" + string(c.Status)
		if c.Reason != "" {
			word += ":" + c.Reason
		}
		w = append(w, word)
	}
	return strings.Join(w, " ")
}

func TestConditions(t *testing.T) {
	for _, tt := range []struct {
		name string
		scene
		unready string
		ended   bool
		want    string
	}{
		{"a new pod", scene{policy: always, apps: "a"}, "", false,
			"PodReadyToStartContainers=False Initialized=True Ready=False:ContainersNotReady ContainersReady=False:ContainersNotReady PodScheduled=True"},
		{"a new pod with init containers", scene{policy: always, inits: "i", apps: "a"}, "", false,
			"PodReadyToStartContainers=False Initialized=False:ContainersNotInitialized Ready=False:ContainersNotReady ContainersReady=False:ContainersNotReady PodScheduled=True"},
		{"ready", scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, "", false,
			"PodReadyToStartContainers=True Initialized=True Ready=True ContainersReady=True PodScheduled=True"},
		{"not ready", scene{policy: always, apps: "a b", sandboxes: "ready", have: "b a"}, "b", false,
			"PodReadyToStartContainers=True Initialized=True Ready=False:ContainersNotReady ContainersReady=False:ContainersNotReady PodScheduled=True"},
		{"a sidecar is not ready", scene{policy: always, inits: "s*", apps: "a", sandboxes: "ready", have: "a s"}, "s", false,
			"PodReadyToStartContainers=True Initialized=True Ready=False:ContainersNotReady ContainersReady=False:ContainersNotReady PodScheduled=True"},
		{"completed", scene{policy: never, inits: "i", apps: "a", sandboxes: "dead", have: "a:exit:0 i:exit:0"}, "", true,
			"PodReadyToStartContainers=False Initialized=True:PodCompleted Ready=False:PodCompleted ContainersReady=False:PodCompleted PodScheduled=True"},
		{"failed", scene{policy: never, apps: "a", sandboxes: "dead", have: "a:exit:1"}, "", true,
			"PodReadyToStartContainers=False Initialized=True Ready=False:PodFailed ContainersReady=False:PodFailed PodScheduled=True"},
	} {
		f := factsOf(tt.scene, tt.unready)
		f.ended = tt.ended
		for i := range f.state.Sandboxes {
			if f.state.Sandboxes[i].Ready {
				f.state.Sandboxes[i].IPs = []string{"10.88.0.2"}
			}
		}
		if got := conditionWords(computeStatus(f)); got != tt.want {
			t.Errorf("%s:\ngot  %s\nwant %s", tt.name, got, tt.want)
		}
	}
}

func TestTransitionTimeIsKeptWhileTheStatusStays(t *testing.T) {
	f := factsOf(scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, "")
	first := computeStatus(f)
	f.old, f.now = &first, noon.Add(time.Hour)
	f.ready = map[string]bool{}
	second := computeStatus(f)
	if got := findCondition(second.Conditions, corev1.PodScheduled).LastTransitionTime.Time; !got.Equal(noon) {
		t.Errorf("PodScheduled changed at %v, want %v", got, noon)
	}
	if got := findCondition(second.Conditions, corev1.PodReady).LastTransitionTime.Time; !got.Equal(f.now) {
		t.Errorf("Ready changed at %v, want %v", got, f.now)
	}
}

func TestReadinessGates(t *testing.T) {
	f := factsOf(scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, "")
	f.pod.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: "g"}}
	s := computeStatus(f)
	c := findCondition(s.Conditions, corev1.PodReady)
	if c.Status != corev1.ConditionFalse || c.Reason != "ReadinessGatesNotReady" || c.Message != `corresponding condition of pod readiness gate "g" does not exist.` {
		t.Errorf("got %v", c)
	}
	f.pod.Status.Conditions = []corev1.PodCondition{{Type: "g", Status: corev1.ConditionTrue}}
	s = computeStatus(f)
	if c := findCondition(s.Conditions, corev1.PodReady); c.Status != corev1.ConditionTrue {
		t.Errorf("with the gate open: %v", c)
	}
}

// stateWord tells a container's state in few words.
func stateWord(s corev1.ContainerState) string {
	switch {
	case s.Running != nil:
		return "running"
	case s.Waiting != nil:
		return "waiting " + s.Waiting.Reason
	case s.Terminated != nil:
		return "terminated " + s.Terminated.Reason
	}
	return "none"
}

func TestContainerStatus(t *testing.T) {
	ran := corev1.ContainerStatus{Name: "a", ContainerID: "containerd://gone", RestartCount: 2, State: corev1.ContainerState{
		Running: &corev1.ContainerStateRunning{}}}
	ended := ran
	ended.State = corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{Reason: "Completed", ContainerID: "containerd://gone"}}
	for _, tt := range []struct {
		name     string
		scene    scene
		old      *corev1.ContainerStatus
		waiting  string
		hooked   bool
		ended    bool
		state    string
		last     string
		restarts int32
	}{
		{"never created", scene{policy: always, apps: "a"}, nil, "", false, false, "waiting ContainerCreating", "none", 0},
		{"never created, with init containers", scene{policy: always, inits: "i", apps: "a"}, nil, "", false, false, "waiting PodInitializing", "none", 0},
		{"not created for a reason", scene{policy: always, apps: "a"}, nil, "ErrImagePull", false, false, "waiting ErrImagePull", "none", 0},
		{"running", scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, nil, "", false, false, "running", "none", 0},
		{"running while its postStart hook runs", scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, nil, "", true, false, "waiting ContainerCreating", "none", 0},
		{"running for the second time", scene{policy: always, apps: "a", sandboxes: "ready", have: "a a:exit:1"}, nil, "", false, false, "running", "terminated ", 1},
		{"ended", scene{policy: never, apps: "a", sandboxes: "ready", have: "a:exit:1"}, nil, "", false, false, "terminated ", "none", 0},
		{"waiting to be restarted", scene{policy: always, apps: "a", sandboxes: "ready", have: "a:exit:1"}, nil, "CrashLoopBackOff", false, false, "waiting CrashLoopBackOff", "terminated ", 0},
		{"lost while it ran", scene{policy: always, apps: "a"}, &ran, "", false, false, "waiting ContainerCreating", "terminated ContainerStatusUnknown", 3},
		{"removed after it ended", scene{policy: never, apps: "a"}, &ended, "", false, false, "terminated Completed", "none", 2},
		{"the restart count never shrinks", scene{policy: always, apps: "a", sandboxes: "ready", have: "a"}, &ran, "", false, false, "running", "none", 2},
		{"lost for good", scene{policy: always, apps: "a"}, nil, "", false, true, "terminated ContainerStatusUnknown", "none", 0},
	} {
		f := factsOf(tt.scene, "")
		f.ended = tt.ended
		if tt.old != nil {
			f.old.ContainerStatuses = []corev1.ContainerStatus{*tt.old}
		}
		if tt.waiting != "" {
			f.waiting["a"] = corev1.ContainerStateWaiting{Reason: tt.waiting}
		}
		f.hooked["a"] = tt.hooked
		got := computeStatus(f).ContainerStatuses[0]
		if stateWord(got.State) != tt.state || stateWord(got.LastTerminationState) != tt.last || got.RestartCount != tt.restarts {
			t.Errorf("%s: got %q last %q restarts %d, want %q last %q restarts %d", tt.name, stateWord(got.State),
				stateWord(got.LastTerminationState), got.RestartCount, tt.state, tt.last, tt.restarts)
		}
	}
}

func TestTerminationMessageStaysAndIsBounded(t *testing.T) {
	f := factsOf(scene{policy: never, apps: "a b", sandboxes: "ready", have: "b a:exit:1"}, "")
	f.state.Containers[1].Message = strings.Repeat("x", 20000)
	first := computeStatus(f)
	if n := len(first.ContainerStatuses[0].State.Terminated.Message); n != maxMessages/2 {
		t.Errorf("message of %d bytes, want %d", n, maxMessages/2)
	}
	f.old, f.state.Containers[1].Message = &first, ""
	if second := computeStatus(f); second.ContainerStatuses[0].State.Terminated.Message == "" {
		t.Error("the message is gone with its file")
	}
}

func TestResourcesInForce(t *testing.T) {
	q := resource.MustParse
	c := &corev1.Container{Resources: corev1.ResourceRequirements{
		Requests: corev1.ResourceList{corev1.ResourceCPU: q("500m"), corev1.ResourceMemory: q("64Mi")},
		Limits:   corev1.ResourceList{corev1.ResourceCPU: q("1"), corev1.ResourceMemory: q("128Mi")},
	}}
	got := resourcesOf(c, cri.Container{State: cri.Running, Resources: &cri.Resources{CPURequestMilli: 500, CPULimitMilli: 2000, MemoryLimit: 128 << 20}})
	if cpu := got.Limits[corev1.ResourceCPU]; cpu.Cmp(q("2")) != 0 {
		t.Errorf("cpu limit %s, want 2", cpu.String())
	}
	if m := got.Limits[corev1.ResourceMemory]; m.String() != "128Mi" {
		t.Errorf("memory limit %s, want it as it was written", m.String())
	}
	if cpu := c.Resources.Limits[corev1.ResourceCPU]; cpu.String() != "1" {
		t.Error("the specification was changed")
	}
}

func TestStatusPatchLeavesForeignFieldsAlone(t *testing.T) {
	api := &corev1.PodStatus{
		Phase: corev1.PodPending, QOSClass: corev1.PodQOSBestEffort, NominatedNodeName: "n",
		Conditions: []corev1.PodCondition{{Type: "example.com/gate", Status: corev1.ConditionTrue}, {Type: corev1.PodScheduled, Status: corev1.ConditionTrue}},
	}
	next := &corev1.PodStatus{Phase: corev1.PodRunning, Conditions: []corev1.PodCondition{{Type: corev1.PodScheduled, Status: corev1.ConditionTrue}}}
	patch, err := statusPatch("u", api, next)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(patch, &got); err != nil {
		t.Fatal(err)
	}
	status := got["status"].(map[string]any)
	if status["phase"] != "Running" || got["metadata"].(map[string]any)["uid"] != "u" {
		t.Errorf("patch %s", patch)
	}
	for _, field := range []string{"qosClass", "nominatedNodeName", "conditions"} {
		if _, ok := status[field]; ok {
			t.Errorf("patch touches %s: %s", field, patch)
		}
	}
	if again, err := statusPatch("u", mergeStatus(api, next), next); err != nil || again != nil {
		t.Errorf("after it was applied there is still %s, %v", again, err)
	}
}

func TestNewerVersionWins(t *testing.T) {
	v := func(rv string) *corev1.Pod { return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{ResourceVersion: rv}} }
	if got := newer(v("10"), v("9")).ResourceVersion; got != "10" {
		t.Errorf("got version %s, want 10", got)
	}
	if got := newer(v("9"), v("10")).ResourceVersion; got != "10" {
		t.Errorf("got version %s, want 10", got)
	}
}
