package image

import (
	"fmt"
	"strings"

	"github.com/google/go-containerregistry/pkg/name"
)

// mirrored is the reference under which a mirror holds an image: the host of the name gives way to the mirror's.
func mirrored(ref, mirror string) (name.Tag, error) {
	// To container runtimes "localhost/pause" names the host localhost; to this library, a repository of Docker Hub.
	if rest, ok := strings.CutPrefix(ref, "localhost/"); ok {
		return name.NewTag(mirror+"/"+rest, name.Insecure)
	}
	tag, err := name.NewTag(ref)
	if err != nil {
		return name.Tag{}, fmt.Errorf("read image name: %w", err)
	}
	return name.NewTag(mirror+"/"+tag.RepositoryStr()+":"+tag.TagStr(), name.Insecure)
}
