package csi

import (
	"context"
	"errors"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/sidemount/sidemount/mount"
)

// identity tells who the driver is and what it can do.
type identity struct {
	spec.UnimplementedIdentityServer
	name, version string
	controller    bool
	ready         func(context.Context) error
}

var _ spec.IdentityServer = (*identity)(nil)

// GetPluginInfo implements the call of that name.
func (i *identity) GetPluginInfo(context.Context, *spec.GetPluginInfoRequest) (*spec.GetPluginInfoResponse, error) {
	return &spec.GetPluginInfoResponse{Name: i.name, VendorVersion: i.version}, nil
}

// GetPluginCapabilities implements the call of that name.
func (i *identity) GetPluginCapabilities(context.Context, *spec.GetPluginCapabilitiesRequest) (*spec.GetPluginCapabilitiesResponse, error) {
	response := &spec.GetPluginCapabilitiesResponse{}
	if i.controller {
		response.Capabilities = append(response.Capabilities, &spec.PluginCapability{Type: &spec.PluginCapability_Service_{
			Service: &spec.PluginCapability_Service{Type: spec.PluginCapability_Service_CONTROLLER_SERVICE},
		}})
	}
	return response, nil
}

// Probe implements the call of that name. What is not available yet is "not ready"; anything else is a failure, after which
// Kubernetes restarts the driver.
func (i *identity) Probe(ctx context.Context, _ *spec.ProbeRequest) (*spec.ProbeResponse, error) {
	err := i.ready(ctx)
	switch {
	case err == nil:
		return &spec.ProbeResponse{Ready: wrapperspb.Bool(true)}, nil
	case errors.Is(err, mount.ErrUnavailable):
		return &spec.ProbeResponse{Ready: wrapperspb.Bool(false)}, nil
	}
	return nil, status.Error(codes.FailedPrecondition, err.Error())
}
