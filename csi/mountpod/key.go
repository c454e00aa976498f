package mountpod

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/sidecar"
)

// keyVersion changes with every change of the meaning of identity. Shares of another version go on, and new pods get a new share.
const keyVersion = 1

// identity is everything that makes two volumes different shares, in one canonical form: nothing that has no effect on the client or its pod, and
// nothing in an order that has no meaning.
type identity struct {
	Version        int               `json:"version"`
	Volume         mount.VolumeID    `json:"volume"`
	Client         mount.ClientKind  `json:"client"`
	Config         map[string]string `json:"config"`
	Options        []string          `json:"options"` // in their order: later ones win
	ReadOnly       bool              `json:"readOnly"`
	Secret         string            `json:"secret"`
	Image          string            `json:"image"`
	Argv           []string          `json:"argv"`
	Requests       map[string]string `json:"requests"`
	Limits         map[string]string `json:"limits"`
	HostPaths      []string          `json:"hostPaths"`
	Caches         []string          `json:"caches"`
	UID            int64             `json:"uid"`
	GID            int64             `json:"gid"`
	Labels         map[string]string `json:"labels"`
	Annotations    map[string]string `json:"annotations"`
	ServiceAccount string            `json:"serviceAccount"`
}

// keyOf returns the key of a share in hexadecimal digits. secret is what hashSecret made of the volume's Secret.
func keyOf(m sidecar.Mount, secret string) (string, error) {
	id := identity{
		Version: keyVersion, Volume: m.Volume.ID, Client: m.Volume.Client, Config: filled(m.Volume.Config), Options: append([]string{}, m.Volume.Options...),
		ReadOnly: m.Volume.ReadOnly, Secret: secret, Image: m.Image, Argv: append([]string{}, m.Argv...),
		Requests: quantities(m.Resources.Requests), Limits: quantities(m.Resources.Limits),
		HostPaths: slices.Sorted(slices.Values(m.HostPaths)), Caches: []string{}, UID: m.UID, GID: m.GID,
		Labels: filled(m.Pod.Labels), Annotations: filled(m.Pod.Annotations), ServiceAccount: m.Pod.ServiceAccount,
	}
	if id.HostPaths == nil {
		id.HostPaths = []string{}
	}
	for _, c := range m.Caches {
		text, err := cacheIdentity(c)
		if err != nil {
			return "", err
		}
		id.Caches = append(id.Caches, text)
	}
	b, err := json.Marshal(id)
	if err != nil {
		return "", fmt.Errorf("identity of volume %s: %w", m.Volume.ID, err)
	}
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:]), nil
}

func cacheIdentity(c sidecar.Cache) (string, error) {
	size := ""
	if c.SizeLimit != nil {
		size = c.SizeLimit.String()
	}
	inline, err := json.Marshal(c.Inline)
	if err != nil {
		return "", fmt.Errorf("identity of cache %s: %w", c.Path, err)
	}
	return strings.Join([]string{c.Path, string(c.Medium), size, c.Claim, string(inline)}, "|"), nil
}

// filled makes a missing and an empty map the same.
func filled(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}

func quantities(list corev1.ResourceList) map[string]string {
	out := make(map[string]string, len(list))
	for name, q := range list {
		out[string(name)] = q.String()
	}
	return out
}

// hashSecret makes a Secret comparable without keeping it. key is random and this node's own, so that the hash cannot be compared with anything
// else.
func hashSecret(key []byte, s mount.Secret) (string, error) {
	b, err := json.Marshal(filled(s))
	if err != nil {
		return "", fmt.Errorf("hash a secret: %w", err)
	}
	h := hmac.New(sha256.New, key)
	h.Write(b)
	return hex.EncodeToString(h.Sum(nil)), nil
}

const (
	// leadLength is how much of a volume's handle leads the names of its session and pod, for the eyes of the operator.
	leadLength = 20
	// sessionHash has 80 bits in hexadecimal digits, so that nobody can make two shares meet.
	sessionHash = 20
)

// sessionOf derives the session of a share. attempt is 0 but for the rare share whose session ID is still used by an upgraded one.
func sessionOf(volume mount.VolumeID, key string, attempt int) mount.SessionID {
	sum := sha256.Sum256([]byte(key + "/" + strconv.Itoa(attempt)))
	return mount.SessionID(lead(string(volume)) + "-" + hex.EncodeToString(sum[:])[:sessionHash])
}

// lead is the readable beginning of a name: lower-case letters, digits and dashes, beginning with a letter or digit.
func lead(text string) string {
	text = strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= '0' && r <= '9':
			return r
		case r >= 'A' && r <= 'Z':
			return r + 'a' - 'A'
		}
		return '-'
	}, text)
	text = strings.Trim(text, "-")
	if len(text) > leadLength {
		text = strings.TrimRight(text[:leadLength], "-")
	}
	if text == "" {
		return "volume"
	}
	return text
}
