package sidecar

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
)

const (
	optSubdir     = "subdir"
	optCacheDir   = "cache-dir"
	optCacheSize  = "cache-size"
	optBufferSize = "buffer-size"
	// memoryCache is the cache-dir that is no directory.
	memoryCache = "memory"
	// emptyDirCache is where the JuiceFS CSI driver puts an emptyDir cache.
	emptyDirCache = "/var/jfsCache-emptyDir"
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

// caches returns the scratch directories for the client's cache, and the options that name them. A directory of the host is
// used only where an administrator shows it to the client: another one could not be written by an unprivileged sidecar.
func (s Source) caches(o mountOptions, hostPaths []string) (mountOptions, []Cache, error) {
	var dirs []string
	var caches []Cache
	if text, ok := s.Attributes[attrCacheEmptyDir]; ok {
		cache, problem := emptyDir(text)
		if problem != "" {
			return nil, nil, s.bad(attrCacheEmptyDir, problem, `write it as medium:size, as in "Memory:1Gi" or ":20Gi"`)
		}
		caches, dirs = append(caches, cache), append(dirs, cache.Path)
	}
	asked, ok := o.last(optCacheDir)
	for dir := range strings.SplitSeq(asked, ":") {
		if !ok {
			break
		}
		if dir != memoryCache {
			clean, problem := hostDir(dir)
			if problem != "" {
				return nil, nil, &Error{Reason: ReasonAttributeInvalid, Object: s.Object, Field: optCacheDir,
					Message: "has a cache directory that " + problem, Cure: `write absolute paths, separated by colons, or "memory"`}
			}
			dir = clean
			if !slices.ContainsFunc(caches, func(c Cache) bool { return c.Path == dir }) && !inside(dir, hostPaths) {
				caches = append(caches, Cache{Path: dir})
			}
		}
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	if len(dirs) > 0 {
		o = append(o.without(optCacheDir), optCacheDir+"="+strings.Join(dirs, ":"))
	}
	return boundCache(o, caches), caches, nil
}

// boundCache keeps the client's cache inside the one directory that it has: past its size limit the node would evict the
// pod. A tenth is left for what the client writes before it notices.
func boundCache(o mountOptions, caches []Cache) mountOptions {
	if len(caches) != 1 || caches[0].SizeLimit == nil {
		return o
	}
	if _, ok := o.last(optCacheSize); ok {
		return o
	}
	return append(o, optCacheSize+"="+strconv.FormatInt(max(caches[0].SizeLimit.Value()>>20*9/10, 1), 10))
}

// emptyDir reads "medium", "medium:size" or "".
func emptyDir(text string) (cache Cache, problem string) {
	medium, size, _ := strings.Cut(strings.TrimSpace(text), ":")
	cache = Cache{Path: emptyDirCache, Medium: corev1.StorageMedium(strings.TrimSpace(medium))}
	if cache.Medium != corev1.StorageMediumDefault && cache.Medium != corev1.StorageMediumMemory {
		return cache, fmt.Sprintf("has %q as the medium of an emptyDir", medium)
	}
	if size = strings.TrimSpace(size); size == "" {
		return cache, ""
	}
	q, err := resource.ParseQuantity(size)
	if err != nil || q.Sign() <= 0 {
		return cache, fmt.Sprintf("has %q as the size of an emptyDir", size)
	}
	cache.SizeLimit = &q
	return cache, ""
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
