package image

import (
	"context"
	"fmt"
	"io"
	"os"

	"github.com/google/go-containerregistry/pkg/authn"
	"github.com/google/go-containerregistry/pkg/name"
	"github.com/google/go-containerregistry/pkg/v1/remote"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Target is a registry to push to.
type Target struct {
	// Address is host:port.
	Address string
	// Username and Password, when set, are sent.
	Username string
	Password string
}

// Push sends every image of an archive to the registry and returns the names under which it holds them.
func Push(ctx context.Context, archive string, t Target) ([]string, error) {
	opener := tarball.Opener(func() (io.ReadCloser, error) { return os.Open(archive) })
	manifest, err := tarball.LoadManifest(opener)
	if err != nil {
		return nil, fmt.Errorf("read image archive %s: %w", archive, err)
	}
	var pushed []string
	for _, d := range manifest {
		for _, ref := range d.RepoTags {
			to, err := pushOne(ctx, opener, ref, t)
			if err != nil {
				return pushed, fmt.Errorf("push %s from %s: %w", ref, archive, err)
			}
			pushed = append(pushed, to)
		}
	}
	if len(pushed) == 0 {
		return nil, fmt.Errorf("image archive %s names no image", archive)
	}
	return pushed, nil
}

func pushOne(ctx context.Context, opener tarball.Opener, ref string, t Target) (string, error) {
	stored, err := name.NewTag(ref)
	if err != nil {
		return "", err
	}
	img, err := tarball.Image(opener, &stored)
	if err != nil {
		return "", err
	}
	to, err := mirrored(ref, t.Address)
	if err != nil {
		return "", err
	}
	auth := authn.Anonymous
	if t.Username != "" {
		auth = &authn.Basic{Username: t.Username, Password: t.Password}
	}
	return to.String(), remote.Write(to, img, remote.WithAuth(auth), remote.WithContext(ctx))
}
