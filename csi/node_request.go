package csi

import (
	"context"
	"slices"
	"strings"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// Keys of the volume context that the kubelet adds when the CSIDriver has podInfoOnMount
// (https://kubernetes-csi.github.io/docs/pod-info.html).
const (
	kubeletPrefix = "csi.storage.k8s.io/"
	keyPodName    = kubeletPrefix + "pod.name"
	keyNamespace  = kubeletPrefix + "pod.namespace"
	keyPodUID     = kubeletPrefix + "pod.uid"
	keyEphemeral  = kubeletPrefix + "ephemeral"
)

// modes are the access modes that a file system has, with what they mean for one target.
var modes = map[spec.VolumeCapability_AccessMode_Mode]struct{ readOnly, alone bool }{
	spec.VolumeCapability_AccessMode_SINGLE_NODE_WRITER:        {},
	spec.VolumeCapability_AccessMode_SINGLE_NODE_READER_ONLY:   {readOnly: true},
	spec.VolumeCapability_AccessMode_MULTI_NODE_READER_ONLY:    {readOnly: true},
	spec.VolumeCapability_AccessMode_MULTI_NODE_SINGLE_WRITER:  {},
	spec.VolumeCapability_AccessMode_MULTI_NODE_MULTI_WRITER:   {},
	spec.VolumeCapability_AccessMode_SINGLE_NODE_SINGLE_WRITER: {alone: true},
	spec.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER:  {},
}

// publication is a publish request that has been checked.
type publication struct {
	volume mount.VolumeID
	target target
	// readOnly is about this target; the others of the volume may be writable.
	readOnly bool
	// alone means that the volume may have no other target on the node.
	alone bool
	// inline means that the pod itself describes the volume, and known that the kubelet has said whether it does.
	inline, known bool
	pod           types.NamespacedName
	podUID        types.UID
	attributes    map[string]string
	flags         []string
	secrets       map[string]string
	digest        fingerprint
}

// publication checks a request.
func (n *Node) publication(r *spec.NodePublishVolumeRequest) (publication, error) {
	if err := checkVolumeID(r.GetVolumeId()); err != nil {
		return publication{}, err
	}
	t, err := n.pods.target(r.GetTargetPath())
	if err != nil {
		return publication{}, err
	}
	capability := r.GetVolumeCapability()
	mode, ok := modes[capability.GetAccessMode().GetMode()]
	switch {
	case capability == nil:
		return publication{}, status.Error(codes.InvalidArgument, "volume capability is missing")
	case capability.GetBlock() != nil:
		return publication{}, status.Error(codes.InvalidArgument, "a raw block device was asked for, and a FUSE volume is a file system; use volumeMode: Filesystem")
	case capability.GetMount() == nil:
		return publication{}, status.Error(codes.InvalidArgument, "volume capability has no access type")
	case !ok:
		return publication{}, status.Errorf(codes.InvalidArgument, "access mode %s is not supported", capability.GetAccessMode().GetMode())
	}
	c := r.GetVolumeContext()
	_, known := c[keyEphemeral]
	p := publication{
		volume:     mount.VolumeID(r.GetVolumeId()),
		target:     t,
		readOnly:   r.GetReadonly() || mode.readOnly,
		alone:      mode.alone,
		inline:     c[keyEphemeral] == "true",
		known:      known,
		pod:        types.NamespacedName{Namespace: c[keyNamespace], Name: c[keyPodName]},
		podUID:     types.UID(c[keyPodUID]),
		attributes: make(map[string]string, len(c)),
		flags:      capability.GetMount().GetMountFlags(),
		secrets:    r.GetSecrets(),
		digest:     digestOf(r),
	}
	for k, v := range c {
		if !strings.HasPrefix(k, kubeletPrefix) {
			p.attributes[k] = v
		}
	}
	return p, nil
}

// maxVolumeID is the longest volume id in bytes (CSI specification, "Size Limits").
const maxVolumeID = 128

func checkVolumeID(id string) error {
	switch {
	case strings.TrimSpace(id) == "":
		return status.Error(codes.InvalidArgument, "volume id is empty")
	case len(id) > maxVolumeID:
		return status.Errorf(codes.InvalidArgument, "volume id has %d bytes, more than %d", len(id), maxVolumeID)
	case strings.ContainsFunc(id, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return status.Error(codes.InvalidArgument, "volume id has a line break or another control character in it")
	}
	return nil
}

// source describes the volume of a publication for those who understand it.
func (n *Node) source(ctx context.Context, p publication) (sidecar.Source, error) {
	s := sidecar.Source{
		Name:              p.target.volume,
		Handle:            string(p.volume),
		Object:            "volume " + string(p.volume),
		AttributesField:   "volume context",
		MountOptionsField: "mount flags",
		Attributes:        p.attributes,
		MountOptions:      slices.Clone(p.flags),
		Secret:            p.secrets,
		SecretObject:      "the Secret of volume " + string(p.volume),
		// Without the kubelet's word nobody tells who wrote the attributes.
		Tenant:   p.inline || !p.known,
		MountPod: true,
	}
	if s.Name == "" {
		s.Name = s.Handle
	}
	switch {
	case p.inline:
		s.Object = "Pod " + p.pod.String()
		s.AttributesField = "spec.volumes[" + s.Name + "].csi.volumeAttributes"
		s.SecretObject = "the Secret of volume " + s.Name + " of " + s.Object
	case p.target.volume != "":
		if err := n.lookUp(ctx, p, &s); err != nil {
			return s, err
		}
	}
	return s, secretGiven(s, p)
}

// lookUp reads what the request does not tell: the annotations of PersistentVolume and claim, and the Secret's name for error messages. The
// kubelet's path names the PersistentVolume, and that names the claim, so that two objects are read and nothing is listed.
func (n *Node) lookUp(ctx context.Context, p publication, s *sidecar.Source) error {
	s.PersistentVolume = p.target.volume
	s.Object = "PersistentVolume " + p.target.volume
	s.AttributesField, s.MountOptionsField = "spec.csi.volumeAttributes", "spec.mountOptions"
	pv, err := n.options.Objects.PersistentVolume(ctx, p.target.volume)
	if apierrors.IsNotFound(err) {
		return nil // it was deleted while its pod lives, and the request still says what it was
	}
	if err != nil {
		return sidecar.Unread(s.Object, err)
	}
	if pv.Spec.CSI == nil || pv.Spec.CSI.VolumeHandle != string(p.volume) {
		return nil
	}
	claim, err := n.claimOf(ctx, pv)
	if err != nil {
		return err
	}
	s.Fill(pv, claim)
	return nil
}

// claimOf reads the claim of a PersistentVolume, nil if it is not there.
func (n *Node) claimOf(ctx context.Context, pv *corev1.PersistentVolume) (*corev1.PersistentVolumeClaim, error) {
	ref := pv.Spec.ClaimRef
	if ref == nil {
		return nil, nil
	}
	claim, err := n.options.Objects.PersistentVolumeClaim(ctx, ref.Namespace, ref.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, nil
	case err != nil:
		return nil, sidecar.Unread("PersistentVolumeClaim "+ref.Namespace+"/"+ref.Name, err)
	case ref.UID != "" && claim.UID != "" && ref.UID != claim.UID:
		return nil, nil // a later claim of the same name
	}
	return claim, nil
}

// secretGiven refuses a volume without the Secret that its client needs, in other words than those for a Secret that is empty.
func secretGiven(s sidecar.Source, p publication) error {
	kind := mount.ClientKind(s.Attributes["sidemount.io/client"])
	if kind == "" {
		kind = mount.JuiceFS
	}
	if len(s.Secret) > 0 || !sidecar.Clients[kind].Secret {
		return nil
	}
	e := &sidecar.Error{
		Reason: sidecar.ReasonSecretNotFound, Object: s.Object, Field: "spec.csi.nodePublishSecretRef",
		Message: "comes without a Secret, and a " + string(kind) + " volume cannot be mounted without one",
		Cure: "name a Secret with the volume's credentials there, and see that it is not empty; in a StorageClass set " +
			"csi.storage.k8s.io/node-publish-secret-name and -namespace",
	}
	if p.inline {
		e.Field, e.Cure = "spec.volumes["+s.Name+"].csi.nodePublishSecretRef", "name a Secret of namespace "+p.pod.Namespace+" there"
	}
	return e
}

// podReference names a pod for an event.
func (p publication) podReference() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Pod", Namespace: p.pod.Namespace, Name: p.pod.Name, UID: p.podUID}
}
