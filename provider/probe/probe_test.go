package probe

import (
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	healthserver "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

func ctxOf(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

// address splits the address of a test server.
func address(t *testing.T, raw string) (host string, port int) {
	t.Helper()
	if u, err := url.Parse(raw); err == nil && u.Host != "" {
		raw = u.Host
	}
	host, p, err := net.SplitHostPort(raw)
	if err != nil {
		t.Fatal(err)
	}
	port, err = strconv.Atoi(p)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func TestExec(t *testing.T) {
	for _, tt := range []struct {
		name     string
		output   string
		exitCode int32
		timedOut bool
		err      error
		want     Result
		text     string
		fails    bool
	}{
		{name: "success", output: "fine", want: Success, text: "fine"},
		{name: "failure", output: "broken", exitCode: 2, want: Failure, text: "broken"},
		{name: "too slow", timedOut: true, want: Failure, text: `command timed out: "check it" timed out after 1s`},
		{name: "not run", err: errors.New("no such container"), want: Failure, fails: true},
		{name: "long output", output: strings.Repeat("x", 20<<10), want: Success, text: strings.Repeat("x", maxOutput)},
	} {
		p := New(func(_ context.Context, id string, command []string, timeout time.Duration) ([]byte, int32, bool, error) {
			if id != "c" || timeout != time.Second {
				t.Errorf("%s: asked container %q with timeout %v", tt.name, id, timeout)
			}
			return []byte(tt.output), tt.exitCode, tt.timedOut, tt.err
		})
		spec := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{Exec: &corev1.ExecAction{Command: []string{"check", "it"}}}}
		got, text, err := p.Probe(ctxOf(t), spec, Target{ID: "c"})
		if got != tt.want || text != tt.text || (err != nil) != tt.fails {
			t.Errorf("%s: got %s %.80q %v, want %s %.80q", tt.name, got, text, err, tt.want, tt.text)
		}
	}
}

func TestHTTP(t *testing.T) {
	var seen *http.Request
	mux := http.NewServeMux()
	mux.HandleFunc("/ok", func(w http.ResponseWriter, r *http.Request) { seen = r; w.Write([]byte("fine")) })
	mux.HandleFunc("/bad", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/here", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/ok", http.StatusFound) })
	mux.HandleFunc("/loop", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/loop", http.StatusFound) })
	mux.HandleFunc("/there", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://elsewhere.example/", http.StatusFound)
	})
	stuck := make(chan struct{})
	mux.HandleFunc("/slow", func(http.ResponseWriter, *http.Request) { <-stuck })
	server := httptest.NewServer(mux)
	defer server.Close()
	defer close(stuck)
	tls := httptest.NewTLSServer(mux)
	defer tls.Close()

	p := New(nil)
	for _, tt := range []struct {
		path string
		tls  bool
		want Result
		text string
	}{
		{"ok", false, Success, "fine"},
		{"/ok?q=1", false, Success, "fine"},
		{"/ok", true, Success, "fine"},
		{"/bad", false, Failure, "HTTP probe failed with statuscode: 503"},
		{"/here", false, Success, "fine"},
		{"/there", false, Warning, "Probe terminated redirects"},
		{"/loop", false, Failure, "stopped after 10 redirects"},
		{"/slow", false, Failure, "context deadline exceeded"},
	} {
		action := &corev1.HTTPGetAction{Path: tt.path, Port: intstr.FromString("web")}
		raw := server.URL
		if tt.tls {
			raw, action.Scheme = tls.URL, corev1.URISchemeHTTPS
		}
		host, port := address(t, raw)
		target := Target{Host: host, Container: &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: int32(port)}}}}
		got, text, err := p.Probe(ctxOf(t), &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: action}}, target)
		if got != tt.want || !strings.Contains(text, tt.text) || err != nil {
			t.Errorf("%s: got %s %q %v, want %s %q", tt.path, got, text, err, tt.want, tt.text)
		}
	}
	if got := seen.Header.Get("User-Agent"); !strings.HasPrefix(got, "kube-probe/") {
		t.Errorf("User-Agent %q", got)
	}
}

func TestHTTPHeaders(t *testing.T) {
	action := &corev1.HTTPGetAction{Path: "/", Port: intstr.FromInt32(80), HTTPHeaders: []corev1.HTTPHeader{
		{Name: "Host", Value: "name.example"}, {Name: "X-A", Value: "1"}, {Name: "X-A", Value: "2"}, {Name: "Accept", Value: ""},
		{Name: "User-Agent", Value: "me"}}}
	r, err := NewRequest(ctxOf(t), action, Target{Host: "10.0.0.1", Container: &corev1.Container{}}, "agent")
	if err != nil {
		t.Fatal(err)
	}
	if r.Host != "name.example" || len(r.Header["X-A"]) != 2 || r.Header.Get("User-Agent") != "me" {
		t.Errorf("request for %s with %v", r.Host, r.Header)
	}
	if _, ok := r.Header["Accept"]; ok {
		t.Error("an empty Accept was sent")
	}
}

