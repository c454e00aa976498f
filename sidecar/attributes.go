package sidecar

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"sigs.k8s.io/yaml"

	"github.com/sidemount/sidemount/mount"
)

// Attributes of our own.
const (
	attrClient = "sidemount.io/client"
	attrPath   = "path"
	attrImage  = "sidemount.io/image"
	attrUser   = "sidemount.io/run-as-user"
	attrGroup  = "sidemount.io/run-as-group"
)

// Attributes of the JuiceFS CSI driver; docs/compatibility.md tells what becomes of each.
const (
	attrCPULimit       = "juicefs/mount-cpu-limit"
	attrMemoryLimit    = "juicefs/mount-memory-limit"
	attrCPURequest     = "juicefs/mount-cpu-request"
	attrMemoryRequest  = "juicefs/mount-memory-request"
	attrMountLabels    = "juicefs/mount-labels"
	attrAnnotations    = "juicefs/mount-annotations"
	attrServiceAccount = "juicefs/mount-service-account"
	attrMountImage     = "juicefs/mount-image"
	attrDeleteDelay    = "juicefs/mount-delete-delay"
	attrCleanCache     = "juicefs/clean-cache"
	attrCachePVC       = "juicefs/mount-cache-pvc"
	attrCacheEmptyDir  = "juicefs/mount-cache-emptydir"
	attrCacheInline    = "juicefs/mount-cache-inline-volume"
	attrHostPath       = "juicefs/host-path"
	attrMountOptions   = "mountOptions"
	attrSubPath        = "subPath"
)

// resourceAttributes are what the author of a claim may set by annotation, as with the JuiceFS CSI driver.
var resourceAttributes = []string{attrCPULimit, attrMemoryLimit, attrCPURequest, attrMemoryRequest}

// tenantAttributes are what a pod may say about an inline volume. The others concern the host, or choose what code gets
// the node's trust.
var tenantAttributes = append([]string{attrClient, attrMountOptions, attrSubPath, attrCacheEmptyDir, attrCleanCache}, resourceAttributes...)

// knownAttributes are accepted in a PersistentVolume. Those without a constant come from StorageClasses, whose parameters
// are copied into the volumes, and have done their work when a volume exists.
var knownAttributes = append([]string{
	attrPath, attrImage, attrUser, attrGroup, attrMountLabels, attrAnnotations, attrServiceAccount, attrMountImage, attrDeleteDelay,
	attrCachePVC, attrCacheInline, attrHostPath,
	"juicefs/controller-quota-set", "capacity", "pathPattern", "secretFinalizer",
}, tenantAttributes...)

// ownPrefixes are the prefixes under which an unknown key is a mistake and not somebody else's note.
var ownPrefixes = []string{"sidemount.io/", "juicefs/"}

// client returns the kind of client that a volume names.
func (s Source) client() (mount.ClientKind, error) {
	name := s.Attributes[attrClient]
	if name == "" {
		return mount.JuiceFS, nil
	}
	kind := mount.ClientKind(name)
	if _, ok := Clients[kind]; !ok {
		return "", s.bad(attrClient, fmt.Sprintf("names the unknown client %q", name), "use one of "+strings.Join(clientNames(), ", "))
	}
	if s.Tenant && kind != mount.JuiceFS {
		return "", s.bad(attrClient, "asks for client "+name+" in an inline volume, which could show any directory of the host",
			"use a PersistentVolume, which an administrator makes")
	}
	return kind, nil
}

// known refuses attributes that are nobody's. A key with another domain as prefix belongs to that domain's tools.
func (s Source) known() error {
	for _, key := range sortedKeys(s.Attributes) {
		if slices.Contains(knownAttributes, key) {
			if s.Tenant && !slices.Contains(tenantAttributes, key) {
				return s.bad(key, "sets "+key+" in an inline volume", "use a PersistentVolume, which an administrator makes")
			}
			continue
		}
		if strings.Contains(key, "/") && !slices.ContainsFunc(ownPrefixes, func(p string) bool { return strings.HasPrefix(key, p) }) {
			continue
		}
		cure := "remove it"
		if like := nearest(key, knownAttributes); like != "" {
			cure += ", or write " + like + " if you mean that"
		}
		return s.bad(key, fmt.Sprintf("has the unknown attribute %q", key), cure)
	}
	return nil
}

// bad is the error for an attribute.
func (s Source) bad(key, message, cure string) *Error {
	return &Error{Reason: ReasonAttributeInvalid, Object: s.Object, Field: s.AttributesField + "[" + key + "]", Message: message, Cure: cure}
}

