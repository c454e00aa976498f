package csi

import (
	"context"
	"errors"
	"fmt"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/csi/mountpod"
	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/mountpoint"
	"github.com/sidemount/sidemount/sidecar"
)

// PodSessions keeps the sessions of pods that bring their own sidecars. *podsession.Keeper is one.
type PodSessions interface {
	ID(pod types.UID, volume string) mount.SessionID
	Open(ctx context.Context, id mount.SessionID, m sidecar.Mount, pod runtime.Object) (path string, err error)
	Await(ctx context.Context, id mount.SessionID) error
	Close(ctx context.Context, id mount.SessionID) error
	SocketDir(id mount.SessionID) string
}

// Sidecars lets pods bring sidecars of their own.
type Sidecars struct {
	// Driver is this driver's name.
	Driver string
	// Sessions keeps the sessions.
	Sessions PodSessions
	// AgentDir has the agent's program, which the sidecars are shown.
	AgentDir string
	// Pods reads the pods of this node.
	Pods interface {
		Pod(ctx context.Context, namespace, name string) (*corev1.Pod, error)
	}
	// Volumes tells what the sidecars of a pod must look like.
	Volumes interface {
		OutlineVolumes(ctx context.Context, pod *corev1.Pod, names []string) ([]sidecar.Mount, error)
	}
}

// hands tells whether a request is for what a sidecar needs of this node.
func (p publication) hands() bool {
	return p.inline && (p.attributes[sidecar.SessionAttribute] != "" || p.attributes[sidecar.AgentAttribute] != "")
}

// hand shows a sidecar the agent, or the socket of its session. What is shown once stays.
func (n *Node) hand(ctx context.Context, p publication) error {
	s := n.options.Sidecars
	if s == nil {
		return status.Error(codes.FailedPrecondition, "this node hands no sessions to sidecars; start the driver with --sidecars, or do not label the pod or its namespace with sidemount.io/injection=node")
	}
	if b, err := n.mounted(p.target); err != nil || b != nil {
		return err
	}
	dir := s.AgentDir
	if volume := p.attributes[sidecar.SessionAttribute]; volume != "" {
		own, err := n.ownSidecar(ctx, p, func(m sidecar.Mount) bool { return m.Volume.Name == volume })
		if err != nil {
			return err
		}
		if own == nil {
			return status.Errorf(codes.PermissionDenied, "Pod %s has no volume %q with a sidecar of its own", p.pod, volume)
		}
		id := s.Sessions.ID(p.target.pod, kubeletName(*own))
		if err := s.Sessions.Await(ctx, id); err != nil {
			return err
		}
		dir = s.Sessions.SocketDir(id)
	}
	return n.show(p.target, dir)
}

// kubeletName is what the kubelet calls a pod's volume.
func kubeletName(m sidecar.Mount) string {
	if m.PersistentVolume != "" {
		return m.PersistentVolume
	}
	return m.Volume.Name
}

// show binds a directory of the driver at a target, read-only.
func (n *Node) show(t target, path string) error {
	source, err := openDir(path)
	if err != nil {
		return err
	}
	defer source.Close()
	dir, made, err := n.pods.make(t)
	if err != nil {
		return err
	}
	defer dir.Close()
	n.step(stepMade)
	if err := mountpoint.BindAt(source, dir, true); err != nil {
		if made {
			_, undo := n.pods.remove(t)
			err = errors.Join(err, undo)
		}
		return fmt.Errorf("show %s at %s: %w", path, t.path, err)
	}
	return nil
}

