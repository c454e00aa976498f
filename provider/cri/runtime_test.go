package cri

import (
	"context"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// server is a CRI endpoint whose state a test sets. Calls that it does not have answer Unimplemented.
type server struct {
	runtimeapi.UnimplementedRuntimeServiceServer
	runtimeapi.UnimplementedImageServiceServer

	mu         sync.Mutex
	sandboxes  []*runtimeapi.PodSandbox
	containers []*runtimeapi.Container
	statuses   map[string]*runtimeapi.ContainerStatus
	pulls      []string
	listed     chan struct{}
	// streams receives, for each subscription, the channel that the test sends events through; closing it breaks the stream.
	streams chan chan *runtimeapi.ContainerEventResponse
	noEvent bool
}

// serve starts s on a socket and returns a Runtime that uses it.
func serve(t *testing.T, s *server) *Runtime {
	t.Helper()
	path := filepath.Join(t.TempDir(), "cri.sock")
	listener, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	g := grpc.NewServer()
	runtimeapi.RegisterRuntimeServiceServer(g, s)
	runtimeapi.RegisterImageServiceServer(g, s)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = g.Serve(listener)
	}()
	t.Cleanup(func() {
		g.Stop()
		<-done
	})
	r, err := New(Options{Endpoint: "unix://" + path, Node: "vnode", Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	})
	return r
}

func matches(labels, selector map[string]string) bool {
	for k, v := range selector {
		if labels[k] != v {
			return false
		}
	}
	return true
}

func (s *server) Version(context.Context, *runtimeapi.VersionRequest) (*runtimeapi.VersionResponse, error) {
	return &runtimeapi.VersionResponse{RuntimeName: "fake", RuntimeVersion: "v1.2.3", RuntimeApiVersion: "v1"}, nil
}

func (s *server) ImageFsInfo(context.Context, *runtimeapi.ImageFsInfoRequest) (*runtimeapi.ImageFsInfoResponse, error) {
	return &runtimeapi.ImageFsInfoResponse{}, nil
}

func (s *server) ListPodSandbox(_ context.Context, req *runtimeapi.ListPodSandboxRequest) (*runtimeapi.ListPodSandboxResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &runtimeapi.ListPodSandboxResponse{}
	for _, sb := range s.sandboxes {
		if matches(sb.Labels, req.Filter.LabelSelector) {
			resp.Items = append(resp.Items, sb)
		}
	}
	return resp, nil
}

func (s *server) ListContainers(_ context.Context, req *runtimeapi.ListContainersRequest) (*runtimeapi.ListContainersResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	resp := &runtimeapi.ListContainersResponse{}
	for _, c := range s.containers {
		if matches(c.Labels, req.Filter.LabelSelector) {
			resp.Containers = append(resp.Containers, c)
		}
	}
	if s.listed != nil {
		select {
		case s.listed <- struct{}{}:
		default:
		}
	}
	return resp, nil
}

func (s *server) PodSandboxStatus(_ context.Context, req *runtimeapi.PodSandboxStatusRequest) (*runtimeapi.PodSandboxStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, sb := range s.sandboxes {
		if sb.Id == req.PodSandboxId {
			return &runtimeapi.PodSandboxStatusResponse{Status: &runtimeapi.PodSandboxStatus{
				Id: sb.Id, State: sb.State,
				Network: &runtimeapi.PodSandboxNetworkStatus{Ip: "10.0.0.7", AdditionalIps: []*runtimeapi.PodIP{{Ip: "fd00::7"}, {Ip: "junk"}}},
			}}, nil
		}
	}
	return nil, status.Error(codes.NotFound, "no such sandbox")
}

