package node

import (
	"net/url"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func ptrTo[T any](v T) *T { return &v }

func TestParseLogOptions(t *testing.T) {
	since := metav1.NewTime(time.Date(2026, 3, 4, 5, 6, 7, 0, time.UTC))
	for query, want := range map[string]*corev1.PodLogOptions{
		"":                               {},
		"follow=true&timestamps=1":       {Follow: true, Timestamps: true},
		"follow=&previous=True":          {Follow: true, Previous: true},
		"follow=false&previous=0":        {},
		"tailLines=0":                    {TailLines: ptrTo(int64(0))},
		"tailLines=5&limitBytes=10":      {TailLines: ptrTo(int64(5)), LimitBytes: ptrTo(int64(10))},
		"tail=7":                         {TailLines: ptrTo(int64(7))},
		"tail=all&tailLines=3":           {},
		"sinceSeconds=60":                {SinceSeconds: ptrTo(int64(60))},
		"sinceTime=2026-03-04T05:06:07Z": {SinceTime: &since},
		"stream=Stdout":                  {Stream: ptrTo("Stdout")},
	} {
		values, err := url.ParseQuery(query)
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseLogOptions(values)
		if err != nil {
			t.Errorf("%q: %v", query, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%q (-want +got):\n%s", query, diff)
		}
	}
	for _, query := range []string{"tailLines=x", "limitBytes=", "sinceSeconds=1.5", "sinceTime=yesterday", "tail=some"} {
		values, _ := url.ParseQuery(query)
		if got, err := ParseLogOptions(values); err == nil {
			t.Errorf("%q: got %+v, want an error", query, got)
		}
	}
}

func TestValidateLogOptions(t *testing.T) {
	now := metav1.Now()
	for name, o := range map[string]*corev1.PodLogOptions{
		"nothing":   {},
		"tail zero": {TailLines: ptrTo(int64(0))},
		"stream":    {Stream: ptrTo(corev1.LogStreamStderr)},
		"all":       {Stream: ptrTo(corev1.LogStreamAll), TailLines: ptrTo(int64(1))},
	} {
		if err := ValidateLogOptions(o); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, o := range map[string]*corev1.PodLogOptions{
		"negative tail":      {TailLines: ptrTo(int64(-1))},
		"no bytes":           {LimitBytes: ptrTo(int64(0))},
		"no seconds":         {SinceSeconds: ptrTo(int64(0))},
		"two sinces":         {SinceSeconds: ptrTo(int64(1)), SinceTime: &now},
		"unknown stream":     {Stream: ptrTo("stdin")},
		"tail of one stream": {Stream: ptrTo(corev1.LogStreamStdout), TailLines: ptrTo(int64(1))},
	} {
		if ValidateLogOptions(o) == nil {
			t.Errorf("%s: want an error", name)
		}
	}
}

func TestLoggedContainer(t *testing.T) {
	running := corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}
	waiting := func(reason string) corev1.ContainerState {
		return corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}}
	}
	ended := func(id string) corev1.ContainerState {
		return corev1.ContainerState{Terminated: &corev1.ContainerStateTerminated{ContainerID: id}}
	}
	for name, tc := range map[string]struct {
		status   corev1.ContainerStatus
		previous bool
		id, err  string
	}{
		"running":                {corev1.ContainerStatus{State: running, ContainerID: "containerd://a"}, false, "a", ""},
		"ended":                  {corev1.ContainerStatus{State: ended("containerd://b"), ContainerID: "containerd://b"}, false, "b", ""},
		"ended, previous wanted": {corev1.ContainerStatus{State: ended("containerd://b")}, true, "", `previous terminated container "app" in pod "web" not found`},
		"previous":               {corev1.ContainerStatus{State: running, ContainerID: "containerd://b", LastTerminationState: ended("containerd://a")}, true, "a", ""},
		"crash loop":             {corev1.ContainerStatus{State: waiting("CrashLoopBackOff"), LastTerminationState: ended("containerd://a")}, false, "a", ""},
		"creating":               {corev1.ContainerStatus{State: waiting("ContainerCreating")}, false, "", `container "app" in pod "web" is waiting to start: ContainerCreating`},
		"pull error":             {corev1.ContainerStatus{State: waiting("ErrImagePull")}, false, "", `container "app" in pod "web" is waiting to start: image can't be pulled`},
		"pull back-off":          {corev1.ContainerStatus{State: waiting("ImagePullBackOff")}, false, "", `container "app" in pod "web" is waiting to start: trying and failing to pull image`},
		"ended without id":       {corev1.ContainerStatus{State: ended("")}, false, "", `container "app" in pod "web" is terminated`},
		"ended without id, last": {corev1.ContainerStatus{State: ended(""), LastTerminationState: ended("containerd://a")}, false, "a", ""},
		"no state":               {corev1.ContainerStatus{}, false, "", `container "app" in pod "web" is waiting to start - no logs yet`},
	} {
		t.Run(name, func(t *testing.T) {
			tc.status.Name = "app"
			pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}}
			pod.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "other", ContainerID: "containerd://no"}, tc.status}
			id, err := LoggedContainer(pod, "app", tc.previous)
			text := ""
			if err != nil {
				text = err.Error()
			}
			if id != tc.id || text != tc.err {
				t.Errorf("got %q, %q; want %q, %q", id, text, tc.id, tc.err)
			}
		})
	}
	if _, err := LoggedContainer(&corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "web"}}, "app", false); err == nil ||
		err.Error() != `container "app" in pod "web" is not available` {
		t.Errorf("without a status: %v", err)
	}
}
