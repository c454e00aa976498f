package cri

import (
	"context"
	"errors"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Version says which runtime it is.
type Version struct {
	// Name is the runtime's, "containerd"; the container ids of a pod's status begin with it and "://".
	Name string
	// Version is the runtime's own, without a leading "v".
	Version string
	// API is the version of the interface.
	API string
}

// Status is the runtime's own opinion about its health.
type Status struct {
	Runtime  Condition
	Network  Condition
	Handlers []Handler
	// SupplementalGroupsPolicy says that the runtime obeys the field of that name.
	SupplementalGroupsPolicy bool
}

// Condition is whether something works and, if not, why.
type Condition struct {
	OK      bool
	Reason  string
	Message string
}

// Handler is a way to run sandboxes, which a RuntimeClass refers to by name; the default's name is "".
type Handler struct {
	Name                    string
	RecursiveReadOnlyMounts bool
	UserNamespaces          bool
}

// Version asks the runtime who it is.
func (r *Runtime) Version(ctx context.Context) (Version, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.Version(ctx, &runtimeapi.VersionRequest{})
	if err != nil {
		return Version{}, wrap(err, "version of the container runtime")
	}
	return Version{Name: resp.RuntimeName, Version: trimV(resp.RuntimeVersion), API: resp.RuntimeApiVersion}, nil
}

// Status asks the runtime how it is. A runtime that does not answer is an error, one that is not ready is not.
func (r *Runtime) Status(ctx context.Context) (Status, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.Status(ctx, &runtimeapi.StatusRequest{})
	if err != nil {
		return Status{}, wrap(err, "status of the container runtime")
	}
	s := Status{
		Runtime:                  condition(resp.GetStatus(), runtimeapi.RuntimeReady),
		Network:                  condition(resp.GetStatus(), runtimeapi.NetworkReady),
		SupplementalGroupsPolicy: resp.GetFeatures().GetSupplementalGroupsPolicy(),
	}
	for _, h := range resp.RuntimeHandlers {
		s.Handlers = append(s.Handlers, Handler{
			Name:                    h.Name,
			RecursiveReadOnlyMounts: h.GetFeatures().GetRecursiveReadOnlyMounts(),
			UserNamespaces:          h.GetFeatures().GetUserNamespaces(),
		})
	}
	return s, nil
}

// CgroupDriver is "cgroupfs" or "systemd". A runtime that does not tell is taken for the former.
func (r *Runtime) CgroupDriver(ctx context.Context) (string, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.RuntimeConfig(ctx, &runtimeapi.RuntimeConfigRequest{})
	if err = wrap(err, "configuration of the container runtime"); errors.Is(err, ErrUnsupported) {
		return "cgroupfs", nil
	}
	if err != nil {
		return "", err
	}
	if resp.GetLinux().GetCgroupDriver() == runtimeapi.CgroupDriver_SYSTEMD && resp.GetLinux() != nil {
		return "systemd", nil
	}
	return "cgroupfs", nil
}

func condition(s *runtimeapi.RuntimeStatus, name string) Condition {
	for _, c := range s.GetConditions() {
		if c.Type == name {
			return Condition{OK: c.Status, Reason: c.Reason, Message: c.Message}
		}
	}
	return Condition{Reason: "ConditionMissing", Message: "the runtime does not report " + name}
}

func trimV(s string) string {
	if len(s) > 1 && s[0] == 'v' {
		return s[1:]
	}
	return s
}
