package csi

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/sidecar"
)

// cluster is the API server of a test: it counts what is read.
type cluster struct {
	claims map[string]*corev1.PersistentVolumeClaim
	nodes  map[string]*corev1.Node
	reads  []string
	err    error
}

func (c *cluster) PersistentVolumeClaim(_ context.Context, namespace, name string) (*corev1.PersistentVolumeClaim, error) {
	c.reads = append(c.reads, "claim "+namespace+"/"+name)
	if claim, ok := c.claims[namespace+"/"+name]; ok && c.err == nil {
		return claim, nil
	}
	return nil, c.missing("persistentvolumeclaims", name)
}

func (c *cluster) Node(_ context.Context, name string) (*corev1.Node, error) {
	c.reads = append(c.reads, "node "+name)
	if node, ok := c.nodes[name]; ok && c.err == nil {
		return node, nil
	}
	return nil, c.missing("nodes", name)
}

func (c *cluster) missing(kind, name string) error {
	if c.err != nil {
		return c.err
	}
	return apierrors.NewNotFound(schema.GroupResource{Resource: kind}, name)
}

func (c *cluster) PersistentVolume(context.Context, string) (*corev1.PersistentVolume, error) {
	return nil, errors.New("not asked for")
}

func (c *cluster) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return nil, errors.New("not asked for")
}

// shop is a claim "shop/data" whose first pod goes to node "worker-1".
func shop() *cluster {
	return &cluster{
		claims: map[string]*corev1.PersistentVolumeClaim{"shop/data": {ObjectMeta: metav1.ObjectMeta{
			Name: "data", Namespace: "shop", Labels: map[string]string{"team": "blue"},
			Annotations: map[string]string{"dir": "a/b", "cache": "512", selectedNode: "worker-1"},
		}}},
		nodes: map[string]*corev1.Node{"worker-1": {
			ObjectMeta: metav1.ObjectMeta{Name: "worker-1", Labels: map[string]string{"zone": "z1"}},
			Spec:       corev1.NodeSpec{PodCIDR: "10.0.1.0/24"},
		}},
	}
}

// stand is a controller behind its socket.
type stand struct {
	spec.ControllerClient
	*running
	memory  *memory
	cluster *cluster
	events  *record.FakeRecorder
}

func newStand(t *testing.T) *stand {
	t.Helper()
	s := &stand{memory: newMemory(), cluster: shop(), events: record.NewFakeRecorder(100)}
	resolver, err := sidecar.NewResolver(sidecar.Options{Objects: s.cluster})
	if err != nil {
		t.Fatal(err)
	}
	controller, err := NewController(ControllerOptions{Admin: s.memory, Volumes: resolver, Claims: s.cluster, Nodes: s.cluster, Recorder: s.events})
	if err != nil {
		t.Fatal(err)
	}
	s.running = run(t, Options{Controller: controller})
	s.ControllerClient = spec.NewControllerClient(s.conn)
	return s
}

const password = "hunter2-hunter2"

func credentials() map[string]string {
	return map[string]string{"name": "shared", "metaurl": "redis://:" + password + "@redis:6379/1"}
}

// capability is a mounted volume's.
func capability(mode spec.VolumeCapability_AccessMode_Mode, flags ...string) *spec.VolumeCapability {
	return &spec.VolumeCapability{
		AccessMode: &spec.VolumeCapability_AccessMode{Mode: mode},
		AccessType: &spec.VolumeCapability_Mount{Mount: &spec.VolumeCapability_MountVolume{MountFlags: flags}},
	}
}

const (
	many     = spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER
	readOnly = spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY
)

// request is a claim's, as csi-provisioner sends it; parameters come in pairs.
func request(name string, parameters ...string) *spec.CreateVolumeRequest {
	r := &spec.CreateVolumeRequest{
		Name: name, CapacityRange: &spec.CapacityRange{RequiredBytes: 1 << 20}, Secrets: credentials(),
		VolumeCapabilities: []*spec.VolumeCapability{capability(many)},
		Parameters: map[string]string{
			claimNameParameter: "data", claimNSParameter: "shop", "csi.storage.k8s.io/pv/name": name,
		},
	}
	for i := 0; i+1 < len(parameters); i += 2 {
		r.Parameters[parameters[i]] = parameters[i+1]
	}
	return r
}

