package provider

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
)

// imageCache makes images available as the pull policy of a container says. It asks the runtime about an image once, pulls the
// same image for the same credentials once at a time, and pulls a bounded number at a time.
type imageCache struct {
	images Images
	slots  chan struct{}

	// mu guards present and pulls.
	mu sync.Mutex
	// present has the ids of images by reference. It may be wrong about an image that somebody removed; drop mends that.
	present map[string]string
	pulls   map[string]*pull
}

// pull is a pull that is under way; all fields but done are valid once done is closed.
type pull struct {
	done    chan struct{}
	image   PulledImage
	err     error
	waiting time.Duration
	took    time.Duration
}

func newImageCache(images Images, parallel int) *imageCache {
	return &imageCache{
		images: images, slots: make(chan struct{}, parallel),
		present: make(map[string]string), pulls: make(map[string]*pull),
	}
}

// ensure returns the id of the container's image, pulled if need be. Its errors are *reasonedError with a kubelet's reason.
func (i *imageCache) ensure(ctx context.Context, pod *corev1.Pod, c *corev1.Container, events *podEvents) (string, error) {
	say := func(kind, reason, format string, args ...any) {
		events.container(pod, c.Name, kind, reason, format, args...)
	}
	id, err := i.provide(ctx, pod, c, say)
	if err != nil && ctx.Err() == nil {
		reason, _ := reasonOf(err, cri.ErrImagePull.Error())
		say(corev1.EventTypeWarning, eventFailed, "Error: %s", reason)
	}
	return id, err
}

func (i *imageCache) provide(ctx context.Context, pod *corev1.Pod, c *corev1.Container, say func(kind, reason, format string, args ...any)) (string, error) {
	id, err := i.lookUp(ctx, c.Image)
	if err != nil {
		say(corev1.EventTypeWarning, eventInspectFailed, "Failed to inspect image %q: %v", c.Image, cri.Message(err))
		return "", &reasonedError{cri.ImageReason(err), cri.Message(err)}
	}
	switch policy := pullPolicy(c); {
	case id != "" && policy != corev1.PullAlways:
		say(corev1.EventTypeNormal, eventPulled, "Container image %q already present on machine and can be accessed by the pod", c.Image)
		return id, nil
	case policy == corev1.PullNever:
		message := fmt.Sprintf("Container image %q is not present with pull policy of Never", c.Image)
		say(corev1.EventTypeWarning, eventNeverPull, "%s", message)
		return "", &reasonedError{cri.ErrImageNeverPull.Error(), message}
	}
	say(corev1.EventTypeNormal, eventPulling, "Pulling image %q", c.Image)
	p, err := i.join(ctx, pod, c.Image)
	if err != nil {
		return "", err
	}
	if p.err != nil {
		say(corev1.EventTypeWarning, eventFailed, "Failed to pull image %q: %v", c.Image, cri.Message(p.err))
		return "", &reasonedError{cri.ImageReason(p.err), cri.Message(p.err)}
	}
	say(corev1.EventTypeNormal, eventPulled, "Successfully pulled image %q in %v (%v including waiting). Image size: %v bytes.",
		c.Image, p.took.Truncate(time.Millisecond), (p.took + p.waiting).Truncate(time.Millisecond), p.image.Size)
	return p.image.ID, nil
}

// lookUp returns the id of an image that the runtime has, "" for one that it does not have.
func (i *imageCache) lookUp(ctx context.Context, ref string) (string, error) {
	i.mu.Lock()
	id := i.present[ref]
	i.mu.Unlock()
	if id != "" {
		return id, nil
	}
	id, present, err := i.images.ImagePresent(ctx, ref)
	if err != nil || !present {
		return "", err
	}
	i.mu.Lock()
	i.present[ref] = id
	i.mu.Unlock()
	return id, nil
}

// drop forgets an image, because creating a container from it has failed.
func (i *imageCache) drop(ref string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	delete(i.present, ref)
}

// join waits for a pull of the image with the pod's credentials, and begins one if none is under way. When the pod that pulls is
// deleted in the middle of it, one of those that wait pulls instead.
func (i *imageCache) join(ctx context.Context, pod *corev1.Pod, ref string) (*pull, error) {
	for {
		p, first := i.enter(pod, ref)
		if first {
			i.perform(ctx, p, pod, ref)
			return p, ctx.Err()
		}
		select {
		case <-p.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if p.err == nil || !isCancelled(p.err) {
			return p, nil
		}
	}
}

func (i *imageCache) enter(pod *corev1.Pod, ref string) (*pull, bool) {
	key := pullKey(pod, ref)
	i.mu.Lock()
	defer i.mu.Unlock()
	if p := i.pulls[key]; p != nil {
		return p, false
	}
	p := &pull{done: make(chan struct{})}
	i.pulls[key] = p
	return p, true
}

func (i *imageCache) perform(ctx context.Context, p *pull, pod *corev1.Pod, ref string) {
	defer func() {
		i.mu.Lock()
		delete(i.pulls, pullKey(pod, ref))
		if p.err == nil {
			i.present[ref] = p.image.ID
		}
		i.mu.Unlock()
		close(p.done)
	}()
	began := time.Now()
	select {
	case i.slots <- struct{}{}:
		defer func() { <-i.slots }()
	case <-ctx.Done():
		p.err = ctx.Err()
		return
	}
	p.waiting = time.Since(began)
	p.image, p.err = i.images.PullImage(ctx, pod, ref)
	p.took = time.Since(began) - p.waiting
	if ctx.Err() != nil {
		p.err = ctx.Err()
	}
}

// pullKey is equal for pulls that may share their result: the same image with the same credentials.
func pullKey(pod *corev1.Pod, ref string) string {
	secrets := make([]string, 0, len(pod.Spec.ImagePullSecrets))
	for _, s := range pod.Spec.ImagePullSecrets {
		secrets = append(secrets, s.Name)
	}
	slices.Sort(secrets)
	return strings.Join(append([]string{ref, pod.Namespace, pod.Spec.ServiceAccountName}, secrets...), "\x00")
}

// pullPolicy returns the container's policy; the API server's default is Always for an image without a tag or tagged latest.
func pullPolicy(c *corev1.Container) corev1.PullPolicy {
	if c.ImagePullPolicy != "" {
		return c.ImagePullPolicy
	}
	name := c.Image[strings.LastIndex(c.Image, "/")+1:]
	_, tag, tagged := strings.Cut(name, ":")
	if !strings.Contains(name, "@") && (!tagged || tag == "latest") {
		return corev1.PullAlways
	}
	return corev1.PullIfNotPresent
}
