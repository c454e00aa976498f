package image

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"runtime"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
)

// Spec describes an image.
type Spec struct {
	// Names are references with tags; the image carries all of them.
	Names      []string
	Layer      Layer
	Entrypoint []string
	Cmd        []string
	// User is "uid[:gid]" or a name from the image's /etc/passwd.
	User       string
	Env        []string
	WorkingDir string
}

// Build writes the image to a tar archive in the format of `docker save`.
func Build(s Spec, to string) (err error) {
	img, err := s.image()
	if err != nil {
		return err
	}
	images := map[name.Tag]v1.Image{}
	for _, n := range s.Names {
		tag, err := name.NewTag(n)
		if err != nil {
			return fmt.Errorf("read image name: %w", err)
		}
		images[tag] = img
	}
	if len(images) == 0 {
		return fmt.Errorf("image has no name")
	}
	part := to + ".part" // a reader never sees half an archive
	defer func() {
		if err != nil {
			os.Remove(part)
		}
	}()
	if err := tarball.MultiWriteToFile(part, images); err != nil {
		return fmt.Errorf("write image archive: %w", err)
	}
	return os.Rename(part, to)
}

func (s Spec) image() (v1.Image, error) {
	content, err := s.Layer.tar()
	if err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content)), nil
	})
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, layer)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: s.Entrypoint,
		Cmd:        s.Cmd,
		User:       s.User,
		Env:        append([]string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}, s.Env...),
		WorkingDir: s.WorkingDir,
	}
	return mutate.ConfigFile(img, config)
}
