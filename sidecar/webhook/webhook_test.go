package webhook

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	admissionv1 "k8s.io/api/admission/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/version"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// outlines answers for pods as a Resolver would.
type outlines struct {
	out sidecar.Outlined
	err error
	// asked counts the pods.
	asked int
}

func (o *outlines) Outline(context.Context, *corev1.Pod) (sidecar.Outlined, error) {
	o.asked++
	return o.out, o.err
}

func oneVolume() sidecar.Outlined {
	return sidecar.Outlined{Mounts: []sidecar.Mount{{
		Volume: mount.Volume{Name: "data", Client: mount.JuiceFS}, Image: "client", Argv: []string{"/client"}, UID: 65534, GID: 65534,
		Warnings: []string{"a warning"},
	}}}
}

func guest(context.Context) (*sidecar.Guest, error) {
	return &sidecar.Guest{Image: "agent", Servers: []string{"10.0.0.1:443"}, ServerName: "hook.ns.svc", CA: "PEM", Audience: "us"}, nil
}

func newWebhook(t *testing.T, o *outlines, compatible bool) (*Webhook, *[]Outcome) {
	t.Helper()
	seen := new([]Outcome)
	w, err := New(Options{Resolver: o, NodeResolver: o, Guest: guest, Driver: sidecar.DefaultDriver, Compatible: compatible, Observe: func(o Outcome) { *seen = append(*seen, o) }})
	if err != nil {
		t.Fatal(err)
	}
	return w, seen
}

// podJSON has a field that no client library knows, as a newer API server sends it.
const podJSON = `{"metadata":{"name":"web","annotations":{"a/b~c":"d"}},"spec":{"futurePod":1,
"initContainers":[{"name":"early","image":"x","futureInit":2,"volumeMounts":[{"name":"data","mountPath":"/i","futureMount":3}]}],
"containers":[{"name":"app","image":"x","future":[4],"volumeMounts":[{"name":"other","mountPath":"/o"},{"name":"data","mountPath":"/d","subPath":"s"}]}],
"volumes":[{"name":"other","emptyDir":{}},{"name":"data","persistentVolumeClaim":{"claimName":"c"},"futureVolume":5}]}}`

func ask(t *testing.T, w *Webhook, pod string) (*admissionv1.AdmissionResponse, int) {
	t.Helper()
	return askAt(t, w, "/", pod)
}

func askAt(t *testing.T, w *Webhook, path, pod string) (*admissionv1.AdmissionResponse, int) {
	t.Helper()
	review := admissionv1.AdmissionReview{
		TypeMeta: metav1.TypeMeta{APIVersion: "admission.k8s.io/v1", Kind: "AdmissionReview"},
		Request: &admissionv1.AdmissionRequest{
			UID: "u", Operation: admissionv1.Create, Namespace: "shop", Object: runtime.RawExtension{Raw: []byte(pod)},
			Resource: metav1.GroupVersionResource{Version: "v1", Resource: "pods"},
		},
	}
	body, err := json.Marshal(review)
	if err != nil {
		t.Fatal(err)
	}
	rec := httptest.NewRecorder()
	w.Handler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodPost, path, bytes.NewReader(body)))
	if rec.Code != http.StatusOK {
		return nil, rec.Code
	}
	var answer admissionv1.AdmissionReview
	if err := json.Unmarshal(rec.Body.Bytes(), &answer); err != nil {
		t.Fatal(err)
	}
	if answer.Response.UID != "u" || answer.Kind != "AdmissionReview" {
		t.Errorf("answer is not to the request: %+v", answer)
	}
	return answer.Response, rec.Code
}

func apply(t *testing.T, pod string, r *admissionv1.AdmissionResponse) string {
	t.Helper()
	p, err := jsonpatch.DecodePatch(r.Patch)
	if err != nil {
		t.Fatal(err)
	}
	out, err := p.Apply([]byte(pod))
	if err != nil {
		t.Fatalf("%v: %s", err, r.Patch)
	}
	return string(out)
}

