package node

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	statsv1alpha1 "k8s.io/kubelet/pkg/apis/stats/v1alpha1"
)

// passes is an authenticator and authorizer in one: a bearer token names its user, and the user's rights are subresources.
type passes map[string][]string

func (p passes) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return nil, false, nil
	case name == "broken":
		return nil, false, errors.New("token review does not answer")
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, true, nil
}

func (p passes) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetUser().GetName() == "unreviewed" {
		return authorizer.DecisionNoOpinion, "", errors.New("access review does not answer")
	}
	for _, right := range p[a.GetUser().GetName()] {
		if right == a.GetVerb()+" "+a.GetSubresource() {
			return authorizer.DecisionAllow, "", nil
		}
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// nodeOfPods serves everything that the server asks for, from memory.
type nodeOfPods struct {
	pods []*corev1.Pod
	// streams is the address of the runtime's streaming server.
	streams *url.URL

	mu      sync.Mutex
	request string
}

func (n *nodeOfPods) Pods() []*corev1.Pod { return n.pods }

func (n *nodeOfPods) PodByName(namespace, name string) (*corev1.Pod, bool) {
	for _, p := range n.pods {
		if p.Namespace == namespace && p.Name == name {
			return p, true
		}
	}
	return nil, false
}

func (n *nodeOfPods) note(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.request = fmt.Sprintf(format, args...)
}

func (n *nodeOfPods) noted() string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.request
}

func (n *nodeOfPods) ContainerLogs(ctx context.Context, pod *corev1.Pod, container, id string, o *corev1.PodLogOptions, stdout, stderr io.Writer) error {
	n.note("logs of %s/%s %s follow=%v", pod.Name, container, id, o.Follow)
	if stdout != nil {
		io.WriteString(stdout, "out\n")
	}
	if stderr != nil {
		io.WriteString(stderr, "err\n")
	}
	if o.Follow {
		<-ctx.Done()
		n.note("follower left")
		return ctx.Err()
	}
	if o.Timestamps {
		return errors.New("disk error")
	}
	return nil
}

func (n *nodeOfPods) Exec(_ context.Context, pod *corev1.Pod, container string, command []string, o StreamOptions) (*url.URL, error) {
	n.note("exec %s/%s %q %+v", pod.Name, container, command, o)
	switch command[0] {
	case "missing":
		return nil, fmt.Errorf("container is gone: %w", ErrNotFound)
	case "busy":
		return nil, ErrBusy
	}
	return n.streams, nil
}

func (n *nodeOfPods) Attach(_ context.Context, pod *corev1.Pod, container string, o StreamOptions) (*url.URL, error) {
	n.note("attach %s/%s %+v", pod.Name, container, o)
	return n.streams, nil
}

func (n *nodeOfPods) PortForward(_ context.Context, pod *corev1.Pod, ports []int32) (*url.URL, error) {
	n.note("forward %s %v", pod.Name, ports)
	return n.streams, nil
}

func (n *nodeOfPods) Run(_ context.Context, pod *corev1.Pod, container string, command []string) ([]byte, error) {
	return fmt.Appendf(nil, "%s/%s ran %q", pod.Name, container, command), nil
}

func (n *nodeOfPods) Summary(context.Context) (*statsv1alpha1.Summary, error) {
	used, memory := uint64(3e9), uint64(1<<20)
	at := metav1.NewTime(time.UnixMilli(1000))
	cpu := &statsv1alpha1.CPUStats{Time: at, UsageCoreNanoSeconds: &used}
	mem := &statsv1alpha1.MemoryStats{Time: at, WorkingSetBytes: &memory}
	return &statsv1alpha1.Summary{
		Node: statsv1alpha1.NodeStats{NodeName: "virtual-1", CPU: cpu, Memory: mem, Fs: &statsv1alpha1.FsStats{UsedBytes: &used}},
		Pods: []statsv1alpha1.PodStats{{
			PodRef: statsv1alpha1.PodReference{Name: "web", Namespace: "shop"}, CPU: cpu, Memory: mem,
			EphemeralStorage: &statsv1alpha1.FsStats{UsedBytes: &used},
			Containers:       []statsv1alpha1.ContainerStats{{Name: "app", StartTime: at, CPU: cpu, Memory: mem}},
		}},
	}, nil
}