func (s *stand) make(t *testing.T, r *spec.CreateVolumeRequest) *spec.Volume {
	t.Helper()
	response, err := s.CreateVolume(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	return response.Volume
}

func TestAStorageClassNeedsNoParameters(t *testing.T) {
	s := newStand(t)
	r := request("pvc-1")
	r.Parameters = nil
	if v := s.make(t, r); v.VolumeContext["subPath"] != "pvc-1" {
		t.Errorf("got %v", v)
	}
}

func TestVolumeLife(t *testing.T) {
	s := newStand(t)
	r := request("pvc-1", "juicefs/mount-cpu-limit", "3", "secretFinalizer", "false", "mountOptions", "writeback")
	v := s.make(t, r)
	want := map[string]string{
		"subPath": "pvc-1", "juicefs/mount-cpu-limit": "3", "mountOptions": "writeback",
		claimNameParameter: "data", claimNSParameter: "shop", "csi.storage.k8s.io/pv/name": "pvc-1",
	}
	if v.VolumeId != "pvc-1" || v.CapacityBytes != 1<<20 || !maps.Equal(v.VolumeContext, want) || v.AccessibleTopology != nil {
		t.Errorf("got %v", v)
	}
	if again := s.make(t, r); again.String() != v.String() {
		t.Errorf("the same request again gives %v", again)
	}
	if len(s.cluster.reads) > 0 {
		t.Errorf("objects are read that nobody needs: %v", s.cluster.reads)
	}
	expand := &spec.ControllerExpandVolumeRequest{VolumeId: "pvc-1", Secrets: credentials(), CapacityRange: &spec.CapacityRange{RequiredBytes: 3 << 20}}
	for range 2 {
		if e, err := s.ControllerExpandVolume(t.Context(), expand); err != nil || e.CapacityBytes != 3<<20 || e.NodeExpansionRequired {
			t.Errorf("got %v, %v", e, err)
		}
	}
	if grown := s.make(t, r); grown.CapacityBytes != 3<<20 {
		t.Errorf("the first request again, after the volume has grown: %v", grown)
	}
	for range 2 {
		if _, err := s.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: "pvc-1", Secrets: credentials()}); err != nil {
			t.Error(err)
		}
	}
	if _, err := s.ControllerExpandVolume(t.Context(), expand); status.Code(err) != codes.NotFound {
		t.Errorf("expansion of a deleted volume: %v", err)
	}
}

func TestSameNameOtherAttributes(t *testing.T) {
	s := newStand(t)
	s.make(t, request("pvc-1"))
	larger := request("pvc-1")
	larger.CapacityRange.RequiredBytes = 2 << 20
	other := request("pvc-1", "mountOptions", "subdir=elsewhere")
	source := request("pvc-1")
	s.make(t, request("pvc-2"))
	source.VolumeContentSource = volumeSource("pvc-2")
	for name, r := range map[string]*spec.CreateVolumeRequest{"larger": larger, "other directory": other, "other source": source} {
		if _, err := s.CreateVolume(t.Context(), r); status.Code(err) != codes.AlreadyExists {
			t.Errorf("%s: got %v", name, err)
		}
	}
	smaller := request("pvc-1")
	smaller.CapacityRange.RequiredBytes = 1
	if v := s.make(t, smaller); v.CapacityBytes != 1<<20 {
		t.Errorf("what is there is large enough: %v", v)
	}
}

