package sidecar

import (
	"fmt"
	"strings"
)

// placeholder begins a template of a StorageClass, as in "cache-size=${.pvc.annotations.cache-size}".
const placeholder = "${."

// filledIn leaves out options of a PersistentVolume that still have templates. The provisioner copies them there as they are in
// the StorageClass; what they became for this volume stands in the attribute "mountOptions" (filled).
func (s Source) filledIn(filled, options mountOptions) (mountOptions, error) {
	var kept mountOptions
	for _, option := range options {
		if !strings.Contains(option, placeholder) {
			kept = append(kept, option)
			continue
		}
		key, _, _ := strings.Cut(option, "=")
		if _, ok := filled.last(key); !ok {
			return nil, &Error{Reason: ReasonAttributeInvalid, Object: s.Object, Field: s.MountOptionsField,
				Message: fmt.Sprintf("has the option %q with a template that nobody has filled in", option),
				Cure:    "write a value; templates work in StorageClasses of this driver only"}
		}
	}
	return kept, nil
}
