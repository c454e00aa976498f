package csi

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
	"github.com/sidemount/sidemount/sidecar"
)

// Parameters of a StorageClass that are looked at here; the others are for sidecar.Describe and the nodes.
const (
	clientParameter       = "sidemount.io/client"
	pathPatternParameter  = "pathPattern"
	finalizerParameter    = "secretFinalizer"
	subPathParameter      = "subPath"
	mountOptionsParameter = "mountOptions"
	claimNameParameter    = "csi.storage.k8s.io/pvc/name"
	claimNSParameter      = "csi.storage.k8s.io/pvc/namespace"
)

// plan is a volume to be made.
type plan struct {
	command admin.CreateVolume
	// subdir is what the mount option of that name puts before the volume's own path: "", or a path with a slash at its end.
	subdir string
	// pattern means that the path was made from a pathPattern.
	pattern bool
	// attributes become the PersistentVolume's, except for the path.
	attributes map[string]string
	// warnings tell which settings are not followed.
	warnings []string
}

// plan understands a request. It reads API objects only where a template of the StorageClass needs them.
func (c *controller) plan(ctx context.Context, id string, r *spec.CreateVolumeRequest) (plan, error) {
	parameters := r.GetParameters()
	if err := checkParameters(parameters, r.GetSecrets()); err != nil {
		return plan{}, err
	}
	f := &facts{claims: c.claims, nodes: c.nodes, namespace: parameters[claimNSParameter], name: parameters[claimNameParameter]}
	p := plan{pattern: parameters[pathPatternParameter] != ""}
	var err error
	if p.attributes, err = f.attributes(ctx, parameters, mountFlags(r.GetVolumeCapabilities())); err != nil {
		return plan{}, err
	}
	subPath := id
	if p.pattern {
		if subPath, err = f.subPath(ctx, parameters[pathPatternParameter]); err != nil {
			return plan{}, err
		}
	}
	p.attributes[subPathParameter] = subPath
	described, err := c.volumes.Describe(sidecar.Source{
		Name: id, Handle: id,
		Object: "StorageClass", AttributesField: "parameters", MountOptionsField: "mountOptions",
		Attributes: p.attributes, MountOptions: mountFlags(r.GetVolumeCapabilities()),
		Secret: r.GetSecrets(), SecretObject: "Secret of " + provisionerSecret,
		MountPod: true, // what only a Mount Pod has is judged now; a sidecar's node says what it cannot follow
	})
	if err != nil {
		return plan{}, curable(err)
	}
	p.warnings = append(finalizerWarning(parameters), described.Warnings...)
	return p.complete(id, described.Volume, r.GetVolumeContentSource())
}

// checkParameters refuses what can never become a volume.
func checkParameters(parameters, secrets map[string]string) error {
	switch {
	case mount.ClientKind(parameters[clientParameter]) == mount.Passthrough:
		return status.Errorf(codes.InvalidArgument, "client %s shows a directory of one host, which cannot be provisioned for all; make a PersistentVolume by hand", mount.Passthrough)
	case parameters[subPathParameter] != "":
		return status.Errorf(codes.InvalidArgument, "parameter %s would give all volumes of the StorageClass one directory; use %s", subPathParameter, pathPatternParameter)
	}
	return needSecret(secrets, provisionerSecret, "StorageClass")
}

// attributes returns the parameters with their templates filled in. The pathPattern stays as it is: it tells, for good, that the
// directory may belong to several volumes. Mount options with templates come from the StorageClass too, and nobody
// fills them in on their way into the PersistentVolume, so that they go with the attributes.
func (f *facts) attributes(ctx context.Context, parameters map[string]string, flags []string) (map[string]string, error) {
	out := make(map[string]string, len(parameters)+1)
	maps.Copy(out, parameters)
	delete(out, finalizerParameter)
	for _, key := range slices.Sorted(maps.Keys(out)) {
		if key == pathPatternParameter || key == mountOptionsParameter || !templatedOrUnknown(out[key]) {
			continue
		}
		filled, err := f.fill(ctx, out[key], "parameter "+key, false, valueProblem)
		if err != nil {
			return nil, err
		}
		if out[key] = filled; filled == "" {
			delete(out, key) // what the claim does not say has its default
		}
	}
	options, err := f.options(ctx, out[mountOptionsParameter], flags)
	if err != nil {
		return nil, err
	}
	if options != "" {
		out[mountOptionsParameter] = options
	}
	return out, nil
}