func somePod() *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", UID: "uid-1"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "app"}, {Name: "slow"}}},
		Status: corev1.PodStatus{Phase: corev1.PodRunning, ContainerStatuses: []corev1.ContainerStatus{
			{Name: "app", ContainerID: "containerd://c-1", State: corev1.ContainerState{Running: &corev1.ContainerStateRunning{}}},
			{Name: "slow", State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: "ContainerCreating"}}},
		}},
	}
}

// echoServer is a streaming server: after the upgrade it greets and then returns each line. /refuse does not upgrade.
func echoServer() *httptest.Server {
	return httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "" {
			http.Error(w, "credentials were passed on", http.StatusTeapot)
			return
		}
		if r.URL.Path != "/stream" || r.URL.RawQuery != "" {
			http.Error(w, "no such stream", http.StatusNotFound)
			return
		}
		conn, buffered, err := w.(http.Hijacker).Hijack()
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: SPDY/3.1\r\nX-Stream-Protocol-Version: v4\r\n\r\nwelcome\n")
		lines := bufio.NewScanner(buffered)
		for lines.Scan() {
			if lines.Text() == "bye" {
				return
			}
			fmt.Fprintf(conn, "echo %s\n", lines.Text())
		}
	}))
}

var _ = Describe("The HTTPS API", func() {
	var (
		data    *nodeOfPods
		backend *httptest.Server
		address string
		client  *http.Client
		stop    func()
	)

	start := func(change func(*ServerOptions)) {
		registry := prometheus.NewRegistry()
		registry.MustRegister(prometheus.NewGaugeFunc(prometheus.GaugeOpts{Name: "answer"}, func() float64 { return 42 }))
		own, err := selfSign(servingRequest("virtual-1", []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "127.0.0.1"}}), time.Now())
		Expect(err).NotTo(HaveOccurred())
		all := passes{
			"root":   {"get pods", "get proxy", "create proxy", "get stats", "get metrics", "get healthz", "get configz", "get log"},
			"scrape": {"get metrics", "get stats"},
			"viewer": {"get pods"},
			"old":    {"get proxy"},
		}
		options := ServerOptions{
			NodeName: "virtual-1", Certificates: fixed{&own}, Auth: Auth{Authenticator: all, Authorizer: all},
			Pods: data, Logs: data, Streams: data, Runner: data, Stats: data, Metrics: registry,
			Config: map[string]int{"maxPods": 110}, ShutdownTimeout: 100 * time.Millisecond,
			Checks: []HealthCheck{{Name: "fine", Check: func(context.Context) error { return nil }}},
		}
		change(&options)
		server, err := NewServer(options)
		Expect(err).NotTo(HaveOccurred())
		listener, err := net.Listen("tcp", "127.0.0.1:0")
		Expect(err).NotTo(HaveOccurred())
		address = listener.Addr().String()
		ctx, cancel := context.WithCancel(context.Background())
		done := make(chan error, 1)
		go func() { done <- server.Serve(ctx, listener) }()
		stop = func() {
			cancel()
			Eventually(done, "10s").Should(Receive(BeNil()))
		}
		DeferCleanup(cancel)
		transport := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}
		client = &http.Client{Transport: transport, Timeout: 20 * time.Second}
		DeferCleanup(transport.CloseIdleConnections)
	}

	BeforeEach(func() {
		backend = echoServer()
		DeferCleanup(backend.Close)
		u, err := url.Parse(backend.URL + "/stream")
		Expect(err).NotTo(HaveOccurred())
		data = &nodeOfPods{pods: []*corev1.Pod{somePod()}, streams: u}
	})

	ask := func(method, who, path string) (int, string) {
		GinkgoHelper()
		r, err := http.NewRequest(method, "https://"+address+path, nil)
		Expect(err).NotTo(HaveOccurred())
		if who != "" {
			r.Header.Set("Authorization", "Bearer "+who)
		}
		resp, err := client.Do(r)
		Expect(err).NotTo(HaveOccurred())
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		Expect(err).NotTo(HaveOccurred())
		return resp.StatusCode, string(body)
	}

	Context("with several callers", func() {
		BeforeEach(func() { start(func(*ServerOptions) {}) })
		AfterEach(func() { stop() })

		DescribeTable("lets through who may, and nobody else",
			func(method, who, path string, status int, text string) {
				gotStatus, got := ask(method, who, path)
				Expect(gotStatus).To(Equal(status), got)
				Expect(got).To(ContainSubstring(text))
			},
			Entry("nobody", "GET", "", "/healthz", 401, "Unauthorized"),
			Entry("a broken token", "GET", "broken", "/healthz", 401, "Unauthorized"),
			Entry("a stranger", "GET", "stranger", "/pods", 403, "Forbidden (user=stranger, verb=get, resource=nodes, subresource(s)=[pods proxy])"),
			Entry("without a review", "GET", "unreviewed", "/pods", 500, "Authorization error (user=unreviewed, verb=get, resource=nodes, subresource=pods)"),
			Entry("a viewer of pods", "GET", "viewer", "/pods", 200, `"kind":"PodList"`),
			Entry("a viewer at logs", "GET", "viewer", "/containerLogs/shop/web/app", 403, "Forbidden"),
			Entry("the older permission", "GET", "old", "/pods", 200, "web"),
			Entry("an encoded path", "GET", "viewer", "/pods%2f..%2fcontainerLogs/shop/web/app", 404, ""),
			Entry("a path that climbs", "GET", "viewer", "/pods/../containerLogs/shop/web/app", 403, ""),
			Entry("a scraper", "GET", "scrape", "/metrics", 200, "answer 42"),
			Entry("a scraper at exec", "POST", "scrape", "/exec/shop/web/app?command=ls&output=1", 403, ""),
			Entry("probe metrics that are not there", "GET", "scrape", "/metrics/probes", 501, ""),
			Entry("no such path", "GET", "root", "/nothing", 404, ""),
			Entry("the node's own logs", "GET", "root", "/logs/syslog", 405, "logs endpoint is disabled."),
			Entry("profiling", "GET", "root", "/debug/pprof/", 405, "disabled"),
			Entry("a wrong method", "DELETE", "root", "/pods", 403, ""),
		)

		It("tells how it is", func() {
			status, body := ask("GET", "root", "/healthz")
			Expect(status).To(Equal(200))
			Expect(body).To(Equal("ok"))
			_, body = ask("GET", "root", "/healthz?verbose")
			Expect(body).To(Equal("[+]ping ok\n[+]fine ok\nhealthz check passed\n"))
			status, _ = ask("GET", "root", "/healthz/nothing")
			Expect(status).To(Equal(404))
		})

		It("shows its pods and its configuration", func() {
			var list corev1.PodList
			_, body := ask("GET", "root", "/runningpods/")
			Expect(json.Unmarshal([]byte(body), &list)).To(Succeed())
			Expect(list.Items).To(HaveLen(1))
			_, body = ask("GET", "root", "/configz")
			Expect(body).To(MatchJSON(`{"kubeletconfig":{"maxPods":110}}`))
		})

		It("counts what the node and its containers use", func() {
			_, body := ask("GET", "scrape", "/metrics/resource")
			Expect(body).To(ContainSubstring(`container_cpu_usage_seconds_total{container="app",pod="web",namespace="shop"} 3 1000`))
			Expect(body).To(ContainSubstring("node_memory_working_set_bytes 1.048576e+06 1000"))
			Expect(body).To(ContainSubstring("resource_scrape_error 0"))
			var summary statsv1alpha1.Summary
			_, body = ask("GET", "scrape", "/stats/summary?only_cpu_and_memory=true")
			Expect(json.Unmarshal([]byte(body), &summary)).To(Succeed())
			Expect(summary.Node.Fs).To(BeNil())
			Expect(summary.Pods[0].EphemeralStorage).To(BeNil())
			Expect(*summary.Pods[0].CPU.UsageCoreNanoSeconds).To(BeEquivalentTo(3e9))
		})

		DescribeTable("gives logs as a kubelet does",
			func(path string, status int, text string) {
				gotStatus, got := ask("GET", "root", "/containerLogs/"+path)
				Expect(gotStatus).To(Equal(status), got)
				Expect(got).To(Equal(text))
			},
			Entry("both streams", "shop/web/app", 200, "out\nerr\n"),
			Entry("one stream", "shop/web/app?stream=Stderr", 200, "err\n"),
			Entry("a read error after the first bytes", "shop/web/app?timestamps=true", 200, "out\nerr\n"),
			Entry("a container that waits", "shop/web/slow", 400, `container "slow" in pod "web" is waiting to start: ContainerCreating`),
			Entry("no previous instance", "shop/web/app?previous=true", 400, `previous terminated container "app" in pod "web" not found`),
			Entry("no such pod", "shop/nothing/app", 404, `pod "nothing" does not exist`),
			Entry("no such container", "shop/web/sidemount-data", 404, `container "sidemount-data" not found in pod "web"`),
			Entry("a broken query", "shop/web/app?tailLines=many", 400, `{"message": "Unable to decode query."}`),
			Entry("a senseless query", "shop/web/app?sinceSeconds=0", 422, `{"message": "Invalid request."}`),
		)

		It("follows a log until the caller leaves", func() {
			ctx, cancel := context.WithCancel(context.Background())
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+address+"/containerLogs/shop/web/app?follow=true", nil)
			Expect(err).NotTo(HaveOccurred())
			r.Header.Set("Authorization", "Bearer root")
			resp, err := client.Do(r)
			Expect(err).NotTo(HaveOccurred())
			defer resp.Body.Close()
			line, err := bufio.NewReader(resp.Body).ReadString('\n')
			Expect(err).NotTo(HaveOccurred())
			Expect(line).To(Equal("out\n"))
			cancel()
			Eventually(data.noted, "10s").Should(Equal("follower left"))
		})

		It("runs a command", func() {
			status, body := ask("POST", "root", "/run/shop/web/uid-1/app?cmd=ls+-l")
			Expect(status).To(Equal(200))
			Expect(body).To(Equal(`web/app ran ["ls" "-l"]`))
		})

		DescribeTable("refuses a stream",
			func(path string, status int, text string) {
				gotStatus, got := ask("POST", "root", path)
				Expect(gotStatus).To(Equal(status), got)
				Expect(got).To(ContainSubstring(text))
			},
			Entry("without any stream", "/exec/shop/web/app?command=ls", 400, "you must specify at least 1 of stdin, stdout, stderr"),
			Entry("without an upgrade", "/exec/shop/web/app?command=ls&output=1", 400, "Upgrade request required"),
			Entry("to no pod", "/attach/shop/nothing/app?output=1", 404, "pod does not exist"),
			Entry("to a namesake", "/exec/shop/web/uid-2/app?command=ls&output=1", 404, "pod not found"),
			Entry("to no container", "/exec/shop/web/other/app?command=ls&output=1", 404, "pod not found"),
			Entry("to a sidecar", "/exec/shop/web/sidemount-data?command=ls&output=1", 404, `container "sidemount-data" not found in pod "web"`),
			Entry("that the runtime lost", "/exec/shop/web/app?command=missing&output=1", 404, "container is gone"),
			Entry("beyond the runtime's limit", "/exec/shop/web/app?command=busy&output=1", 429, ""),
			Entry("forwarding to a namesake", "/portForward/shop/web/uid-2", 404, "pod not found"),
		)
	})

	// dial opens a connection of its own and asks for an upgrade on it.
	dial := func(path, upgrade string) (*tls.Conn, *bufio.Reader, *http.Response) {
		GinkgoHelper()
		conn, err := tls.Dial("tcp", address, &tls.Config{InsecureSkipVerify: true})
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(conn.Close)
		Expect(conn.SetDeadline(time.Now().Add(20 * time.Second))).To(Succeed())
		fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer root\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", path, upgrade)
		reader := bufio.NewReader(conn)
		resp, err := http.ReadResponse(reader, nil)
		Expect(err).NotTo(HaveOccurred())
		return conn, reader, resp
	}

	line := func(r *bufio.Reader) string {
		GinkgoHelper()
		text, err := r.ReadString('\n')
		Expect(err).NotTo(HaveOccurred())
		return text
	}

	It("joins a caller with a container until either of them leaves", func() {
		start(func(*ServerOptions) {})
		defer stop()
		conn, reader, resp := dial("/exec/shop/web/uid-1/app?command=sh&command=-c&input=1&output=1&tty=1&error=1", "SPDY/3.1")
		Expect(resp.StatusCode).To(Equal(http.StatusSwitchingProtocols))
		Expect(resp.Header.Get("X-Stream-Protocol-Version")).To(Equal("v4"))
		Expect(data.noted()).To(Equal(`exec web/app ["sh" "-c"] {Stdin:true Stdout:true Stderr:false TTY:true}`))
		Expect(line(reader)).To(Equal("welcome\n"))
		fmt.Fprintln(conn, "one")
		Expect(line(reader)).To(Equal("echo one\n"))
		large := strings.Repeat("x", 60000)
		fmt.Fprintln(conn, large)
		Expect(line(reader)).To(Equal("echo " + large + "\n"))
		fmt.Fprintln(conn, "bye")
		_, err := reader.ReadByte()
		Expect(err).To(MatchError(io.EOF))
	})

	It("forwards ports, which websockets name beforehand", func() {
		start(func(*ServerOptions) {})
		defer stop()
		_, reader, resp := dial("/portForward/shop/web?port=80,443", "websocket")
		Expect(resp.StatusCode).To(Equal(http.StatusSwitchingProtocols))
		Expect(data.noted()).To(Equal("forward web [80 443]"))
		Expect(line(reader)).To(Equal("welcome\n"))
		_, _, resp = dial("/portForward/shop/web?port=99999", "websocket")
		Expect(resp.StatusCode).To(Equal(http.StatusBadRequest))
	})

	It("passes on what the runtime says when it opens no stream", func() {
		start(func(*ServerOptions) { data.streams.Path = "/expired" })
		defer stop()
		_, _, resp := dial("/attach/shop/web/app?output=1", "SPDY/3.1")
		Expect(resp.StatusCode).To(Equal(http.StatusNotFound))
		body, err := io.ReadAll(resp.Body)
		Expect(err).NotTo(HaveOccurred())
		Expect(string(body)).To(ContainSubstring("no such stream"))
	})

	It("says that the runtime's streaming server is gone", func() {
		start(func(*ServerOptions) { backend.Close() })
		defer stop()
		_, _, resp := dial("/attach/shop/web/app?output=1", "SPDY/3.1")
		Expect(resp.StatusCode).To(Equal(http.StatusInternalServerError))
	})

	It("ends a stream that is silent for too long", func() {
		start(func(o *ServerOptions) { o.StreamTimeout = 200 * time.Millisecond })
		defer stop()
		_, reader, resp := dial("/attach/shop/web/app?output=1", "SPDY/3.1")
		Expect(resp.StatusCode).To(Equal(http.StatusSwitchingProtocols))
		Expect(line(reader)).To(Equal("welcome\n"))
		_, err := reader.ReadByte()
		Expect(err).To(MatchError(io.EOF))
	})

	It("closes streams and followers when it ends", func() {
		start(func(*ServerOptions) {})
		_, reader, resp := dial("/attach/shop/web/app?output=1", "SPDY/3.1")
		Expect(resp.StatusCode).To(Equal(http.StatusSwitchingProtocols))
		Expect(line(reader)).To(Equal("welcome\n"))
		stop()
		_, err := reader.ReadByte()
		Expect(err).To(HaveOccurred())
		_, err = net.DialTimeout("tcp", address, time.Second)
		Expect(err).To(HaveOccurred())
	})

	It("reports a failing check", func() {
		start(func(o *ServerOptions) {
			o.Checks = append(o.Checks, HealthCheck{Name: "sick", Check: func(context.Context) error { return errors.New("fever") }})
		})
		defer stop()
		status, body := ask("GET", "root", "/healthz")
		Expect(status).To(Equal(500))
		Expect(body).To(ContainSubstring("[-]sick failed: fever"))
		status, _ = ask("GET", "root", "/healthz/fine")
		Expect(status).To(Equal(200))
	})

	It("answers that it does not serve what it was given nothing for", func() {
		start(func(o *ServerOptions) { o.Logs, o.Streams, o.Stats, o.Runner, o.Config = nil, nil, nil, nil, nil })
		defer stop()
		for _, path := range []string{"/containerLogs/shop/web/app", "/exec/shop/web/app?output=1", "/stats/summary", "/metrics/resource", "/configz"} {
			status, _ := ask("GET", "root", path)
			Expect(status).To(Equal(http.StatusNotImplemented), path)
		}
	})

	It("does not start without somebody who says who may call", func() {
		_, err := NewServer(ServerOptions{NodeName: "virtual-1", Certificates: fixed{}})
		Expect(err).To(MatchError(ErrInvalid))
	})
})

// fixed is a certificate that never changes.
type fixed struct{ certificate *tls.Certificate }

func (f fixed) GetCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	return f.certificate, nil
}
func (f fixed) Run(ctx context.Context) { <-ctx.Done() }
