package mountpod

import (
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// Request asks for a share on behalf of one target.
type Request struct {
	// Mount is the volume as sidecar.Resolver.Describe understands it, with Source.MountPod set. That one publish is read-only is the bind's
	// affair: Mount.Volume.ReadOnly is to be set only if the volume is read-only for everybody, and makes another share.
	Mount sidecar.Mount
	// Target is where the caller will bind the share, a clean absolute path. It names the reference.
	Target string
	// Pod and PodUID are the pod that uses the target; events go there.
	Pod    types.NamespacedName
	PodUID types.UID
}

// Share is what a target is to be bound to.
type Share struct {
	// Session is the FUSE session.
	Session mount.SessionID
	// Path is the directory to bind, the mount point of the session.
	Path string
	// Generation is 1 for the first mount at Path and rises with every new one; a bind of an earlier generation is dead.
	Generation int
	// Pod is the Mount Pod's name.
	Pod string
}