func TestDirectories(t *testing.T) {
	for _, tc := range []struct {
		name, pattern, options string
		flags                  []string
		subPath, path          string
	}{
		{name: "the volume's name", subPath: "pvc-1", path: "pvc-1"},
		{name: "claim", pattern: "${.pvc.namespace}/${.PVC.name}", subPath: "shop/data", path: "shop/data"},
		{name: "slashes of the administrator", pattern: "/${.pvc.namespace}//x/", subPath: "shop/x", path: "shop/x"},
		{name: "labels and annotations", pattern: "${.pvc.labels.team}-${.pvc.annotations.dir}", subPath: "blue-a/b", path: "blue-a/b"},
		{name: "node", pattern: "${.node.name}/${.node.labels.zone}", subPath: "worker-1/z1", path: "worker-1/z1"},
		{name: "below a subdir", options: "subdir=/teams/", subPath: "pvc-1", path: "teams/pvc-1"},
		{name: "below a subdir with a template", pattern: "${.pvc.name}", flags: []string{"subdir=t/${.pvc.labels.team}"}, subPath: "data", path: "t/blue/data"},
		{name: "constant", pattern: "shared", subPath: "shared", path: "shared"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := newStand(t)
			r := request("pvc-1")
			r.VolumeCapabilities = []*spec.VolumeCapability{capability(many, tc.flags...)}
			if tc.pattern != "" {
				r.Parameters["pathPattern"] = tc.pattern
			}
			if tc.options != "" {
				r.Parameters["mountOptions"] = tc.options
			}
			v := s.make(t, r)
			if v.VolumeContext["subPath"] != tc.subPath || v.VolumeContext["pathPattern"] != tc.pattern {
				t.Errorf("got %v", v.VolumeContext)
			}
			if got := s.memory.systems[credentials()["metaurl"]].volumes["pvc-1"].Path; got != tc.path {
				t.Errorf("the directory is %s, want %s", got, tc.path)
			}
			if len(s.cluster.reads) > 2 {
				t.Errorf("objects are read again: %v", s.cluster.reads)
			}
		})
	}
}

// What the nodes make of the attributes must be the directory that was made.
func TestNodesSeeTheDirectoryThatWasMade(t *testing.T) {
	s := newStand(t)
	flags := []string{"subdir=t/${.pvc.labels.team}", "cache-size=${.pvc.annotations.cache}", "max-uploads=5"}
	r := request("pvc-1", "pathPattern", "${.pvc.name}", "mountOptions", "writeback", "juicefs/mount-memory-limit", "${.pvc.annotations.none}")
	r.VolumeCapabilities = []*spec.VolumeCapability{capability(many, flags...)}
	v := s.make(t, r)
	resolver, err := sidecar.NewResolver(sidecar.Options{Objects: s.cluster})
	if err != nil {
		t.Fatal(err)
	}
	m, err := resolver.Describe(sidecar.Source{Name: "v", Handle: v.VolumeId, Attributes: v.VolumeContext, MountOptions: flags, Secret: credentials()})
	if err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(m.Volume.Options, " "); got != "writeback cache-size=512 max-uploads=5 subdir=/t/blue/data" {
		t.Errorf("got %s", got)
	}
	if _, ok := v.VolumeContext["juicefs/mount-memory-limit"]; ok {
		t.Errorf("what the claim does not say is there: %v", v.VolumeContext)
	}
}

func TestLabelsMayChangeAfterwards(t *testing.T) {
	s := newStand(t)
	r := request("pvc-1", "pathPattern", "${.pvc.labels.team}/${.pvc.name}")
	s.make(t, r)
	s.cluster.claims["shop/data"].Labels["team"] = "red"
	if v := s.make(t, r); v.VolumeContext["subPath"] != "blue/data" {
		t.Errorf("got %v", v.VolumeContext)
	}
}

func TestLabelsMayChangeWhileTheVolumeIsMade(t *testing.T) {
	s := newStand(t)
	s.memory.begun = "tenants/red/data"
	r := request("pvc-1", "pathPattern", "${.pvc.labels.team}/${.pvc.name}", "mountOptions", "subdir=tenants")
	if v := s.make(t, r); v.VolumeContext["subPath"] != "red/data" {
		t.Errorf("got %v", v.VolumeContext)
	}
	s.memory.begun = "elsewhere/data"
	r.Name = "pvc-2"
	if _, err := s.CreateVolume(t.Context(), r); status.Code(err) != codes.AlreadyExists {
		t.Errorf("a volume that was begun outside of the subdir: got %v", err)
	}
}