// ownSidecar returns the volume that a sidecar in the pod serves, nil if none does. The pod is looked at as the API server has it: a session goes to
// nobody but a sidecar that is what injection makes, since it comes with the volume's Secret.
func (n *Node) ownSidecar(ctx context.Context, p publication, wanted func(sidecar.Mount) bool) (*sidecar.Mount, error) {
	s := n.options.Sidecars
	if s == nil || p.pod.Name == "" || p.target.volume == "" {
		return nil, nil
	}
	object := "Pod " + p.pod.String()
	pod, err := s.Pods.Pod(ctx, p.pod.Namespace, p.pod.Name)
	switch {
	case apierrors.IsNotFound(err):
		return nil, status.Errorf(codes.Unavailable, "%s is not there any more", object)
	case err != nil:
		return nil, sidecar.Unread(object, err)
	case pod.Annotations[corev1.MirrorPodAnnotationKey] != "":
		return nil, nil // nobody injects a static pod
	case pod.UID != p.target.pod || pod.UID != p.podUID:
		return nil, status.Errorf(codes.Unavailable, "%s is another one than that of the target path", object)
	}
	names := sidecar.HandedVolumes(pod, s.Driver)
	if len(names) == 0 {
		return nil, nil
	}
	mounts, err := s.Volumes.OutlineVolumes(ctx, pod, names)
	if err != nil {
		return nil, err
	}
	for _, m := range mounts {
		if !wanted(m) {
			continue
		}
		if err := sidecar.AuditHanded(pod, m, s.Driver); err != nil {
			return nil, status.Errorf(codes.PermissionDenied, "%s: %v", object, err)
		}
		return &m, nil
	}
	return nil, nil
}

// openSession opens the session of a pod with its own sidecar. It is bound before anybody serves it: the sidecar starts after the pod's volumes are
// published, and the application after the sidecar.
func (n *Node) openSession(ctx context.Context, p publication, source sidecar.Source, own sidecar.Mount) error {
	s := n.options.Sidecars
	source.Name, source.MountPod = own.Volume.Name, false
	described, err := n.options.Volumes.Describe(source)
	if err != nil {
		return err
	}
	n.warn(p, described.Warnings)
	id := s.Sessions.ID(p.target.pod, p.target.volume)
	path, err := s.Sessions.Open(ctx, id, described, p.podReference())
	if err != nil {
		return err
	}
	n.step(stepAcquired)
	return n.bind(p, mountpod.Share{Session: id, Path: path})
}

// ownSession is the session of a target if its pod has one of its own there.
func (n *Node) ownSession(t target) (mount.SessionID, bool) {
	if n.options.Sidecars == nil || t.volume == "" {
		return "", false
	}
	id := n.options.Sidecars.Sessions.ID(t.pod, t.volume)
	_, err := n.options.Sessions.Status(id)
	return id, err == nil
}

// held tells whether a target's volume is held for it, by a share or by the pod's own session.
func (n *Node) held(t target) bool {
	if _, own := n.ownSession(t); own {
		return true
	}
	_, shared := n.options.Keeper.Find(t.real)
	return shared
}

// release gives up what a target has used.
func (n *Node) release(ctx context.Context, t target) error {
	if n.options.Sidecars != nil && t.volume != "" {
		if err := n.options.Sidecars.Sessions.Close(ctx, n.options.Sidecars.Sessions.ID(t.pod, t.volume)); err != nil {
			return err
		}
	}
	return n.options.Keeper.Release(ctx, t.real)
}

// condition tells what is wrong with the volume of a target.
func (n *Node) condition(t target) (abnormal bool, reason, message string) {
	id, own := n.ownSession(t)
	if !own {
		abnormal, message = n.options.Keeper.Condition(t.real)
		return abnormal, "MountPodTroubled", message
	}
	now, err := n.options.Sessions.Status(id)
	switch {
	case err != nil:
		return true, "SidecarTroubled", "the mount was lost and is made again when the kubelet publishes the volume again"
	case now.Ready:
		return false, "", ""
	case now.Failure != nil:
		return true, "SidecarTroubled", "requests wait for the pod's sidecar: " + now.Failure.Error()
	}
	return true, "SidecarTroubled", "requests wait for the pod's sidecar, which is being started"
}
