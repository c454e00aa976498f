package cri

import (
	"fmt"
	"regexp"
	"strings"
)

const (
	defaultRegistry = "docker.io"
	defaultTag      = "latest"
	// maxRepository is how long a registry and path may be together.
	maxRepository = 255
)

// The grammar of image names is that of the OCI distribution specification and its reference implementation:
// [domain/]path[:tag][@digest].
var (
	domainForm = regexp.MustCompile(`^(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*|\[[a-fA-F0-9:]+\])(?::[0-9]+)?$`)
	pathForm   = regexp.MustCompile(`^[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*$`)
	tagForm    = regexp.MustCompile(`^[\w][\w.-]{0,127}$`)
	digestForm = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}$`)
	hexIDForm  = regexp.MustCompile(`^[a-f0-9]{64}$`)
	digestSize = map[string]int{"sha256": 64, "sha384": 96, "sha512": 128}
)

// Reference is an image name taken apart and completed: "busybox" is docker.io, library/busybox, latest.
type Reference struct {
	// Registry is a host with an optional port.
	Registry string
	// Path is the repository within the registry.
	Path string
	// Tag is "latest" if the name has neither tag nor digest.
	Tag string
	// Digest is "" if the name has none, otherwise "sha256:…".
	Digest string
}

// ParseImage takes an image name apart. The error matches ErrInvalidImageName.
func ParseImage(name string) (Reference, error) {
	invalid := func(why string) (Reference, error) {
		return Reference{}, &refusal{kind: ErrInvalidImageName, text: fmt.Sprintf("couldn't parse image name %q: invalid reference format: %s", name, why)}
	}
	if name == "" {
		return invalid("it is empty")
	}
	if hexIDForm.MatchString(name) {
		return invalid("64 hexadecimal digits are an id, not a name")
	}
	rest, digest, hasDigest := strings.Cut(name, "@")
	if hasDigest && !validDigest(digest) {
		return invalid("invalid digest")
	}
	domain, remainder := splitDomain(rest)
	path, tag, hasTag := strings.Cut(remainder, ":")
	if hasTag && !tagForm.MatchString(tag) {
		return invalid("invalid tag")
	}
	if !hasTag && !hasDigest {
		tag = defaultTag
	}
	switch {
	case !domainForm.MatchString(domain):
		return invalid("invalid registry")
	case strings.ToLower(path) != path:
		return invalid("repository name must be lowercase")
	case !pathForm.MatchString(path):
		return invalid("invalid repository name")
	case len(domain)+1+len(path) > maxRepository:
		return invalid("repository name is too long")
	}
	return Reference{Registry: domain, Path: path, Tag: tag, Digest: digest}, nil
}

// splitDomain decides whether the first part is a registry: it is if it looks like a host, and an account or an official image
// of Docker Hub otherwise.
func splitDomain(name string) (domain, remainder string) {
	first, rest, found := strings.Cut(name, "/")
	if !found || (!strings.ContainsAny(first, ".:") && first != "localhost" && strings.ToLower(first) == first) {
		domain, remainder = defaultRegistry, name
	} else {
		domain, remainder = first, rest
	}
	if domain == "index."+defaultRegistry {
		domain = defaultRegistry
	}
	if domain == defaultRegistry && !strings.Contains(remainder, "/") {
		remainder = "library/" + remainder
	}
	return domain, remainder
}

// validDigest also checks the length where the algorithm is known.
func validDigest(d string) bool {
	if !digestForm.MatchString(d) {
		return false
	}
	algorithm, hex, _ := strings.Cut(d, ":")
	size, known := digestSize[algorithm]
	return !known || (len(hex) == size && strings.ToLower(hex) == hex)
}

// Repository returns registry and path.
func (r Reference) Repository() string {
	return r.Registry + "/" + r.Path
}

// String returns the complete name.
func (r Reference) String() string {
	s := r.Repository()
	if r.Tag != "" {
		s += ":" + r.Tag
	}
	if r.Digest != "" {
		s += "@" + r.Digest
	}
	return s
}

// NormalizeImage returns name with the default tag if it has neither tag nor digest. It leaves the registry alone, because the
// runtime may be configured to look for short names elsewhere. The error matches ErrInvalidImageName.
func NormalizeImage(name string) (string, error) {
	ref, err := ParseImage(name)
	if err != nil {
		return "", err
	}
	if ref.Digest == "" && !strings.HasSuffix(name, ":"+ref.Tag) {
		return name + ":" + ref.Tag, nil
	}
	return name, nil
}