func TestTenantsCannotWriteThemselvesOut(t *testing.T) {
	s := newStand(t)
	for _, value := range []string{"", " ", "..", "a/../..", "/a", "a/", "a//b", "a\nb", "a\x00b", "./a", "a,subdir=/", "../x", strings.Repeat("x", 256)} {
		s.cluster.claims["shop/data"].Annotations["dir"] = value
		for _, pattern := range []string{"${.pvc.annotations.dir}", "x/${.pvc.annotations.dir}"} {
			if _, err := s.CreateVolume(t.Context(), request("pvc-1", "pathPattern", pattern)); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%q in %s: got %v", value, pattern, err)
			}
		}
	}
	for _, value := range []string{"1,subdir=/", "1\nsubdir=/", `1","x":"y`, `\`, "a}b"} {
		s.cluster.claims["shop/data"].Annotations["cache"] = value
		r := request("pvc-1")
		r.VolumeCapabilities[0] = capability(many, "cache-size=${.pvc.annotations.cache}")
		for _, r := range []*spec.CreateVolumeRequest{
			r, request("pvc-1", "mountOptions", "cache-size=${.pvc.annotations.cache}"),
			request("pvc-1", "juicefs/mount-labels", `{"a": "${.pvc.annotations.cache}"}`),
		} {
			if _, err := s.CreateVolume(t.Context(), r); status.Code(err) != codes.FailedPrecondition {
				t.Errorf("%q: got %v", value, err)
			}
		}
	}
}

func TestCreateRefuses(t *testing.T) {
	s := newStand(t)
	gone := func(r *spec.CreateVolumeRequest) { r.Parameters[claimNameParameter] = "gone" }
	for _, tc := range []struct {
		name       string
		parameters []string
		change     func(*spec.CreateVolumeRequest)
		code       codes.Code
		says       string
	}{
		{"no name", nil, func(r *spec.CreateVolumeRequest) { r.Name = "" }, codes.InvalidArgument, "name"},
		{"long name", nil, func(r *spec.CreateVolumeRequest) { r.Name = strings.Repeat("x", 129) }, codes.InvalidArgument, "128"},
		{"name of two lines", nil, func(r *spec.CreateVolumeRequest) { r.Name = "a\nb" }, codes.InvalidArgument, "control"},
		{"no capability", nil, func(r *spec.CreateVolumeRequest) { r.VolumeCapabilities = nil }, codes.InvalidArgument, "capabilities"},
		{"no access type", nil, func(r *spec.CreateVolumeRequest) { r.VolumeCapabilities[0].AccessType = nil }, codes.InvalidArgument, "access type"},
		{"block", nil, func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities[0].AccessType = &spec.VolumeCapability_Block{Block: &spec.VolumeCapability_BlockVolume{}}
		}, codes.InvalidArgument, "block"},
		{"unknown mode", nil, func(r *spec.CreateVolumeRequest) { r.VolumeCapabilities[0] = capability(0) }, codes.InvalidArgument, "UNKNOWN"},
		{"one writer of many", nil, func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities[0] = capability(spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER)
		}, codes.InvalidArgument, "MULTI_NODE_SINGLE_WRITER"},
		{"read-only and empty", nil, func(r *spec.CreateVolumeRequest) { r.VolumeCapabilities[0] = capability(readOnly) }, codes.InvalidArgument, "ReadOnlyMany"},
		{"negative size", nil, func(r *spec.CreateVolumeRequest) { r.CapacityRange.RequiredBytes = -1 }, codes.InvalidArgument, "negative"},
		{"limit below", nil, func(r *spec.CreateVolumeRequest) { r.CapacityRange.LimitBytes = 1 }, codes.OutOfRange, "limit"},
		{"attributes class", nil, func(r *spec.CreateVolumeRequest) { r.MutableParameters = map[string]string{"a": "b"} }, codes.InvalidArgument, "VolumeAttributesClass"},
		{"no secret", nil, func(r *spec.CreateVolumeRequest) { r.Secrets = nil }, codes.FailedPrecondition, provisionerSecret},
		{"no metaurl", nil, func(r *spec.CreateVolumeRequest) { delete(r.Secrets, "metaurl") }, codes.FailedPrecondition, "metaurl"},
		{"empty source", nil, func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = &spec.VolumeContentSource{} }, codes.InvalidArgument, "source"},
		{"no such source", nil, func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = volumeSource("nobody") }, codes.NotFound, "nobody"},
		{"source with a slash", nil, func(r *spec.CreateVolumeRequest) { r.VolumeContentSource = volumeSource("a/b") }, codes.NotFound, "a/b"},
		{"passthrough", []string{"sidemount.io/client", "passthrough", "path", "/srv"}, nil, codes.InvalidArgument, "one host"},
		{"unknown client", []string{"sidemount.io/client", "ceph"}, nil, codes.InvalidArgument, "juicefs"},
		{"misspelt parameter", []string{"mountOption", "writeback"}, nil, codes.InvalidArgument, "mountOptions"},
		{"one directory for all", []string{"subPath", "x"}, nil, codes.InvalidArgument, "pathPattern"},
		{"options of two lines", []string{"mountOptions", "a\nb"}, nil, codes.InvalidArgument, "line break"},
		{"subdir above", []string{"mountOptions", "subdir=.."}, nil, codes.InvalidArgument, ".."},
		{"reserved directory", []string{"pathPattern", "/.sidemount/x"}, nil, codes.InvalidArgument, "reserved"},
		{"pattern above", []string{"pathPattern", "../x"}, nil, codes.InvalidArgument, ".."},
		{"pattern of nothing", []string{"pathPattern", "/"}, nil, codes.InvalidArgument, "no directory"},
		{"pattern without a dot", []string{"pathPattern", "${pvc.name}"}, nil, codes.InvalidArgument, "${.pvc.name}"},
		{"pattern of a volume", []string{"pathPattern", "${.pv.name}"}, nil, codes.InvalidArgument, "${.pvc.name}"},
		{"unknown field", []string{"pathPattern", "${.pvc.uid}"}, nil, codes.InvalidArgument, "${.pvc.name}"},
		{"unknown field of a node", []string{"pathPattern", "${.node.uid}"}, nil, codes.InvalidArgument, "${.node.name}"},
		{"unknown template elsewhere", []string{"juicefs/mount-labels", "a: ${.pod.name}"}, nil, codes.InvalidArgument, "${.pod.name}"},
		{"no such label", []string{"pathPattern", "${.pvc.labels.nobody}"}, nil, codes.FailedPrecondition, "shop/data"},
		{"no such label in an option", []string{"mountOptions", "subdir=${.pvc.labels.nobody}"}, nil, codes.FailedPrecondition, "shop/data"},
		{"template as an option", nil, func(r *spec.CreateVolumeRequest) {
			r.VolumeCapabilities[0] = capability(many, "${.pvc.annotations.dir}")
		}, codes.InvalidArgument, "key"},
		{"no claim named", []string{"pathPattern", "${.pvc.labels.team}"}, func(r *spec.CreateVolumeRequest) { delete(r.Parameters, claimNameParameter) },
			codes.InvalidArgument, "--extra-create-metadata"},
		{"no claim named for the node", []string{"pathPattern", "${.node.name}"}, func(r *spec.CreateVolumeRequest) { delete(r.Parameters, claimNameParameter) },
			codes.InvalidArgument, "--extra-create-metadata"},
		{"claim is gone", []string{"pathPattern", "${.pvc.labels.team}"}, gone, codes.FailedPrecondition, "is gone"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request("pvc-1", tc.parameters...)
			if tc.change != nil {
				tc.change(r)
			}
			_, err := s.CreateVolume(t.Context(), r)
			if status.Code(err) != tc.code || !strings.Contains(status.Convert(err).Message(), tc.says) {
				t.Errorf("got %v, want %s with %q", err, tc.code, tc.says)
			}
			for _, fs := range s.memory.systems {
				if len(fs.volumes) > 0 {
					t.Errorf("a volume is left: %v", fs.volumes)
				}
			}
		})
	}
}

func TestNodeOfTheClaim(t *testing.T) {
	s := newStand(t)
	delete(s.cluster.claims["shop/data"].Annotations, selectedNode)
	r := request("pvc-1", "pathPattern", "${.node.name}")
	if _, err := s.CreateVolume(t.Context(), r); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "WaitForFirstConsumer") {
		t.Errorf("got %v", err)
	}
	s.cluster.err = errors.New("connection refused")
	if _, err := s.CreateVolume(t.Context(), r); status.Code(err) != codes.Unavailable {
		t.Errorf("a silent API server: got %v", err)
	}
}

func TestReadOnlyVolumesHaveContent(t *testing.T) {
	s := newStand(t)
	s.make(t, request("pvc-1"))
	clone := request("pvc-2")
	clone.VolumeContentSource = volumeSource("pvc-1")
	named := request("pvc-3", "pathPattern", "datasets/imagenet")
	both := request("pvc-4")
	both.VolumeCapabilities = append(both.VolumeCapabilities, capability(readOnly))
	for _, r := range []*spec.CreateVolumeRequest{clone, named} {
		r.VolumeCapabilities[0] = capability(readOnly)
		s.make(t, r)
	}
	s.make(t, both)
}

func TestAnyNameOfTheSpecification(t *testing.T) {
	s := newStand(t)
	seen := map[string]bool{}
	for _, name := range []string{"a b", "ä/ö", strings.Repeat("y", 128), "-x", "../../etc"} {
		v := s.make(t, request(name))
		if admin.CheckID(v.VolumeId) != nil || seen[v.VolumeId] {
			t.Errorf("%q has ID %q", name, v.VolumeId)
		}
		seen[v.VolumeId] = true
		if again := s.make(t, request(name)); again.VolumeId != v.VolumeId {
			t.Errorf("%q has two IDs", name)
		}
	}
}

func TestOneCallForAVolumeAtATime(t *testing.T) {
	s := newStand(t)
	s.memory.hold, s.memory.entered = make(chan struct{}), make(chan struct{})
	first := make(chan error, 1)
	go func() {
		_, err := s.CreateVolume(context.Background(), request("pvc-1"))
		first <- err
	}()
	<-s.memory.entered
	if _, err := s.CreateVolume(t.Context(), request("pvc-1")); status.Code(err) != codes.Aborted {
		t.Errorf("create: got %v", err)
	}
	if _, err := s.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: "pvc-1", Secrets: credentials()}); status.Code(err) != codes.Aborted {
		t.Errorf("delete: got %v", err)
	}
	if _, err := s.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: "pvc-2", Secrets: credentials()}); err != nil {
		t.Errorf("another volume: %v", err)
	}
	close(s.memory.hold)
	if err := <-first; err != nil {
		t.Error(err)
	}
	if _, err := s.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: "pvc-1", Secrets: credentials()}); err != nil {
		t.Errorf("delete afterwards: %v", err)
	}
}

func TestErrorsOfTheWorker(t *testing.T) {
	s := newStand(t)
	for err, want := range map[error]codes.Code{
		admin.ErrBusy: codes.Aborted, admin.ErrInUse: codes.FailedPrecondition, admin.ErrInvalid: codes.InvalidArgument,
		admin.ErrFull:        codes.ResourceExhausted,
		mount.ErrUnavailable: codes.Unavailable, mount.ErrConfig: codes.FailedPrecondition, errors.New("bug"): codes.Internal,
		context.DeadlineExceeded: codes.DeadlineExceeded,
	} {
		s.memory.fail = fmt.Errorf("open %s: %w", credentials()["metaurl"], err)
		_, createErr := s.CreateVolume(t.Context(), request("pvc-1"))
		_, deleteErr := s.DeleteVolume(t.Context(), &spec.DeleteVolumeRequest{VolumeId: "pvc-1", Secrets: credentials()})
		for _, got := range []error{createErr, deleteErr} {
			if status.Code(got) != want {
				t.Errorf("%v: got %v", err, got)
			}
			if strings.Contains(fmt.Sprint(got), password) || strings.Contains(s.log.String(), password) {
				t.Errorf("%v: the password is told: %v\n%s", err, got, s.log)
			}
		}
	}
}

func TestMalformedCalls(t *testing.T) {
	s := newStand(t)
	s.make(t, request("pvc-1"))
	ctx, none := t.Context(), map[string]string(nil)
	check := func(name string, want codes.Code, err error) {
		t.Helper()
		if status.Code(err) != want {
			t.Errorf("%s: got %v, want %s", name, err, want)
		}
	}
	remove := func(id string, secrets map[string]string) error {
		_, err := s.DeleteVolume(ctx, &spec.DeleteVolumeRequest{VolumeId: id, Secrets: secrets})
		return err
	}
	check("delete nothing", codes.InvalidArgument, remove("", credentials()))
	check("delete what cannot be", codes.OK, remove("a/../b", none))
	check("delete without secret", codes.FailedPrecondition, remove("pvc-1", none))
	expand := func(id string, secrets map[string]string, r *spec.CapacityRange) error {
		_, err := s.ControllerExpandVolume(ctx, &spec.ControllerExpandVolumeRequest{VolumeId: id, Secrets: secrets, CapacityRange: r})
		return err
	}
	room := &spec.CapacityRange{RequiredBytes: 9 << 20}
	check("expand nothing", codes.InvalidArgument, expand("", credentials(), room))
	check("expand to nothing", codes.InvalidArgument, expand("pvc-1", credentials(), nil))
	check("expand what cannot be", codes.NotFound, expand("a/b", credentials(), room))
	check("expand what is not", codes.NotFound, expand("pvc-9", credentials(), room))
	check("shrink", codes.OutOfRange, expand("pvc-1", credentials(), &spec.CapacityRange{LimitBytes: 1}))
	err := expand("pvc-1", none, room)
	check("expand without secret", codes.FailedPrecondition, err)
	if !strings.Contains(fmt.Sprint(err), "csi.storage.k8s.io/controller-expand-secret-name") {
		t.Errorf("the cure is missing: %v", err)
	}
	validate := func(id string, c ...*spec.VolumeCapability) (*spec.ValidateVolumeCapabilitiesResponse, error) {
		return s.ValidateVolumeCapabilities(ctx, &spec.ValidateVolumeCapabilitiesRequest{VolumeId: id, Secrets: credentials(), VolumeCapabilities: c})
	}
	_, err = validate("", capability(many))
	check("validate nothing", codes.InvalidArgument, err)
	_, err = validate("pvc-1")
	check("validate for nothing", codes.InvalidArgument, err)
	_, err = validate("pvc-9", capability(many))
	check("validate what is not", codes.NotFound, err)
	if v, err := validate("pvc-1", capability(many)); err != nil || len(v.GetConfirmed().GetVolumeCapabilities()) != 1 {
		t.Errorf("got %v, %v", v, err)
	}
	if v, err := validate("pvc-1", capability(spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER)); err != nil || v.Confirmed != nil || v.Message == "" {
		t.Errorf("got %v, %v", v, err)
	}
	_, err = s.ListVolumes(ctx, &spec.ListVolumesRequest{})
	check("list volumes", codes.Unimplemented, err)
	_, err = s.GetCapacity(ctx, &spec.GetCapacityRequest{})
	check("capacity", codes.Unimplemented, err)
}

func TestNewController(t *testing.T) {
	if _, err := NewController(ControllerOptions{}); err == nil {
		t.Error("no error")
	}
	c, err := newStand(t).ControllerGetCapabilities(t.Context(), &spec.ControllerGetCapabilitiesRequest{})
	if err != nil || len(c.Capabilities) != len(controllerCapabilities) {
		t.Errorf("got %v, %v", c, err)
	}
}
