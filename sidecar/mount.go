package sidecar

import (
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"

	"github.com/sidemount/sidemount/mount"
)

// Mount is a volume of one pod, ready to be opened by the broker and to be served by a sidecar.
type Mount struct {
	// Volume is what the client serves. Its Secret must not get into any API object, log or argument list.
	Volume mount.Volume
	// Claim is the PersistentVolumeClaim's name in the pod's namespace; "" for an inline volume.
	Claim string
	// PersistentVolume is the PersistentVolume's name; "" for an inline volume.
	PersistentVolume string
	// Alone means that one pod at a time may use the volume: the claim's only access mode is ReadWriteOncePod (KEP-2485).
	Alone bool
	// Image is the client's container image.
	Image string
	// Argv starts the client in that image.
	Argv []string
	// Generation counts the sidecars that the volume has had in its pod; 0 is the first one.
	Generation int
	// Wish is what annotations of the PersistentVolume say about the client. When it changes, a running client is to be replaced.
	Wish string
	// Resources are the sidecar's requests and limits.
	Resources corev1.ResourceRequirements
	// HostPaths are directories of the host that the client sees at the same path, clean and absolute.
	HostPaths []string
	// Caches are scratch directories of the client. They live as long as the pod, those in a claim of their own longer.
	Caches []Cache
	// UID and GID are what the sidecar runs as; the broker accepts no other peer.
	UID, GID int64
	// Pod is what a Mount Pod that serves the volume shall look like; a sidecar has no use for it.
	Pod PodSettings
	// Warnings tell, in words for an Event, which settings are not followed.
	Warnings []string
}

// Cache is a scratch directory inside the sidecar. It is an emptyDir unless Claim or Inline is set.
type Cache struct {
	// Path is the directory in the sidecar, clean and absolute.
	Path string
	// Medium is where the data lives: "" for the node's disk, Memory for a tmpfs that counts towards the memory limit.
	Medium corev1.StorageMedium
	// SizeLimit bounds the directory; nil means no bound of its own.
	SizeLimit *resource.Quantity
	// Claim is a PersistentVolumeClaim in the namespace of Mount Pods, of Mount Pods only.
	Claim string
	// Inline is an inline CSI volume, of Mount Pods only.
	Inline *corev1.CSIVolumeSource
}

// source is the pod's volume for the cache.
func (c Cache) source() corev1.VolumeSource {
	switch {
	case c.Claim != "":
		return corev1.VolumeSource{PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: c.Claim}}
	case c.Inline != nil:
		return corev1.VolumeSource{CSI: c.Inline.DeepCopy()}
	}
	return corev1.VolumeSource{EmptyDir: &corev1.EmptyDirVolumeSource{Medium: c.Medium, SizeLimit: c.SizeLimit}}
}

// PodSettings concern a Mount Pod only: a sidecar shares the pod of the application and its identity.
type PodSettings struct {
	// Labels and Annotations are added to the Mount Pod.
	Labels, Annotations map[string]string
	// ServiceAccount is the Mount Pod's; "" means the driver's default.
	ServiceAccount string
	// DeleteDelay is how long a Mount Pod outlives its last user; 0 means not at all.
	DeleteDelay time.Duration
	// CleanCache removes the cache with the Mount Pod. A cache in an emptyDir always goes with its pod.
	CleanCache bool
}