func TestInjectionKeepsWhatItDoesNotKnow(t *testing.T) {
	w, seen := newWebhook(t, &outlines{out: oneVolume()}, false)
	response, _ := ask(t, w, podJSON)
	if !response.Allowed || response.PatchType == nil || *response.PatchType != admissionv1.PatchTypeJSONPatch || len(response.Warnings) != 1 {
		t.Fatalf("got %+v", response)
	}
	out := apply(t, podJSON, response)
	for _, field := range []string{`"futurePod":1`, `"futureInit":2`, `"futureMount":3`, `"future":[4]`, `"futureVolume":5`, `"a/b~c":"d"`, `"claimName":"c"`} {
		if !strings.Contains(out, field) {
			t.Errorf("%s was lost in %s", field, out)
		}
	}
	got, want := new(corev1.Pod), new(corev1.Pod)
	if err := errors.Join(json.Unmarshal([]byte(out), got), json.Unmarshal([]byte(podJSON), want)); err != nil {
		t.Fatal(err)
	}
	g, _ := guest(t.Context())
	want, err := sidecar.Inject(want, oneVolume().Mounts, sidecar.InjectOptions{Guest: g})
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the patch makes another pod than Inject: %s", diff)
	}
	if len(*seen) != 1 || (*seen)[0] != Injected {
		t.Errorf("outcomes %v", *seen)
	}
}

// A node's own driver publishes its claims; those of another driver are published by that one, also where the webhook serves both.
func TestOnNodesOfOursTheDriversOwnVolumesAreServed(t *testing.T) {
	all, own := &outlines{out: oneVolume()}, &outlines{}
	w, err := New(Options{Resolver: all, NodeResolver: own, Guest: guest, Driver: sidecar.DefaultDriver})
	if err != nil {
		t.Fatal(err)
	}
	if response, _ := askAt(t, w, NodePath, podJSON); !response.Allowed || response.Patch != nil || all.asked != 0 || own.asked != 1 {
		t.Errorf("got %+v after asking %d and %d times", response, all.asked, own.asked)
	}
	own.out = oneVolume()
	if response, _ := askAt(t, w, NodePath, podJSON); response.Patch == nil {
		t.Error("a volume of the driver's own was not injected")
	}
}

func TestASecondCallChangesNothing(t *testing.T) {
	o := &outlines{out: oneVolume()}
	w, _ := newWebhook(t, o, true)
	first, _ := ask(t, w, podJSON)
	once := apply(t, podJSON, first)
	if !strings.Contains(once, `"done.sidecar.juicefs.com/inject":"true"`) {
		t.Error("the other driver's webhook would inject once more")
	}
	second, _ := ask(t, w, once)
	if !second.Allowed || second.Patch != nil {
		t.Errorf("got patch %s", second.Patch)
	}
	if o.asked != 1 {
		t.Errorf("volumes were resolved %d times", o.asked)
	}
}

func TestASecondCallTakesInWhatOthersAdded(t *testing.T) {
	w, _ := newWebhook(t, &outlines{out: oneVolume()}, false)
	first, _ := ask(t, w, podJSON)
	pod := new(corev1.Pod)
	if err := json.Unmarshal([]byte(apply(t, podJSON, first)), pod); err != nil {
		t.Fatal(err)
	}
	pod.Spec.Containers = append(pod.Spec.Containers, corev1.Container{Name: "late", VolumeMounts: []corev1.VolumeMount{{Name: "data", MountPath: "/d"}}})
	raw, err := json.Marshal(pod)
	if err != nil {
		t.Fatal(err)
	}
	second, _ := ask(t, w, string(raw))
	got := new(corev1.Pod)
	if err := json.Unmarshal([]byte(apply(t, string(raw), second)), got); err != nil {
		t.Fatal(err)
	}
	if m := got.Spec.Containers[1].VolumeMounts[0]; m.Name != "sidemount-mounts" || m.SubPath != "data" {
		t.Errorf("got %+v", m)
	}
}

