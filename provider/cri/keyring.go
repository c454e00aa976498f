package cri

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// dockerHub is how configurations name the default registry; images name it docker.io.
const dockerHub = "index.docker.io"

// Keyring is the registry credentials of a pod's pull secrets. The zero Keyring has none.
type Keyring struct {
	rings []ring
}

// ring is the content of one secret. The more specific locations come first.
type ring struct {
	keys  []string
	creds map[string][]Auth
}

// ParseKeyring reads secrets of the types kubernetes.io/dockerconfigjson and kubernetes.io/dockercfg; others are ignored. A
// secret that cannot be read is left out and named in the error; the Keyring has the rest and is never nil.
func ParseKeyring(secrets []*corev1.Secret) (*Keyring, error) {
	k := &Keyring{}
	var errs []error
	for _, s := range secrets {
		entries, err := secretEntries(s)
		if err != nil {
			errs = append(errs, fmt.Errorf("pull secret %s/%s: %w", s.Namespace, s.Name, err))
			continue
		}
		if len(entries) > 0 {
			k.rings = append(k.rings, newRing(entries))
		}
	}
	return k, errors.Join(errs...)
}

// Lookup returns the credentials that fit an image, in the order in which they are to be tried: the secrets' order, and in a
// secret the more specific location first. A location matches if its host does, each label being a glob, its port is the same
// and its path is a prefix of the repository. An invalid image name has none.
func (k *Keyring) Lookup(image string) []Auth {
	ref, err := ParseImage(image)
	if err != nil {
		return nil
	}
	var auths []Auth
	for _, r := range k.rings {
		auths = append(auths, r.lookup(ref)...)
	}
	return auths
}

func (r ring) lookup(ref Reference) []Auth {
	var auths []Auth
	for _, key := range r.keys {
		if locationMatches(key, ref.Repository()) {
			auths = append(auths, r.creds[key]...)
		}
	}
	if len(auths) == 0 && ref.Registry == defaultRegistry {
		return r.creds[dockerHub]
	}
	return auths
}

func newRing(entries map[string]configEntry) ring {
	r := ring{creds: map[string][]Auth{}}
	locations := make([]string, 0, len(entries))
	for location := range entries {
		locations = append(locations, location)
	}
	slices.Sort(locations)
	for _, location := range locations {
		key, ok := locationKey(location)
		if !ok {
			continue
		}
		if r.creds[key] == nil {
			r.keys = append(r.keys, key)
		}
		r.creds[key] = append(r.creds[key], Auth{Username: entries[location].user, Password: entries[location].password})
	}
	// In descending order a path comes before its prefixes.
	slices.Sort(r.keys)
	slices.Reverse(r.keys)
	return r
}

// locationKey reduces "https://host:port/v1/path" to "host:port/path", as the docker client does.
func locationKey(location string) (string, bool) {
	rest := strings.TrimPrefix(strings.TrimPrefix(location, "https://"), "http://")
	rest, _, _ = strings.Cut(rest, "?")
	rest, _, _ = strings.Cut(rest, "#")
	host, p, found := strings.Cut(rest, "/")
	if host == "" {
		return "", false
	}
	if !found {
		return host, true
	}
	p = "/" + p
	if strings.HasPrefix(p, "/v1/") || strings.HasPrefix(p, "/v2/") {
		p = p[len("/v1"):]
	}
	if p == "/" {
		p = ""
	}
	return host + p, true
}

func locationMatches(key, repository string) bool {
	keyHost, keyPath := splitLocation(key)
	host, repo := splitLocation(repository)
	if !strings.HasPrefix(repo, keyPath) {
		return false
	}
	keyName, keyPort := splitPort(keyHost)
	name, port := splitPort(host)
	globs, labels := strings.Split(keyName, "."), strings.Split(name, ".")
	if keyPort != port || len(globs) != len(labels) {
		return false
	}
	for i, glob := range globs {
		if ok, err := path.Match(glob, labels[i]); err != nil || !ok {
			return false
		}
	}
	return true
}

func splitLocation(s string) (host, rest string) {
	if i := strings.IndexByte(s, '/'); i >= 0 {
		return s[:i], s[i:]
	}
	return s, ""
}

func splitPort(host string) (name, port string) {
	name, port, err := net.SplitHostPort(host)
	if err != nil {
		return host, ""
	}
	return name, port
}

// configEntry is one entry of a docker configuration. Its errors never show the content.
type configEntry struct {
	user     string
	password string
}

func (e *configEntry) UnmarshalJSON(data []byte) error {
	var raw struct {
		Username string `json:"username"`
		Password string `json:"password"`
		Auth     string `json:"auth"`
	}
	if err := json.Unmarshal(data, &raw); err != nil {
		return errors.New("invalid entry")
	}
	e.user, e.password = raw.Username, raw.Password
	if raw.Auth == "" {
		return nil
	}
	decoded, err := base64.RawStdEncoding.DecodeString(strings.TrimRight(strings.TrimSpace(raw.Auth), "="))
	if err != nil {
		return errors.New("auth is not base64")
	}
	user, password, ok := strings.Cut(string(decoded), ":")
	if !ok {
		return errors.New("auth is not user:password")
	}
	e.user, e.password = user, password
	return nil
}

func secretEntries(s *corev1.Secret) (map[string]configEntry, error) {
	switch s.Type {
	case corev1.SecretTypeDockerConfigJson:
		var config struct {
			Auths map[string]configEntry `json:"auths"`
		}
		err := decode(s.Data[corev1.DockerConfigJsonKey], &config)
		return config.Auths, err
	case corev1.SecretTypeDockercfg:
		var entries map[string]configEntry
		err := decode(s.Data[corev1.DockerConfigKey], &entries)
		return entries, err
	}
	return nil, nil
}

// decode hides what the decoder quotes of its input.
func decode(data []byte, into any) error {
	if len(data) == 0 {
		return nil
	}
	err := json.Unmarshal(data, into)
	var syntax *json.SyntaxError
	var kind *json.UnmarshalTypeError
	if errors.As(err, &syntax) || errors.As(err, &kind) {
		return errors.New("invalid JSON")
	}
	return err
}
