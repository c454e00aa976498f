package host

import (
	"context"
	"fmt"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/sidemount/sidemount/provider"
	"github.com/sidemount/sidemount/provider/cri"
)

// ImagePresent implements provider.Images.
func (h *Host) ImagePresent(ctx context.Context, ref string) (string, bool, error) {
	name, err := cri.NormalizeImage(ref)
	if err != nil {
		return "", false, err
	}
	image, err := h.o.Runtime.ImageStatus(ctx, name)
	if err != nil || image.ID == "" {
		return "", false, err
	}
	h.remember(image)
	return image.ID, true, nil
}

// PullImage implements provider.Images. A pull secret that is missing or cannot be read is left out, as the kubelet does: the
// image may be public.
func (h *Host) PullImage(ctx context.Context, pod *corev1.Pod, ref string) (provider.PulledImage, error) {
	id, err := h.o.Runtime.PullImage(ctx, ref, h.credentials(ctx, pod, ref), nil)
	if err != nil {
		return provider.PulledImage{}, err
	}
	image, err := h.o.Runtime.ImageStatus(ctx, id)
	if err != nil || image.ID == "" {
		// It has been pulled; its size is only for the event.
		return provider.PulledImage{ID: id}, nil
	}
	h.remember(image)
	return provider.PulledImage{ID: image.ID, Size: image.Size}, nil
}

func (h *Host) credentials(ctx context.Context, pod *corev1.Pod, ref string) []cri.Auth {
	var secrets []*corev1.Secret
	for _, r := range pod.Spec.ImagePullSecrets {
		s, err := h.o.Objects.Secret(ctx, pod.Namespace, r.Name)
		if err != nil {
			if apierrors.IsNotFound(err) {
				h.o.Recorder.Eventf(pod, corev1.EventTypeWarning, "FailedToRetrieveImagePullSecret",
					"Unable to retrieve some image pull secrets (%s); attempting to pull the image may not succeed.", r.Name)
			}
			log.G(ctx).WithError(err).WithField("secret", r.Name).Warn("pull secret not read")
			continue
		}
		secrets = append(secrets, s)
	}
	ring, err := cri.ParseKeyring(secrets)
	if err != nil {
		log.G(ctx).WithError(err).Warn("pull secret not understood")
	}
	return ring.Lookup(ref)
}

func (h *Host) remember(image cri.Image) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.images[image.ID] = image
}

// image returns what the runtime knows about an image of that id.
func (h *Host) image(ctx context.Context, id string) (cri.Image, error) {
	h.mu.Lock()
	image, ok := h.images[id]
	h.mu.Unlock()
	if ok {
		return image, nil
	}
	image, err := h.o.Runtime.ImageStatus(ctx, id)
	if err != nil {
		return cri.Image{}, err
	}
	if image.ID == "" {
		return cri.Image{}, fmt.Errorf("image %s: %w", id, cri.ErrNotFound)
	}
	h.remember(image)
	return image, nil
}