// leftAlone are pods that the webhook does not look into.
func leftAlone() map[string]string {
	spec := func(s string) string { return strings.Replace(podJSON, `"futurePod":1`, s, 1) }
	meta := func(s string) string { return strings.Replace(podJSON, `"name":"web"`, s, 1) }
	return map[string]string{
		"refuses":          meta(`"labels":{"sidemount.io/inject":"false"}`),
		"refuses JuiceFS":  meta(`"labels":{"disable.sidecar.juicefs.com/inject":"true"}`),
		"done by JuiceFS":  meta(`"labels":{"done.sidecar.juicefs.com/inject":"true"}`),
		"static":           strings.Replace(podJSON, `"a/b~c"`, `"kubernetes.io/config.mirror"`, 1),
		"Windows":          spec(`"os":{"name":"windows"}`),
		"selects Windows":  spec(`"nodeSelector":{"kubernetes.io/os":"windows"}`),
		"selects our node": spec(`"nodeSelector":{"sidemount.io/serverless":"true"}`),
		"needs our node": spec(`"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
			{"matchExpressions":[{"key":"sidemount.io/serverless","operator":"In","values":["true"]}]}]}}}`),
	}
}

func TestPodsLeftAlone(t *testing.T) {
	for name, pod := range leftAlone() {
		t.Run(name, func(t *testing.T) {
			o := &outlines{out: oneVolume()}
			w, seen := newWebhook(t, o, true)
			response, _ := ask(t, w, pod)
			if !response.Allowed || response.Patch != nil || o.asked != 0 || (*seen)[0] != Skipped {
				t.Errorf("got %+v, %v", response, *seen)
			}
		})
	}
}

// The policy of a namespace that requires injection lets through what is injected, and what the webhook says needs none.
func TestPodsLeftAloneAreMarkedWhereInjectionIsRequired(t *testing.T) {
	pods := leftAlone()
	pods["nothing of ours"] = podJSON
	pods["no annotations yet"] = strings.Replace(podJSON, `,"annotations":{"a/b~c":"d"}`, "", 1)
	for name, pod := range pods {
		t.Run(name, func(t *testing.T) {
			w, seen := newWebhook(t, &outlines{}, true)
			response, _ := askAt(t, w, RequiredPath, pod)
			if !response.Allowed || (*seen)[0] != Skipped {
				t.Fatalf("got %+v, %v", response, *seen)
			}
			marked := apply(t, pod, response)
			got, want := new(corev1.Pod), new(corev1.Pod)
			if err := errors.Join(json.Unmarshal([]byte(marked), got), json.Unmarshal([]byte(pod), want)); err != nil {
				t.Fatal(err)
			}
			metav1.SetMetaDataAnnotation(&want.ObjectMeta, ReviewedAnnotation, "true")
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("the pod is another one: %s", diff)
			}
			if again, _ := askAt(t, w, RequiredPath, marked); again.Patch != nil {
				t.Errorf("the second call patches with %s", again.Patch)
			}
		})
	}
}

func TestAPodThatAsksAndMustBeLeftAloneIsMarked(t *testing.T) {
	asking := strings.Replace(leftAlone()["needs our node"], `"name":"web"`, `"labels":{"sidemount.io/inject":"true"}`, 1)
	w, _ := newWebhook(t, &outlines{out: oneVolume()}, false)
	response, _ := ask(t, w, asking)
	if !strings.Contains(apply(t, asking, response), `"sidemount.io/reviewed":"true"`) {
		t.Errorf("got %+v", response)
	}
}

// The mark says that there is nothing to inject, so who sets it himself does not get rid of injection.
func TestWhereInjectionIsRequiredPodsAreInjected(t *testing.T) {
	pod := strings.Replace(podJSON, `"a/b~c":"d"`, `"sidemount.io/reviewed":"true"`, 1)
	w, seen := newWebhook(t, &outlines{out: oneVolume()}, false)
	response, _ := askAt(t, w, RequiredPath, pod)
	if response.Patch == nil || (*seen)[0] != Injected {
		t.Fatalf("got %+v, %v", response, *seen)
	}
	w, _ = newWebhook(t, &outlines{out: sidecar.Outlined{Unknown: []string{"data"}}}, false)
	if response, _ := askAt(t, w, RequiredPath, podJSON); response.Allowed || !strings.Contains(response.Result.Message, "create the claims before the pod") {
		t.Errorf("a claim that nobody knows: got %+v", response)
	}
}

