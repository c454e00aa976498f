package engine

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/sidemount/sidemount/mount"
)

// Spec is a volume's Secret and mount options, parsed.
type Spec struct {
	// Name is the file system's name, the Secret's "name". A volume that is already formatted under another name is refused.
	Name string
	// MetaURL is the metadata engine's address with its password: never print it. See Address.
	MetaURL string
	// Storage and Bucket say where a volume that is not yet formatted keeps its objects. Empty: it must be formatted already.
	Storage, Bucket string
	// AccessKey, SecretKey and SessionToken win over those of the setting, so that a Secret can be rotated.
	AccessKey, SecretKey, SessionToken string
	// EncryptKey is a PEM private key for encryption at rest; only formatting uses it.
	EncryptKey string
	// Env are environment variables that the engine's libraries read. Applying them is up to main.
	Env map[string]string
	// ReadOnly refuses every change.
	ReadOnly bool

	format  formatOptions
	options options
}

// secretKeys of the Community Edition's Secret, as its CSI driver documents them. The second half is for formatting.
var secretKeys = []string{
	"name", "metaurl", "storage", "bucket", "access-key", "secret-key", "session-token", "envs", "encrypt_rsa_key",
	"format-options", "block-size", "compress", "trash-days", "capacity", "inodes", "shards", "hash-prefix", "enable-acl",
	"encrypt-algo", "storage-class",
}

// Parse reads a volume. It asks nobody. Errors wrap mount.ErrConfig and name the key or option.
func Parse(v mount.Volume) (*Spec, error) {
	s := &Spec{
		Name:         v.Secret["name"],
		MetaURL:      strings.TrimSpace(v.Secret["metaurl"]),
		Storage:      v.Secret["storage"],
		Bucket:       v.Secret["bucket"],
		AccessKey:    v.Secret["access-key"],
		SecretKey:    v.Secret["secret-key"],
		SessionToken: v.Secret["session-token"],
		EncryptKey:   v.Secret["encrypt_rsa_key"],
		ReadOnly:     v.ReadOnly,
	}
	if err := s.checkMeta(); err != nil {
		return nil, err
	}
	env, err := parseEnv(v.Secret["envs"])
	if err != nil {
		return nil, err
	}
	s.Env = env
	if s.format, err = parseFormat(s, v.Secret); err != nil {
		return nil, err
	}
	if s.options, err = parseOptions(v.Options); err != nil {
		return nil, err
	}
	s.ReadOnly = s.ReadOnly || s.options.readOnly
	return s, nil
}

func (s *Spec) checkMeta() error {
	if s.MetaURL == "" {
		return missingKey("metaurl")
	}
	if !strings.Contains(s.MetaURL, "://") {
		s.MetaURL = "redis://" + s.MetaURL
	}
	if _, err := parseAddress(s.MetaURL); err != nil {
		return err
	}
	if s.Name == "" {
		return missingKey("name")
	}
	if !validName.MatchString(s.Name) {
		return fmt.Errorf("%w: Secret key \"name\" is %q; a file system's name has 3 to 63 lower-case letters, digits and dashes",
			mount.ErrConfig, s.Name)
	}
	return nil
}

// parseEnv reads the "envs" key, a JSON or YAML map.
func parseEnv(text string) (map[string]string, error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	var values map[string]any
	if err := yaml.Unmarshal([]byte(text), &values); err != nil {
		return nil, fmt.Errorf("%w: Secret key \"envs\" is neither a JSON nor a YAML map", mount.ErrConfig)
	}
	env := make(map[string]string, len(values))
	for k, v := range values {
		env[k] = fmt.Sprint(v)
	}
	return env, nil
}

// Secrets are the values that must not appear in any output.
func (s *Spec) Secrets() []string {
	all := []string{s.SecretKey, s.SessionToken, s.EncryptKey, s.MetaURL}
	if a, err := parseAddress(s.MetaURL); err == nil {
		all = append(all, a.secrets...)
	}
	all = append(all, slices.Collect(maps.Values(s.Env))...)
	return slices.DeleteFunc(all, func(v string) bool { return len(v) < minSecret })
}

func missingKey(key string) error {
	return fmt.Errorf("%w: the Secret lacks the key %q", mount.ErrConfig, key)
}
