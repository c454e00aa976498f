package sidecar

import (
	"maps"
	"slices"
	"strings"
)

// Annotations of a PersistentVolume that say which client serves it. Unlike the rest of a PersistentVolume they can be changed while it is in use, and
// running sidecars of a virtual node follow; a Mount Pod has what they said when it was made. Only those who may write PersistentVolumes decide what code gets a volume's Secret.
const (
	// ImageAnnotation is the client's image; it wins over the volume's attributes.
	ImageAnnotation = "sidemount.io/client-image"
	// OptionsAnnotation are mount options, as in "cache-size=1024,writeback"; they win over those of the PersistentVolume.
	OptionsAnnotation = "sidemount.io/client-options"
)

// applyWish takes over what annotations of the PersistentVolume ask for.
func (s *Source) applyWish(annotations map[string]string) {
	image, options := strings.TrimSpace(annotations[ImageAnnotation]), strings.TrimSpace(annotations[OptionsAnnotation])
	if image != "" {
		s.Attributes = maps.Clone(s.Attributes)
		if s.Attributes == nil {
			s.Attributes = map[string]string{}
		}
		s.Attributes[attrImage] = image
	}
	if options != "" {
		s.MountOptions = append(slices.Clone(s.MountOptions), options)
		s.MountOptionsField += " or metadata.annotations[" + OptionsAnnotation + "]"
	}
	if image != "" || options != "" {
		s.Wish = "image=" + image + " options=" + options
	}
}
