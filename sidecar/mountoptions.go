package sidecar

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

const (
	optSubdir     = "subdir"
	optCacheDir   = "cache-dir"
	optCacheSize  = "cache-size"
	optBufferSize = "buffer-size"
)

// mountOptions are options in the client's spelling, "key" or "key=value", in the order of their weight.
type mountOptions []string

// parseMountOptions splits and checks options. Each entry may hold several, separated by commas. What a key means is the
// client's business; problem says in words what no client could understand, and never quotes a value.
func parseMountOptions(entries []string) (options mountOptions, problem string) {
	for _, entry := range entries {
		if strings.ContainsFunc(entry, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return nil, "have a line break or another control character in them"
		}
		if strings.TrimSpace(entry) == "" {
			return nil, "have an empty entry"
		}
		for option := range strings.SplitSeq(entry, ",") {
			key, value, hasValue := strings.Cut(option, "=")
			key, value = strings.TrimSpace(key), strings.TrimSpace(value)
			switch {
			case key == "" && !hasValue:
				return nil, "have a comma with nothing before or after it"
			case key == "":
				return nil, "have a value without a key"
			case strings.HasPrefix(key, "-") || strings.ContainsAny(key, " \t"):
				return nil, fmt.Sprintf("have %q as the key of an option", key)
			case hasValue:
				key += "=" + value
			}
			options = append(options, key)
		}
	}
	return options, ""
}

// last returns the value of an option, the last one if there are several.
func (o mountOptions) last(key string) (value string, ok bool) {
	for _, option := range o {
		if k, v, _ := strings.Cut(option, "="); k == key {
			value, ok = v, true
		}
	}
	return value, ok
}

// without returns the options that do not have this key.
func (o mountOptions) without(key string) mountOptions {
	return slices.DeleteFunc(slices.Clone(o), func(option string) bool {
		k, _, _ := strings.Cut(option, "=")
		return k == key
	})
}

// takeReadOnly removes what makes a mount read-only and tells whether it was there: the mount does it, not the client.
func (o mountOptions) takeReadOnly() (mountOptions, bool) {
	rest := o.without("ro").without("read-only")
	return rest, len(rest) != len(o)
}

// options returns the volume's options: those of the attribute, then those of the PersistentVolume, so that the latter win.
func (s Source) options() (mountOptions, error) {
	var all mountOptions
	if text := s.Attributes[attrMountOptions]; strings.TrimSpace(text) != "" {
		options, problem := parseMountOptions([]string{text})
		if problem != "" {
			return nil, s.bad(attrMountOptions, "has mount options that "+problem, optionsCure)
		}
		all = options
	}
	options, problem := parseMountOptions(s.MountOptions)
	if problem != "" {
		return nil, &Error{Reason: ReasonAttributeInvalid, Object: s.Object, Field: s.MountOptionsField,
			Message: "has mount options that " + problem, Cure: optionsCure}
	}
	options, err := s.filledIn(all, options)
	if err != nil {
		return nil, err
	}
	return append(all, options...), nil
}

const optionsCure = `write them as in "cache-size=1024,writeback"`

// subdirectory joins the option subdir and the attribute subPath, in this order as the JuiceFS CSI driver does, into one
// option. The result stays inside the file system.
func (s Source) subdirectory(o mountOptions) (mountOptions, error) {
	subdir, given := o.last(optSubdir)
	subPath := s.Attributes[attrSubPath]
	for part := range strings.SplitSeq(subdir+"/"+subPath, "/") {
		if part == ".." {
			return nil, &Error{Reason: ReasonAttributeInvalid, Object: s.Object, Field: optSubdir + " or " + attrSubPath,
				Message: `has ".." in its subdirectory`, Cure: "write the path from the root of the file system"}
		}
	}
	if strings.ContainsFunc(subPath, func(r rune) bool { return r < ' ' || r == 0x7f || r == ',' }) {
		return nil, s.bad(attrSubPath, "has a comma or a control character in its subdirectory", "rename the directory")
	}
	if subPath == "" && !given {
		return o, nil
	}
	o = o.without(optSubdir)
	if joined := path.Join("/", subdir, subPath); joined != "/" {
		o = append(o, optSubdir+"="+joined)
	}
	return o, nil
}

// bufferFits refuses a write buffer that the memory limit cannot hold, in MiB: the client would be killed under load.
func (s Source) bufferFits(o mountOptions, r corev1.ResourceRequirements) error {
	text, ok := o.last(optBufferSize)
	limit, limited := r.Limits[corev1.ResourceMemory]
	if !ok || !limited {
		return nil
	}
	mib, err := strconv.ParseInt(text, 10, 32)
	if err != nil || mib <= limit.Value()>>20 {
		return nil // a unit or a nonsense is the client's to judge
	}
	return &Error{Reason: ReasonAttributeInvalid, Object: s.Object, Field: optBufferSize,
		Message: fmt.Sprintf("has a buffer-size of %d MiB, more than the sidecar's memory limit of %s", mib, limit.String()),
		Cure:    "lower it, or raise " + attrMemoryLimit}
}