// options joins the parameter of that name and those mount options that have templates.
func (f *facts) options(ctx context.Context, parameter string, flags []string) (string, error) {
	options := []string{parameter}
	if strings.TrimSpace(parameter) == "" {
		options = nil
	}
	for _, flag := range flags {
		for option := range strings.SplitSeq(flag, ",") {
			if !templatedOrUnknown(option) {
				continue
			}
			if key, _, _ := strings.Cut(option, "="); templatedOrUnknown(key) {
				return "", status.Errorf(codes.InvalidArgument, "mount option %q has a template in its key; write key=${…}", option)
			}
			options = append(options, option)
		}
	}
	return f.fill(ctx, strings.Join(options, ","), "mountOptions", true, valueProblem)
}

func templatedOrUnknown(text string) bool { return templated(text) || strings.Contains(text, "${.") }

// complete turns the volume as nodes will understand it into the command.
func (p plan) complete(id string, v mount.Volume, source *spec.VolumeContentSource) (plan, error) {
	whole := ""
	for _, option := range v.Options {
		if value, ok := strings.CutPrefix(option, "subdir="); ok {
			whole = value
		}
	}
	whole, err := admin.CleanPath(whole)
	if err != nil {
		return plan{}, err
	}
	own := p.attributes[subPathParameter]
	prefix, ok := strings.CutSuffix(whole, own)
	if !ok {
		return plan{}, fmt.Errorf("directory %q of volume %s does not end with %q", whole, id, own)
	}
	p.subdir = prefix
	// Options do not count: the records of a file system lie at its root, where a call that brings the Secret alone finds them.
	p.command = admin.CreateVolume{
		FileSystem: admin.FileSystem{Client: v.Client, Config: v.Config, Secret: v.Secret},
		ID:         id, Path: whole, Mode: admin.DefaultMode,
	}
	p.command.Source, err = contentSource(source)
	return p, err
}

func contentSource(s *spec.VolumeContentSource) (*admin.Source, error) {
	if s == nil {
		return nil, nil
	}
	var source admin.Source
	switch {
	case s.GetSnapshot() != nil:
		source.SnapshotID = s.GetSnapshot().GetSnapshotId()
	case s.GetVolume() != nil:
		source.VolumeID = s.GetVolume().GetVolumeId()
	}
	id := source.SnapshotID + source.VolumeID
	if id == "" {
		return nil, status.Error(codes.InvalidArgument, "the volume's content source names neither a snapshot nor a volume")
	}
	if admin.CheckID(id) != nil {
		return nil, fmt.Errorf("content source %q: %w", id, admin.ErrNotFound)
	}
	return &source, nil
}

// accept refuses an existing volume that is not the planned one.
func (p plan) accept(v admin.Volume, wanted size) (admin.Volume, error) {
	if why := p.differs(v, wanted); why != "" {
		return admin.Volume{}, fmt.Errorf("volume %s %s: %w", v.ID, why, admin.ErrExists)
	}
	return v, nil
}

// differs says how an existing volume is not the planned one, or "". With a pathPattern the path may be another one below the same
// subdir: the claim's labels may have changed since.
func (p plan) differs(v admin.Volume, wanted size) string {
	switch {
	case !wanted.fits(v.CapacityBytes):
		return fmt.Sprintf("has %d bytes, and %s are asked for", v.CapacityBytes, wanted)
	case !sameSource(v.Source, p.command.Source):
		return "has another content source"
	case v.Path != p.command.Path && (!p.pattern || !strings.HasPrefix(v.Path, p.subdir)):
		return "has another directory"
	}
	return ""
}

func sameSource(a, b *admin.Source) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// volumeContext returns the PersistentVolume's attributes.
func (p plan) volumeContext(path string) map[string]string {
	attributes := maps.Clone(p.attributes)
	attributes[subPathParameter] = strings.TrimPrefix(path, p.subdir)
	return attributes
}