func TestTCP(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	host, port := address(t, l.Addr().String())
	spec := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromInt32(int32(port))}}}
	target := Target{Host: host, Container: &corev1.Container{}}
	p := New(nil)
	if got, text, err := p.Probe(ctxOf(t), spec, target); got != Success || err != nil {
		t.Errorf("open port: got %s %q %v", got, text, err)
	}
	l.Close()
	if got, text, err := p.Probe(ctxOf(t), spec, target); got != Failure || err != nil || !strings.Contains(text, "refused") {
		t.Errorf("closed port: got %s %q %v", got, text, err)
	}
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	status := healthserver.NewServer()
	status.SetServingStatus("sick", healthpb.HealthCheckResponse_NOT_SERVING)
	server := grpc.NewServer()
	healthpb.RegisterHealthServer(server, status)
	served := make(chan error, 1)
	go func() { served <- server.Serve(l) }()
	defer func() { server.Stop(); <-served }()
	host, port := address(t, l.Addr().String())
	p := New(nil)
	ask := func(service *string) (Result, string) {
		spec := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{GRPC: &corev1.GRPCAction{Port: int32(port), Service: service}}}
		got, text, err := p.Probe(ctxOf(t), spec, Target{Host: host})
		if err != nil {
			t.Fatal(err)
		}
		return got, text
	}
	sick, unknown := "sick", "unknown"
	if got, text := ask(nil); got != Success {
		t.Errorf("serving: got %s %q", got, text)
	}
	if got, text := ask(&sick); got != Failure || !strings.Contains(text, "NOT_SERVING") {
		t.Errorf("not serving: got %s %q", got, text)
	}
	if got, text := ask(&unknown); got != Failure {
		t.Errorf("unknown service: got %s %q", got, text)
	}
	server.Stop()
	if got, text := ask(nil); got != Failure || !strings.Contains(text, "timeout") {
		t.Errorf("stopped: got %s %q", got, text)
	}
}

func TestPort(t *testing.T) {
	c := &corev1.Container{Ports: []corev1.ContainerPort{{Name: "web", ContainerPort: 8080}}}
	for _, tt := range []struct {
		port intstr.IntOrString
		want string
	}{
		{intstr.FromInt32(80), "80"}, {intstr.FromString("web"), "8080"}, {intstr.FromString("81"), "81"},
		{intstr.FromString("other"), ""}, {intstr.FromInt32(0), ""}, {intstr.FromInt32(70000), ""},
	} {
		got, err := Port(tt.port, c)
		if got != tt.want || (err != nil) != (tt.want == "") || err != nil && !errors.Is(err, ErrHandler) {
			t.Errorf("port %s: got %q, %v, want %q", tt.port.String(), got, err, tt.want)
		}
	}
}

func TestNoHandler(t *testing.T) {
	if _, _, err := New(nil).Probe(ctxOf(t), &corev1.Probe{}, Target{}); !errors.Is(err, ErrHandler) {
		t.Errorf("got %v, want %v", err, ErrHandler)
	}
}

func TestThresholds(t *testing.T) {
	spec := &corev1.Probe{FailureThreshold: 2, SuccessThreshold: 3}
	var c counter
	var got []string
	for _, r := range []Result{Failure, Failure, Failure, Success, Success, Failure, Success, Success, Success} {
		if c.count(r, spec) && c.verdict != c.last {
			c.verdict = c.last
			got = append(got, string(r))
		} else {
			got = append(got, "-")
		}
	}
	want := "- failure - - - - - - success"
	if strings.Join(got, " ") != want {
		t.Errorf("verdicts %v, want %s", got, want)
	}
}

func TestWorker(t *testing.T) {
	for _, tt := range []struct {
		name    string
		results []bool
		worker  Worker
		want    string
	}{
		{"a startup probe ends with its success", []bool{false, true}, Worker{Last: true, Spec: &corev1.Probe{FailureThreshold: 5}}, "success"},
		{"and with its failure", []bool{false, false, false}, Worker{Last: true, Spec: &corev1.Probe{FailureThreshold: 2}}, "failure"},
		{"a liveness probe ends with its failure", []bool{true, false}, Worker{LastFailure: true, Spec: &corev1.Probe{FailureThreshold: 1}}, "success failure"},
	} {
		ctx := ctxOf(t)
		n := 0
		var verdicts []string
		w := tt.worker
		w.Spec.Exec = &corev1.ExecAction{Command: []string{"x"}}
		w.Prober = New(func(context.Context, string, []string, time.Duration) ([]byte, int32, bool, error) {
			ok := tt.results[min(n, len(tt.results)-1)]
			n++
			if ok {
				return nil, 0, false, nil
			}
			return nil, 1, false, nil
		})
		w.Verdict = func(r Result) { verdicts = append(verdicts, string(r)) }
		w.Run(ctx)
		if ctx.Err() != nil {
			t.Errorf("%s: the worker did not end", tt.name)
		}
		if got := strings.Join(verdicts, " "); got != tt.want {
			t.Errorf("%s: verdicts %q, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWorkerWaitsForTheInitialDelayAndEndsWithItsContext(t *testing.T) {
	asked := make(chan struct{}, 10)
	w := Worker{
		Spec: &corev1.Probe{InitialDelaySeconds: 3600}, Since: time.Now(), Verdict: func(Result) {},
		Prober: New(func(context.Context, string, []string, time.Duration) ([]byte, int32, bool, error) {
			asked <- struct{}{}
			return nil, 0, false, nil
		}),
	}
	w.Spec.Exec = &corev1.ExecAction{Command: []string{"x"}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { w.Run(ctx); close(done) }()
	cancel()
	select {
	case <-done:
	case <-time.After(10 * time.Second):
		t.Fatal("the worker did not end")
	}
	if len(asked) > 0 {
		t.Error("probed before its initial delay")
	}
}
