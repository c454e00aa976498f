package csi

import (
	"context"
	"errors"
	"fmt"
	"sync"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/sirupsen/logrus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/client-go/tools/record"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/sidecar"
)

// ControllerOptions configure the controller service.
type ControllerOptions struct {
	// Admin makes and removes volumes. Required.
	Admin admin.Service
	// Volumes understands parameters and mount options, as the nodes do. Required.
	Volumes Describer
	// Claims and Nodes read the objects that templates of a StorageClass speak of. nil: such a StorageClass is refused.
	Claims Claims
	Nodes  Nodes
	// Recorder takes events about claims whose StorageClass has settings that are not followed. nil: the log is told.
	Recorder record.EventRecorder
	// Log is told of what concerns no claim. Default: the standard logger.
	Log logrus.FieldLogger
}

// controller is the controller service. It keeps no state: what exists is on record in the file systems, so that it may be
// restarted at any time and run several times.
//
// ListVolumes, GetCapacity and ControllerGetVolume are not offered. Their requests bring no secrets (CSI specification), and without
// a Secret there is no file system that could be asked.
type controller struct {
	spec.UnimplementedControllerServer
	admin    admin.Service
	volumes  Describer
	claims   Claims
	nodes    Nodes
	recorder record.EventRecorder
	log      logrus.FieldLogger
	under    operations
}

var _ spec.ControllerServer = (*controller)(nil)

// NewController checks the options and returns the service.
func NewController(o ControllerOptions) (spec.ControllerServer, error) {
	if o.Admin == nil || o.Volumes == nil {
		return nil, errors.New("controller needs an administrative service and volumes")
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	return &controller{admin: o.Admin, volumes: o.Volumes, claims: o.Claims, nodes: o.Nodes, recorder: o.Recorder, log: o.Log}, nil
}

var controllerCapabilities = []spec.ControllerServiceCapability_RPC_Type{
	spec.ControllerServiceCapability_RPC_CREATE_DELETE_VOLUME,
	spec.ControllerServiceCapability_RPC_EXPAND_VOLUME,
	spec.ControllerServiceCapability_RPC_CLONE_VOLUME,
	spec.ControllerServiceCapability_RPC_CREATE_DELETE_SNAPSHOT,
	spec.ControllerServiceCapability_RPC_LIST_SNAPSHOTS,
	spec.ControllerServiceCapability_RPC_SINGLE_NODE_MULTI_WRITER,
}

// ControllerGetCapabilities implements the call of that name.
func (c *controller) ControllerGetCapabilities(context.Context, *spec.ControllerGetCapabilitiesRequest) (*spec.ControllerGetCapabilitiesResponse, error) {
	response := &spec.ControllerGetCapabilitiesResponse{}
	for _, capability := range controllerCapabilities {
		response.Capabilities = append(response.Capabilities, &spec.ControllerServiceCapability{
			Type: &spec.ControllerServiceCapability_Rpc{Rpc: &spec.ControllerServiceCapability_RPC{Type: capability}},
		})
	}
	return response, nil
}

// Where a call's Secret is named, for errors.
const (
	provisionerSecret = "csi.storage.k8s.io/provisioner-secret-name"       // #nosec G101 -- the name of a parameter
	expandSecret      = "csi.storage.k8s.io/controller-expand-secret-name" // #nosec G101
	snapshotterSecret = "csi.storage.k8s.io/snapshotter-secret-name"       // #nosec G101
	listSecret        = "csi.storage.k8s.io/snapshotter-list-secret-name"  // #nosec G101
)

// fileSystem returns the file system of a request. parameter and class tell where its Secret is named.
func fileSystem(secrets map[string]string, parameter, class string) (admin.FileSystem, error) {
	if err := needSecret(secrets, parameter, class); err != nil {
		return admin.FileSystem{}, err
	}
	fs, err := sidecar.FileSystem("Secret of "+parameter, secrets)
	return fs, curable(err)
}

func needSecret(secrets map[string]string, parameter, class string) error {
	if len(secrets) > 0 {
		return nil
	}
	return status.Errorf(codes.FailedPrecondition, "the request brings no Secret: the %s names none in %s, or it does not exist any more", class, parameter)
}

// curable gives errors that a new content of the Secret can cure the code FailedPrecondition. Callers take InvalidArgument for
// hopeless: csi-provisioner comes back after minutes, csi-resizer marks the claim.
func curable(err error) error {
	var e *sidecar.Error
	if !errors.Is(err, mount.ErrConfig) || errors.As(err, &e) && e.Reason != sidecar.ReasonSecretInvalid {
		return err
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}

// operations are the calls under way. A call about an object that another call is busy with is refused, as the CSI specification
// recommends ("Error Scheme", ABORTED), and comes again.
type operations struct {
	mu    sync.Mutex
	under map[string]struct{}
}

// begin claims an object, such as "volume pvc-1". end gives it back.
func (o *operations) begin(object string) (end func(), err error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, ok := o.under[object]; ok {
		return nil, fmt.Errorf("%s: %w", object, admin.ErrBusy)
	}
	if o.under == nil {
		o.under = make(map[string]struct{})
	}
	o.under[object] = struct{}{}
	return func() {
		o.mu.Lock()
		defer o.mu.Unlock()
		delete(o.under, object)
	}, nil
}