func TestAPodThatMayGoElsewhereIsInjected(t *testing.T) {
	pod := strings.Replace(podJSON, `"futurePod":1`, `"affinity":{"nodeAffinity":{"requiredDuringSchedulingIgnoredDuringExecution":{"nodeSelectorTerms":[
		{"matchExpressions":[{"key":"sidemount.io/serverless","operator":"In","values":["true"]}]},{"matchExpressions":[{"key":"zone","operator":"In","values":["a"]}]}]}}}`, 1)
	w, _ := newWebhook(t, &outlines{out: oneVolume()}, false)
	if response, _ := ask(t, w, pod); response.Patch == nil {
		t.Error("not injected")
	}
}

func TestDenialsAndFailures(t *testing.T) {
	wrong := &sidecar.Error{Reason: sidecar.ReasonAttributeInvalid, Object: "PersistentVolume pv", Message: "is wrong", Cure: "mend it"}
	away := &sidecar.Error{Reason: sidecar.ReasonUnavailable, Object: "PersistentVolume pv", Message: "cannot be read", Transient: true}
	unknown := sidecar.Outlined{Unknown: []string{"data"}}
	asking := strings.Replace(podJSON, `"name":"web"`, `"labels":{"sidemount.io/inject":"true"}`, 1)
	for _, tc := range []struct {
		name, pod string
		out       outlines
		code      int
		allowed   bool
		says      string
	}{
		{"wrong volume", podJSON, outlines{err: wrong}, 200, false, "mend it"},
		{"API server away", podJSON, outlines{err: away}, 500, false, ""},
		{"other failure", podJSON, outlines{err: errors.New("x")}, 500, false, ""},
		{"no claim yet", podJSON, outlines{out: unknown}, 200, true, "create the pod again"},
		{"no claim yet, but asked for", asking, outlines{out: unknown}, 200, false, "create the claims before the pod"},
		{"name taken", strings.Replace(podJSON, `"name":"app"`, `"name":"sidemount"`, 1), outlines{out: oneVolume()}, 200, false, "rename"},
		{"too large", strings.Replace(podJSON, `"d"`, fmt.Sprintf("%q", strings.Repeat("x", maxPod)), 1), outlines{out: oneVolume()}, 200, false, "bytes"},
		{"nothing of ours", podJSON, outlines{}, 200, true, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w, _ := newWebhook(t, &tc.out, false)
			response, code := ask(t, w, tc.pod)
			if code != tc.code {
				t.Fatalf("got %d", code)
			}
			if response == nil {
				return
			}
			text := strings.Join(response.Warnings, " ")
			if response.Result != nil {
				text += response.Result.Message
			}
			if response.Allowed != tc.allowed || response.Patch != nil || !strings.Contains(text, tc.says) {
				t.Errorf("got %+v", response)
			}
		})
	}
}

func TestVersions(t *testing.T) {
	for minor, want := range map[string]bool{"28": false, "28+": false, "29": true, "29+": true, "36": true} {
		if err := CheckVersion(&version.Info{Major: "1", Minor: minor}); (err == nil) != want || err != nil && !errors.Is(err, ErrVersion) {
			t.Errorf("1.%s: %v", minor, err)
		}
	}
	if CheckVersion(&version.Info{Major: "1", Minor: "x"}) == nil {
		t.Error("a version that is none was accepted")
	}
}

func FuzzReview(f *testing.F) {
	f.Add(podJSON)
	f.Add(`{}`)
	f.Add(`{"metadata":null,"spec":{"containers":[null],"initContainers":null,"volumes":[{"name":"x"}]}}`)
	f.Add(`{"spec":{"containers":[{}],"initContainers":[{"name":"sidemount","command":["/usr/local/bin/sidemount-agent","supervise","-volume"]}]}}`)
	f.Fuzz(func(t *testing.T, pod string) {
		if !json.Valid([]byte(pod)) {
			return
		}
		w, _ := newWebhook(t, &outlines{out: oneVolume()}, true)
		response, code := ask(t, w, pod)
		if code != http.StatusOK || response.Patch == nil {
			return
		}
		once := apply(t, pod, response)
		if again, _ := ask(t, w, once); !again.Allowed || again.Patch != nil {
			t.Errorf("the second call patches %s with %s", once, again.Patch)
		}
	})
}
