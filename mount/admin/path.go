package admin

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	maxID        = 128 // bytes; CSI's own limit for names
	maxComponent = 255
	maxPath      = 1024 // bytes; a volume's attributes in Kubernetes have 4 KiB in all
)

// CheckID tells whether a volume's or snapshot's ID is one: 1 to 128 ASCII letters, digits, dashes, underscores and dots, the
// first a letter or digit. Such an ID is the name of a file as it stands. The error is ErrInvalid.
func CheckID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("%w: an ID has 1 to %d characters, this one has %d", ErrInvalid, maxID, len(id))
	}
	for i := range len(id) {
		c := id[i]
		if c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			continue
		}
		if i == 0 || c != '-' && c != '_' && c != '.' {
			return fmt.Errorf("%w: ID %q: only letters, digits, dashes, underscores and dots, beginning with a letter or digit", ErrInvalid, id)
		}
	}
	return nil
}

// CleanPath checks a volume's path and returns it without its leading and trailing slash. What would lead elsewhere or into
// Reserved is refused and never corrected: parts of a path may have been written by a tenant, and an empty part is most
// likely a label that somebody forgot to set. The error is ErrInvalid.
func CleanPath(path string) (string, error) {
	clean := strings.TrimSuffix(strings.TrimPrefix(path, "/"), "/")
	if clean == "" {
		return "", fmt.Errorf("%w: path %q is the whole file system", ErrInvalid, path)
	}
	if len(clean) > maxPath {
		return "", fmt.Errorf("%w: the path has %d bytes, the limit is %d", ErrInvalid, len(clean), maxPath)
	}
	if !utf8.ValidString(clean) || strings.ContainsFunc(clean, unicode.IsControl) {
		return "", fmt.Errorf("%w: path %q holds control characters or is not UTF-8", ErrInvalid, path)
	}
	for i, part := range strings.Split(clean, "/") {
		switch {
		case part == "":
			return "", fmt.Errorf("%w: path %q has an empty part", ErrInvalid, path)
		case part == "." || part == "..":
			return "", fmt.Errorf("%w: path %q has the part %q", ErrInvalid, path, part)
		case len(part) > maxComponent:
			return "", fmt.Errorf("%w: path %q has a part of %d bytes, the limit is %d", ErrInvalid, path, len(part), maxComponent)
		case i == 0 && part == Reserved:
			return "", fmt.Errorf("%w: path %q lies in %s, which is reserved", ErrInvalid, path, Reserved)
		}
	}
	return clean, nil
}