// clientImage chooses the image, and warns where it is not the one that was asked for.
func (s Source) clientImage(fallback string) (image, warning string, err error) {
	for _, key := range []string{attrImage, attrMountImage} {
		asked := strings.TrimSpace(s.Attributes[key])
		switch {
		case asked == "":
			continue
		case strings.ContainsFunc(asked, func(r rune) bool { return r <= ' ' || r == 0x7f }):
			return "", "", s.bad(key, fmt.Sprintf("has %q as an image", asked), "write it as registry/name:tag")
		case key == attrMountImage && upstreamImage(asked):
			return fallback, fmt.Sprintf("%s: %s=%s is not followed: that image has no client that can resume, %s is used; "+
				"name another image in %s", s.Object, key, asked, fallback, attrImage), nil
		}
		return asked, "", nil
	}
	return fallback, "", nil
}

// upstreamImage is true for the images of the JuiceFS CSI driver, wherever they are mirrored: they hold JuiceFS' own
// mount command only.
func upstreamImage(image string) bool {
	name, _, _ := strings.Cut(image, "@")
	tag := ""
	if i := strings.LastIndex(name, ":"); i > strings.LastIndex(name, "/") {
		name, tag = name[:i], name[i+1:]
	}
	return strings.HasSuffix("/"+name, "/juicedata/mount") || strings.HasSuffix("/"+name, "/juicefs-fuse") ||
		strings.HasPrefix(tag, "ce-") || strings.HasPrefix(tag, "ee-")
}

// identity returns the user and group of the sidecar.
func (s Source) identity() (uid, gid int64, err error) {
	if uid, err = s.id(attrUser, DefaultUID); err != nil {
		return 0, 0, err
	}
	gid, err = s.id(attrGroup, DefaultGID)
	return uid, gid, err
}

func (s Source) id(key string, fallback int64) (int64, error) {
	text, ok := s.Attributes[key]
	if !ok {
		return fallback, nil
	}
	// The API server accepts ids up to the largest int32 (k8s.io/apimachinery/pkg/util/validation.IsValidUserID).
	n, err := strconv.ParseInt(text, 10, 32)
	if err != nil || n < 0 {
		return 0, s.bad(key, fmt.Sprintf("has %q as a numeric id", text), "write a number from 0 to 2147483647")
	}
	return n, nil
}

// podSettings reads what concerns Mount Pods.
func (s Source) podSettings() (PodSettings, error) {
	p := PodSettings{ServiceAccount: s.Attributes[attrServiceAccount], CleanCache: s.Attributes[attrCleanCache] == "true"}
	var err error
	if p.Labels, err = s.stringMap(attrMountLabels); err != nil {
		return p, err
	}
	if p.Annotations, err = s.stringMap(attrAnnotations); err != nil {
		return p, err
	}
	if text := s.Attributes[attrDeleteDelay]; text != "" {
		if p.DeleteDelay, err = time.ParseDuration(text); err != nil || p.DeleteDelay < 0 {
			return p, s.bad(attrDeleteDelay, fmt.Sprintf("has %q as a duration", text), `write it as in "30s", "5m" or "1h"`)
		}
	}
	return p, nil
}

func (s Source) stringMap(key string) (map[string]string, error) {
	text := strings.TrimSpace(s.Attributes[key])
	if text == "" {
		return nil, nil
	}
	var m map[string]string
	if err := yaml.Unmarshal([]byte(text), &m); err != nil {
		return nil, s.bad(key, "has a value that is not a map of strings", `write it as JSON or YAML, as in {"team": "data"}`)
	}
	return m, nil
}

// annotationWarnings names the annotations of a claim that are not followed: only an administrator may decide about them, or
// nobody knows them.
func (s Source) annotationWarnings() []string {
	var warnings []string
	for _, key := range sortedKeys(s.Annotations) {
		if !strings.HasPrefix(key, "juicefs/") || slices.Contains(resourceAttributes, key) {
			continue
		}
		why := "it is unknown"
		if slices.Contains(knownAttributes, key) {
			why = "an administrator sets it in the volumeAttributes of the PersistentVolume"
		} else if like := nearest(key, resourceAttributes); like != "" {
			why += "; write " + like + " if you mean that"
		}
		warnings = append(warnings, fmt.Sprintf("%s: annotation %s is not followed: %s", s.AnnotationsObject, key, why))
	}
	return warnings
}

func clientNames() []string {
	var names []string
	for kind := range Clients {
		names = append(names, string(kind))
	}
	slices.Sort(names)
	return names
}

// nearest returns the known word that a mistyped one most likely means, or "".
func nearest(word string, known []string) string {
	best, distance := "", len(word)/3+1
	for _, k := range known {
		if d := edits(strings.ToLower(word), strings.ToLower(k)); d < distance {
			best, distance = k, d
		}
	}
	return best
}

// edits is the Levenshtein distance in bytes.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := 1; i <= len(a); i++ {
		diagonal := row[0]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			substitution := diagonal
			if a[i-1] != b[j-1] {
				substitution++
			}
			diagonal = row[j]
			row[j] = min(substitution, row[j]+1, row[j-1]+1)
		}
	}
	return row[len(b)]
}
