package cri

import (
	"context"
	"errors"
	"fmt"
	"strings"

	runtimeapi "k8s.io/cri-api/pkg/apis/runtime/v1"
)

// Auth is a credential for a registry. It prints without its secrets.
type Auth struct {
	Username      string
	Password      string
	Auth          string
	ServerAddress string
	IdentityToken string
	RegistryToken string
}

// Format implements fmt.Formatter: no verb prints a secret.
func (a Auth) Format(f fmt.State, _ rune) {
	fmt.Fprint(f, "[registry credential]")
}

// ImageStatus returns what the runtime knows about an image, by name or id; the zero Image if it does not have it. Errors match
// ErrImageInspect.
func (r *Runtime) ImageStatus(ctx context.Context, ref string) (Image, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.images.ImageStatus(ctx, &runtimeapi.ImageStatusRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	if err != nil {
		return Image{}, fmt.Errorf("%w: %w", ErrImageInspect, wrap(err, "inspect image %q", ref))
	}
	if resp.Image == nil {
		return Image{}, nil
	}
	return fromImage(resp.Image), nil
}

// Images returns all images that the runtime has.
func (r *Runtime) Images(ctx context.Context) ([]Image, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.images.ListImages(ctx, &runtimeapi.ListImagesRequest{})
	if err != nil {
		return nil, wrap(err, "list images")
	}
	images := make([]Image, len(resp.Images))
	for i, img := range resp.Images {
		images[i] = fromImage(img)
	}
	return images, nil
}

// PullImage pulls an image, trying one credential after the other and none at all if there are none, and returns its id. The
// error matches ErrImagePull, ErrInvalidImageName, ErrRegistryUnavailable or ErrSignatureValidation. sandbox is the
// configuration of the sandbox that needs the image; it may be nil.
func (r *Runtime) PullImage(ctx context.Context, ref string, auths []Auth, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	full, err := NormalizeImage(ref)
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, r.opts.PullTimeout)
	defer cancel()
	if len(auths) == 0 {
		return r.pull(ctx, full, nil, sandbox)
	}
	var errs []error
	for _, a := range auths {
		id, err := r.pull(ctx, full, a.config(), sandbox)
		if err == nil {
			return id, nil
		}
		errs = append(errs, err)
	}
	return "", errors.Join(errs...)
}

func (r *Runtime) pull(ctx context.Context, ref string, auth *runtimeapi.AuthConfig, sandbox *runtimeapi.PodSandboxConfig) (string, error) {
	resp, err := r.images.PullImage(ctx, &runtimeapi.PullImageRequest{
		Image: &runtimeapi.ImageSpec{Image: ref}, Auth: auth, SandboxConfig: sandbox,
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", pullKind(err), wrap(err, "pull image %q", ref))
	}
	if resp.ImageRef == "" {
		return "", fmt.Errorf("%w: pull image %q: the runtime returned no id", ErrImagePull, ref)
	}
	return resp.ImageRef, nil
}

// pullKind knows the two errors that the interface defines by the beginning of their texts (k8s.io/cri-api/pkg/errors).
func pullKind(err error) error {
	for _, kind := range []error{ErrRegistryUnavailable, ErrSignatureValidation} {
		if strings.HasPrefix(Message(err), kind.Error()) {
			return kind
		}
	}
	return ErrImagePull
}

// RemoveImage removes an image; one that does not exist is not an error.
func (r *Runtime) RemoveImage(ctx context.Context, ref string) error {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	_, err := r.images.RemoveImage(ctx, &runtimeapi.RemoveImageRequest{Image: &runtimeapi.ImageSpec{Image: ref}})
	return ignoreMissing(wrap(err, "remove image %q", ref))
}

func (a Auth) config() *runtimeapi.AuthConfig {
	return &runtimeapi.AuthConfig{
		Username: a.Username, Password: a.Password, Auth: a.Auth,
		ServerAddress: a.ServerAddress, IdentityToken: a.IdentityToken, RegistryToken: a.RegistryToken,
	}
}

func fromImage(img *runtimeapi.Image) Image {
	out := Image{
		ID: img.Id, RepoTags: img.RepoTags, RepoDigests: img.RepoDigests, Size: img.Size,
		Username: img.Username, Pinned: img.Pinned,
	}
	if img.Uid != nil {
		out.UID = &img.Uid.Value
	}
	return out
}

// UsedImages returns the ids and names of all images that any container of the runtime was made from, whatever node it belongs to.
func (r *Runtime) UsedImages(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.client.ListContainers(ctx, &runtimeapi.ListContainersRequest{})
	if err != nil {
		return nil, wrap(err, "list containers")
	}
	used := map[string]bool{}
	for _, c := range resp.Containers {
		for _, name := range []string{c.ImageId, c.ImageRef, c.GetImage().GetImage()} {
			if name != "" {
				used[name] = true
			}
		}
	}
	return used, nil
}

// FileSystem is where the runtime keeps images or containers.
type FileSystem struct {
	Mountpoint string
	// UsedBytes and UsedInodes are what the images, or the containers, take of it.
	UsedBytes  uint64
	UsedInodes uint64
}

// ImageFileSystems returns the file systems of images and those of the containers' writable layers, which may be the same.
func (r *Runtime) ImageFileSystems(ctx context.Context) (images, containers []FileSystem, err error) {
	ctx, cancel := r.bound(ctx)
	defer cancel()
	resp, err := r.images.ImageFsInfo(ctx, &runtimeapi.ImageFsInfoRequest{})
	if err != nil {
		return nil, nil, wrap(err, "file systems of images")
	}
	return fileSystems(resp.ImageFilesystems), fileSystems(resp.ContainerFilesystems), nil
}

func fileSystems(list []*runtimeapi.FilesystemUsage) []FileSystem {
	out := make([]FileSystem, len(list))
	for i, u := range list {
		out[i] = FileSystem{
			Mountpoint: u.GetFsId().GetMountpoint(), UsedBytes: u.GetUsedBytes().GetValue(), UsedInodes: u.GetInodesUsed().GetValue(),
		}
	}
	return out
}
