package sidecar

import (
	"slices"
	"strings"

	"github.com/sidemount/sidemount/mount"
)

// configPath is the passthrough client's key for its directory (mount.Volume.Config).
const configPath = "path"

// Source is a volume as Kubernetes describes it, before it is understood. The resolver fills it from API objects, the CSI
// driver from a NodePublishVolume request.
type Source struct {
	// Name is the volume's name in the pod.
	Name string
	// Handle is the CSI volume handle.
	Handle string
	// Claim and PersistentVolume are the names of the objects that it comes from, as far as there are any.
	Claim, PersistentVolume string
	// Object is what errors about attributes and options blame: kind and name.
	Object string
	// AttributesField and MountOptionsField are the paths of these fields in Object.
	AttributesField, MountOptionsField string
	// Attributes are the CSI volume attributes.
	Attributes map[string]string
	// MountOptions are the PersistentVolume's; they win over the attribute "mountOptions".
	MountOptions []string
	// ReadOnly forbids writes.
	ReadOnly bool
	// Alone means that one pod at a time may use the volume.
	Alone bool
	// Annotations are those of the claim, and AnnotationsObject is what errors about them blame.
	Annotations       map[string]string
	AnnotationsObject string
	// Secret is the content of the volume's Secret, and SecretObject is what errors about it blame.
	Secret       map[string]string
	SecretObject string
	// MountPod means that a Mount Pod will serve the volume and not a sidecar: it can have volumes of its own.
	MountPod bool
	// Outline leaves the Secret out: what it describes is a sidecar's outside.
	Outline bool
	// Wish is what the PersistentVolume's annotations ask for; it is in Attributes and MountOptions already.
	Wish string
	// Tenant means that the attributes were written by the pod's author and not by an administrator.
	Tenant bool
}

// Describe understands a volume. It is pure; the error is an *Error.
func (r *Resolver) Describe(s Source) (Mount, error) {
	kind, err := s.client()
	if err != nil {
		return Mount{}, err
	}
	if err := s.known(); err != nil {
		return Mount{}, err
	}
	m, err := s.common(r.images[kind])
	if err != nil {
		return Mount{}, err
	}
	m.Volume.Client = kind
	m.Argv = slices.Clone(Clients[kind].Argv)
	options, err := s.options()
	if err != nil {
		return Mount{}, err
	}
	options, readOnly := options.takeReadOnly()
	m.Volume.ReadOnly = s.ReadOnly || readOnly
	if kind == mount.Passthrough {
		return s.passthrough(m, options)
	}
	return s.juicefs(m, options)
}

// common reads what does not depend on the client.
func (s Source) common(image string) (m Mount, err error) {
	m = Mount{
		Volume:           mount.Volume{ID: mount.VolumeID(s.Handle), Name: s.Name},
		Claim:            s.Claim,
		PersistentVolume: s.PersistentVolume,
		Alone:            s.Alone,
		Wish:             s.Wish,
		Warnings:         s.annotationWarnings(),
	}
	var warning string
	if m.Image, warning, err = s.clientImage(image); err != nil {
		return Mount{}, err
	}
	if warning != "" {
		m.Warnings = append(m.Warnings, warning)
	}
	if m.UID, m.GID, err = s.identity(); err != nil {
		return Mount{}, err
	}
	if m.Resources, err = s.resources(); err != nil {
		return Mount{}, err
	}
	if m.Pod, err = s.podSettings(); err != nil {
		return Mount{}, err
	}
	if m.HostPaths, err = s.hostPaths(); err != nil {
		return Mount{}, err
	}
	return m, nil
}

// juicefs completes a volume that the JuiceFS engine serves.
func (s Source) juicefs(m Mount, options mountOptions) (Mount, error) {
	if text := s.Attributes[attrPath]; text != "" {
		return Mount{}, s.bad(attrPath, "names a directory of the host for client "+string(mount.JuiceFS),
			"set "+attrClient+": "+string(mount.Passthrough)+", or remove "+attrPath)
	}
	options, err := s.subdirectory(options)
	if err != nil {
		return Mount{}, err
	}
	if options, m.Caches, err = s.caches(options, m.HostPaths); err != nil {
		return Mount{}, err
	}
	if err := s.bufferFits(options, m.Resources); err != nil {
		return Mount{}, err
	}
	m.Volume.Options = options
	m.Warnings = append(m.Warnings, s.cacheWarnings(m.HostPaths, options)...)
	if s.Outline {
		return m, nil
	}
	secret, warnings, err := juicefsSecret(s.SecretObject, s.Secret, m.HostPaths)
	if err != nil {
		return Mount{}, err
	}
	m.Volume.Secret = secret
	m.Warnings = append(m.Warnings, warnings...)
	return m, nil
}

// passthrough completes a volume that is a directory of the host.
func (s Source) passthrough(m Mount, options mountOptions) (Mount, error) {
	text := s.Attributes[attrPath]
	if text == "" {
		return Mount{}, s.bad(attrPath, "names no directory for client "+string(mount.Passthrough), "set "+attrPath+" to an absolute path of the host")
	}
	if strings.Contains(text, ",") {
		return Mount{}, s.bad(attrPath, "has a directory with a comma in its path", "name one directory")
	}
	dir, problem := hostDir(text)
	if problem != "" {
		return Mount{}, s.bad(attrPath, "has a directory that "+problem, "write an absolute path of the host")
	}
	for _, key := range []string{attrSubPath, attrCacheEmptyDir, attrCachePVC, attrCacheInline} {
		if _, ok := s.Attributes[key]; ok {
			return Mount{}, s.bad(key, "sets "+key+", which client "+string(mount.Passthrough)+" does not know", "remove it")
		}
	}
	if !slices.Contains(m.HostPaths, dir) {
		m.HostPaths = append(m.HostPaths, dir)
	}
	m.Volume.Config = map[string]string{configPath: dir}
	m.Volume.Options = options
	return m, nil
}