func (s *server) ContainerStatus(_ context.Context, req *runtimeapi.ContainerStatusRequest) (*runtimeapi.ContainerStatusResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if st, ok := s.statuses[req.ContainerId]; ok {
		return &runtimeapi.ContainerStatusResponse{Status: st}, nil
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func (s *server) StopContainer(_ context.Context, req *runtimeapi.StopContainerRequest) (*runtimeapi.StopContainerResponse, error) {
	if req.Timeout != 2 {
		return nil, status.Errorf(codes.InvalidArgument, "timeout %d", req.Timeout)
	}
	return nil, status.Error(codes.NotFound, "no such container")
}

func (s *server) ExecSync(ctx context.Context, req *runtimeapi.ExecSyncRequest) (*runtimeapi.ExecSyncResponse, error) {
	if req.Cmd[0] == "slow" {
		return nil, status.Errorf(codes.DeadlineExceeded, "timeout %ds exceeded", req.Timeout)
	}
	return &runtimeapi.ExecSyncResponse{Stdout: []byte("out"), Stderr: []byte("err"), ExitCode: 3}, nil
}

func (s *server) UpdatePodSandboxResources(context.Context, *runtimeapi.UpdatePodSandboxResourcesRequest) (*runtimeapi.UpdatePodSandboxResourcesResponse, error) {
	return nil, errors.New("not implemented yet")
}

func (s *server) PullImage(_ context.Context, req *runtimeapi.PullImageRequest) (*runtimeapi.PullImageResponse, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pulls = append(s.pulls, req.Image.Image+" as "+req.Auth.GetUsername())
	switch req.Auth.GetUsername() {
	case "good":
		return &runtimeapi.PullImageResponse{ImageRef: "sha256:1"}, nil
	case "lost":
		return nil, errors.New("RegistryUnavailable: it is night there")
	case "forged":
		return nil, errors.New("SignatureValidationFailed: who are you")
	}
	return nil, errors.New("pull access denied")
}

func (s *server) GetContainerEvents(_ *runtimeapi.GetEventsRequest, stream grpc.ServerStreamingServer[runtimeapi.ContainerEventResponse]) error {
	if s.noEvent {
		return status.Error(codes.Unimplemented, "no events here")
	}
	events := make(chan *runtimeapi.ContainerEventResponse)
	select {
	case s.streams <- events:
	case <-stream.Context().Done():
		return nil
	}
	for {
		select {
		case e, ok := <-events:
			if !ok {
				return errors.New("broken")
			}
			if err := stream.Send(e); err != nil {
				return err
			}
		case <-stream.Context().Done():
			return nil
		}
	}
}

func labelsOf(uid, node string) map[string]string {
	return map[string]string{labelPodUID: uid, labelPodName: "pod-" + uid, labelPodNamespace: "ns", NodeLabel: node}
}

func sandboxOf(id, uid, node string, attempt uint32, ready bool) *runtimeapi.PodSandbox {
	state := runtimeapi.PodSandboxState_SANDBOX_NOTREADY
	if ready {
		state = runtimeapi.PodSandboxState_SANDBOX_READY
	}
	return &runtimeapi.PodSandbox{
		Id: id, Metadata: &runtimeapi.PodSandboxMetadata{Attempt: attempt}, State: state, CreatedAt: int64(attempt) + 1, Labels: labelsOf(uid, node),
	}
}

func containerOf(id, sandbox, uid, node, name string, attempt uint32, state runtimeapi.ContainerState) *runtimeapi.Container {
	return &runtimeapi.Container{
		Id: id, PodSandboxId: sandbox, Metadata: &runtimeapi.ContainerMetadata{Name: name, Attempt: attempt},
		State: state, CreatedAt: int64(attempt) + 1, Labels: labelsOf(uid, node),
	}
}

func (s *server) setStatus(c *runtimeapi.Container, more func(*runtimeapi.ContainerStatus)) {
	st := &runtimeapi.ContainerStatus{Id: c.Id, Metadata: c.Metadata, State: c.State, CreatedAt: c.CreatedAt, Labels: c.Labels}
	more(st)
	if s.statuses == nil {
		s.statuses = map[string]*runtimeapi.ContainerStatus{}
	}
	s.statuses[c.Id] = st
}

func twoPods() *server {
	exited, running := runtimeapi.ContainerState_CONTAINER_EXITED, runtimeapi.ContainerState_CONTAINER_RUNNING
	s := &server{
		sandboxes: []*runtimeapi.PodSandbox{
			sandboxOf("s-old", "u1", "vnode", 0, false), sandboxOf("s-new", "u1", "vnode", 1, true),
			sandboxOf("s-2", "u2", "vnode", 0, true), sandboxOf("s-foreign", "u3", "kubelet", 0, true),
		},
		containers: []*runtimeapi.Container{
			containerOf("c-0", "s-old", "u1", "vnode", "app", 0, exited), containerOf("c-1", "s-new", "u1", "vnode", "app", 1, running),
			containerOf("c-gone", "s-new", "u1", "vnode", "late", 0, running), containerOf("c-3", "s-foreign", "u3", "kubelet", "app", 0, running),
		},
	}
	s.setStatus(s.containers[0], func(st *runtimeapi.ContainerStatus) {
		st.ExitCode, st.Reason, st.StartedAt, st.FinishedAt = 137, "OOMKilled", 10, 20
		st.Annotations = map[string]string{annotationMessagePath: "dev/log", annotationMessagePolicy: "File", annotationGracePeriod: "9", annotationHash: "h"}
		st.Mounts = []*runtimeapi.Mount{{ContainerPath: "/data", HostPath: "/x"}, {ContainerPath: "/dev/log", HostPath: "/host/log"}}
	})
	s.setStatus(s.containers[1], func(st *runtimeapi.ContainerStatus) {
		st.ExitCode, st.FinishedAt, st.StartedAt = 1, 5, 4
		st.Image, st.ImageRef, st.ImageId = &runtimeapi.ImageSpec{Image: "docker.io/library/a:1"}, "a@sha256:d", "sha256:i"
		st.Resources = &runtimeapi.ContainerResources{Linux: &runtimeapi.LinuxContainerResources{CpuShares: 102, CpuPeriod: 100000, CpuQuota: 50000, MemoryLimitInBytes: 9}}
		st.User = &runtimeapi.ContainerUser{Linux: &runtimeapi.LinuxContainerUser{Uid: 1, Gid: 2, SupplementalGroups: []int64{3}}}
		st.StopSignal = runtimeapi.Signal_SIGUSR1
	})
	return s
}

func TestPods(t *testing.T) {
	r := serve(t, twoPods())
	pods, err := r.Pods(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(pods) != 2 || pods[0].UID != "u1" || pods[1].UID != "u2" || pods[0].Name != "pod-u1" || pods[0].Namespace != "ns" {
		t.Fatalf("Pods = %+v, want those of this node", pods)
	}
	if s, ok := pods[0].Sandbox(); !ok || s.ID != "s-new" || !s.Ready || s.Attempt != 1 {
		t.Errorf("Sandbox = %+v, want the newest", s)
	}
	if c, ok := pods[0].Container("app"); !ok || c.ID != "c-1" || c.State != Running || c.SandboxID != "s-new" || c.Attempt != 1 {
		t.Errorf("Container = %+v, want the newest", c)
	}
}

func TestPod(t *testing.T) {
	r := serve(t, twoPods())
	p, err := r.Pod(t.Context(), "u1")
	if err != nil {
		t.Fatal(err)
	}
	if p.Name != "pod-u1" || len(p.Sandboxes) != 2 || len(p.Containers) != 2 {
		t.Fatalf("Pod = %+v, want two sandboxes and the two containers that have a status", p)
	}
	if got := strings.Join(p.Sandboxes[0].IPs, ","); got != "10.0.0.7,fd00::7" {
		t.Errorf("IPs = %s", got)
	}
	app, old := p.Containers[0], p.Containers[1]
	if app.SandboxID != "s-new" || app.ExitCode != 0 || !app.FinishedAt.IsZero() || app.StartedAt.UnixNano() != 4 {
		t.Errorf("running container %+v has an end", app)
	}
	if app.Image != "docker.io/library/a:1" || app.ImageID != "sha256:i" || app.ImageRef != "a@sha256:d" || app.StopSignal != "SIGUSR1" {
		t.Errorf("running container %+v", app)
	}
	if *app.Resources != (Resources{CPURequestMilli: 100, CPULimitMilli: 500, MemoryLimit: 9}) || app.User.Linux.UID != 1 {
		t.Errorf("resources %+v, user %+v", app.Resources, app.User)
	}
	if old.ExitCode != 137 || old.Reason != "OOMKilled" || old.FinishedAt.UnixNano() != 20 || old.Hash != "h" ||
		old.TerminationMessageFile != "/host/log" || *old.TerminationGracePeriod != 9 {
		t.Errorf("exited container %+v", old)
	}
	unknown, err := r.Pod(t.Context(), "u9")
	if err != nil || unknown.UID != "u9" || len(unknown.Sandboxes)+len(unknown.Containers) != 0 {
		t.Errorf("Pod(u9) = %+v, %v; want an empty one", unknown, err)
	}
}

func TestCalls(t *testing.T) {
	r := serve(t, twoPods())
	ctx := t.Context()
	if err := r.Connect(ctx); err != nil {
		t.Errorf("Connect: %v", err)
	}
	if v, err := r.Version(ctx); err != nil || v.Name != "fake" || v.Version != "1.2.3" {
		t.Errorf("Version = %+v, %v", v, err)
	}
	if err := r.StopContainer(ctx, "nobody", 2500*time.Millisecond); err != nil {
		t.Errorf("StopContainer of one that is gone: %v", err)
	}
	if _, err := r.ContainerStatus(ctx, "nobody"); !errors.Is(err, ErrNotFound) || Message(err) != "no such container" {
		t.Errorf("ContainerStatus: %v", err)
	}
	if err := r.UpdateSandboxResources(ctx, "s-new", nil, nil); err != nil {
		t.Errorf("UpdateSandboxResources where it is not implemented: %v", err)
	}
	if err := r.ReopenLog(ctx, "c-1"); !errors.Is(err, ErrUnsupported) {
		t.Errorf("ReopenLog: %v, want ErrUnsupported", err)
	}
	if d, err := r.CgroupDriver(ctx); err != nil || d != "cgroupfs" {
		t.Errorf("CgroupDriver = %q, %v", d, err)
	}
	res, err := r.ExecSync(ctx, "c-1", []string{"true"}, 0)
	if err != nil || res.ExitCode != 3 || string(res.Stdout) != "out" || string(res.Stderr) != "err" {
		t.Errorf("ExecSync = %+v, %v", res, err)
	}
	if _, err := r.ExecSync(ctx, "c-1", []string{"slow"}, 1500*time.Millisecond); !errors.Is(err, ErrTimeout) {
		t.Errorf("ExecSync of a slow command: %v, want ErrTimeout", err)
	}
}

func TestPullImage(t *testing.T) {
	s := &server{}
	r := serve(t, s)
	id, err := r.PullImage(t.Context(), "busybox", []Auth{{Username: "bad"}, {Username: "good"}, {Username: "unused"}}, nil)
	if err != nil || id != "sha256:1" {
		t.Errorf("PullImage = %q, %v", id, err)
	}
	if got := strings.Join(s.pulls, "; "); got != "busybox:latest as bad; busybox:latest as good" {
		t.Errorf("pulls: %s", got)
	}
	for user, want := range map[string]error{"lost": ErrRegistryUnavailable, "forged": ErrSignatureValidation, "bad": ErrImagePull} {
		_, err := r.PullImage(t.Context(), "busybox", []Auth{{Username: user}}, nil)
		if !errors.Is(err, want) || ImageReason(err) != want.Error() {
			t.Errorf("%s: %v, want %v", user, err, want)
		}
	}
	if _, err := r.PullImage(t.Context(), "UPPER", nil, nil); ImageReason(err) != "InvalidImageName" {
		t.Errorf("PullImage(UPPER): %v", err)
	}
	if _, err := r.ImageStatus(t.Context(), "x"); ImageReason(err) != "ImageInspectError" {
		t.Errorf("ImageStatus: %v", err)
	}
}

func TestUnavailable(t *testing.T) {
	r, err := New(Options{Endpoint: filepath.Join(t.TempDir(), "nobody.sock"), Node: "n"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := r.Close(); err != nil {
			t.Error(err)
		}
	}()
	if _, err := r.Pods(t.Context()); !errors.Is(err, ErrUnavailable) {
		t.Errorf("Pods: %v, want ErrUnavailable", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := r.Connect(ctx); err == nil {
		t.Error("Connect to nobody succeeded")
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Node: "n"}, {Node: "n", Endpoint: "tcp://1.2.3.4:5"}, {Node: "n", Endpoint: "relative"}, {Endpoint: "/x"}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
}

func next(t *testing.T, events <-chan Event) Event {
	t.Helper()
	select {
	case e, ok := <-events:
		if !ok {
			t.Fatal("the channel of events was closed")
		}
		return e
	case <-time.After(20 * time.Second):
		t.Fatal("no event in 20 s")
	}
	return Event{}
}

func TestEvents(t *testing.T) {
	s := twoPods()
	s.streams = make(chan chan *runtimeapi.ContainerEventResponse, 1)
	r := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := r.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	stream := <-s.streams
	if e := next(t, events); e.Type != Resync {
		t.Fatalf("first event %+v, want Resync", e)
	}
	started, deleted := runtimeapi.ContainerEventType_CONTAINER_STARTED_EVENT, runtimeapi.ContainerEventType_CONTAINER_DELETED_EVENT
	foreign := &runtimeapi.PodSandboxStatus{Labels: labelsOf("u3", "kubelet")}
	mine := &runtimeapi.PodSandboxStatus{Labels: labelsOf("u7", "vnode")}
	for _, e := range []*runtimeapi.ContainerEventResponse{
		{ContainerId: "c-3", ContainerEventType: started, PodSandboxStatus: foreign},
		{ContainerId: "c-7", ContainerEventType: started, PodSandboxStatus: mine},
		{ContainerId: "c-7", ContainerEventType: deleted},
		{ContainerId: "c-7", ContainerEventType: deleted},
		{ContainerId: "s-2", ContainerEventType: deleted},
	} {
		stream <- e
	}
	for _, want := range []Event{{ContainerStarted, "u7", "c-7"}, {ContainerDeleted, "u7", "c-7"}, {ContainerDeleted, "u2", "s-2"}} {
		if got := next(t, events); got != want {
			t.Errorf("event %+v, want %+v", got, want)
		}
	}
	close(stream)
	<-s.streams
	if e := next(t, events); e.Type != Resync {
		t.Errorf("after a broken stream %+v, want Resync", e)
	}
	cancel()
	for range events {
	}
}

func TestEventsByPolling(t *testing.T) {
	s := twoPods()
	s.noEvent, s.listed = true, make(chan struct{}, 1)
	r := serve(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	events, err := r.Events(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]EventType{}
	for len(got) < 7 {
		e := next(t, events)
		got[e.ContainerID] = e.Type
	}
	want := map[string]EventType{"": Resync, "s-old": ContainerStopped, "s-new": ContainerStarted, "s-2": ContainerStarted,
		"c-0": ContainerStopped, "c-1": ContainerStarted, "c-gone": ContainerStarted}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("events %v, want %v", got, want)
	}
	s.mu.Lock()
	s.containers = s.containers[:2]
	s.mu.Unlock()
	if e := next(t, events); e != (Event{ContainerDeleted, "u1", "c-gone"}) {
		t.Errorf("event %+v, want that c-gone was deleted", e)
	}
	cancel()
	for range events {
	}
}
