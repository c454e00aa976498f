package sidecar

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	"k8s.io/apimachinery/pkg/util/validation"
	"sigs.k8s.io/yaml"
)

// Where the JuiceFS CSI driver puts caches that are volumes of their own.
const (
	emptyDirCache = "/var/jfsCache-emptyDir"
	claimCache    = "/var/jfsCache-"
	inlineCache   = "/var/jfsCache-inlineVolume-"
)

// memoryCache is the cache-dir that is no directory.
const memoryCache = "memory"

// caches returns the scratch directories for the client's cache, and the options that name them. A directory of the host is
// used only where an administrator shows it to the client: another one could not be written by an unprivileged sidecar.
func (s Source) caches(o mountOptions, hostPaths []string) (mountOptions, []Cache, error) {
	caches, err := s.ownCaches()
	if err != nil {
		return nil, nil, err
	}
	var dirs []string
	for _, c := range caches {
		dirs = append(dirs, c.Path)
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

// ownCaches reads the attributes that give the client volumes for its cache, in the order of the JuiceFS CSI driver.
func (s Source) ownCaches() ([]Cache, error) {
	var caches []Cache
	if s.MountPod {
		claims, err := s.claimCaches()
		if err != nil {
			return nil, err
		}
		caches = claims
	}
	if text, ok := s.Attributes[attrCacheEmptyDir]; ok {
		cache, problem := emptyDir(text)
		if problem != "" {
			return nil, s.bad(attrCacheEmptyDir, problem, `write it as medium:size, as in "Memory:1Gi" or ":20Gi"`)
		}
		caches = append(caches, cache)
	}
	if s.MountPod {
		inline, err := s.inlineCaches()
		if err != nil {
			return nil, err
		}
		caches = append(caches, inline...)
	}
	return caches, nil
}

// claimCaches reads names of claims in the namespace of Mount Pods, separated by commas.
func (s Source) claimCaches() ([]Cache, error) {
	var caches []Cache
	for name := range strings.SplitSeq(s.Attributes[attrCachePVC], ",") {
		name = strings.TrimSpace(name)
		if name == "" || slices.ContainsFunc(caches, func(c Cache) bool { return c.Claim == name }) {
			continue
		}
		if len(validation.IsDNS1123Subdomain(name)) > 0 {
			return nil, s.bad(attrCachePVC, fmt.Sprintf("has %q as the name of a claim", name), `write names of claims in the driver's namespace, as in "cache-a,cache-b"`)
		}
		caches = append(caches, Cache{Path: claimCache + strconv.Itoa(len(caches)), Claim: name})
	}
	return caches, nil
}

// inlineCaches reads inline CSI volumes, a YAML map with the field csi or a list of them.
func (s Source) inlineCaches() ([]Cache, error) {
	text := strings.TrimSpace(s.Attributes[attrCacheInline])
	if text == "" {
		return nil, nil
	}
	type source struct {
		CSI *corev1.CSIVolumeSource `json:"csi"`
	}
	var sources []source
	if err := yaml.UnmarshalStrict([]byte(text), &sources); err != nil {
		var one source
		if err := yaml.UnmarshalStrict([]byte(text), &one); err != nil {
			return nil, s.bad(attrCacheInline, "has a value that describes no inline CSI volume", inlineCure)
		}
		sources = []source{one}
	}
	var caches []Cache
	for _, in := range sources {
		if in.CSI == nil || in.CSI.Driver == "" {
			return nil, s.bad(attrCacheInline, "has an inline volume without a csi driver", inlineCure)
		}
		caches = append(caches, Cache{Path: path.Clean(inlineCache + strconv.Itoa(len(caches))), Inline: in.CSI})
	}
	return caches, nil
}

const inlineCure = `write it as in {"csi": {"driver": "inline.storage.example", "volumeAttributes": {"size": "10Gi"}}}`

// cacheWarnings says what a sidecar cannot have, and what nobody cleans.
func (s Source) cacheWarnings(hostPaths []string, o mountOptions) []string {
	var warnings []string
	for _, key := range []string{attrCachePVC, attrCacheInline} {
		if s.Attributes[key] != "" && !s.MountPod {
			warnings = append(warnings, fmt.Sprintf("%s: %s is not followed: a sidecar has no volumes besides its own; use %s or %s",
				s.Object, key, attrCacheEmptyDir, attrHostPath))
		}
	}
	asked, _ := o.last(optCacheDir)
	onHost := slices.ContainsFunc(strings.Split(asked, ":"), func(dir string) bool { return inside(dir, hostPaths) })
	if s.Attributes[attrCleanCache] == "true" && (onHost || s.MountPod && s.Attributes[attrCachePVC] != "") {
		warnings = append(warnings, fmt.Sprintf("%s: %s is not followed for a cache in a claim or a directory of the host, which other volumes may share; use %s",
			s.Object, attrCleanCache, attrCacheEmptyDir))
	}
	return warnings
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
