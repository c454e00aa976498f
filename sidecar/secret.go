package sidecar

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/yaml"
)

// secretLimit is the largest Secret in bytes that fits the session protocol together with the rest of a volume.
const secretLimit = 192 << 10

// Keys of a JuiceFS volume's Secret that are checked before a client starts.
const (
	keyName    = "name"
	keyMetaURL = "metaurl"
	keyStorage = "storage"
	keyBucket  = "bucket"
	keyEnvs    = "envs"
	keyConfigs = "configs"
	keyToken   = "token"
)

// trimmed are the keys whose values never begin or end with white space; a newline at their end comes from "echo | base64".
var trimmed = []string{keyName, keyMetaURL, keyStorage, keyBucket, "access-key", "secret-key", "session-token", keyToken}

// fileSystemName is what JuiceFS accepts as a name when it formats.
var fileSystemName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// engines are the schemes of all metadata engines of JuiceFS. Which of them a client has is for the client to say.
var engines = []string{"redis", "rediss", "unix", "sqlite3", "mysql", "postgres", "tikv", "etcd", "fdb", "badger", "memkv"}

// secret reads a Secret; why says who needs it.
func (r *Resolver) secret(ctx context.Context, namespace, name, why string) (map[string]string, error) {
	object := secretObject(namespace, name)
	s, err := r.objects.Secret(ctx, namespace, name)
	if apierrors.IsNotFound(err) {
		return nil, &Error{
			Reason: ReasonSecretNotFound, Object: object, Message: "is not found, and " + why,
			Cure: "create it in namespace " + namespace + ", or correct the reference",
		}
	}
	if err != nil {
		return nil, Unread(object, err)
	}
	data := make(map[string]string, len(s.Data)+len(s.StringData))
	for k, v := range s.Data {
		data[k] = string(v)
	}
	return data, nil
}

// juicefsSecret checks the Secret of a JuiceFS volume and returns it in the form that the client gets. No error holds a
// value.
func juicefsSecret(object string, in map[string]string, hostPaths []string) (map[string]string, []string, error) {
	out, err := copySecret(object, in)
	if err != nil {
		return nil, nil, err
	}
	bad := func(key, message, cure string) (map[string]string, []string, error) {
		return nil, nil, &Error{Reason: ReasonSecretInvalid, Object: object, Field: "data[" + key + "]", Message: message, Cure: cure}
	}
	switch {
	case out[keyMetaURL] == "" && out[keyToken] != "":
		return bad(keyMetaURL, "has a token and no metaurl: it describes a volume of JuiceFS Enterprise, which is not served",
			"use a volume of the community edition, or schedule the pod on an ordinary node with the JuiceFS CSI driver")
	case out[keyMetaURL] == "":
		return bad(keyMetaURL, "has no metaurl", "add the URL of the metadata engine, as in redis://:password@host:6379/1")
	case out[keyName] == "":
		return bad(keyName, "has no name", "add the file system's name as it was formatted")
	case !fileSystemName.MatchString(out[keyName]):
		return bad(keyName, "has a name that no JuiceFS file system can have",
			"use 3 to 63 lower-case letters, digits and dashes, with no dash at either end")
	}
	url, problem := metaURL(out[keyMetaURL])
	if problem != "" {
		return bad(keyMetaURL, problem, "write it as scheme://address, as in redis://:password@host:6379/1")
	}
	out[keyMetaURL] = url
	if path, ok := strings.CutPrefix(url, "sqlite3://"); ok && !visible(dataFile(path), hostPaths) {
		return bad(keyMetaURL, "has a SQLite file as metaurl that the client cannot see",
			"give an absolute path, and its directory in the PersistentVolume's attribute "+attrHostPath)
	}
	if out[keyStorage] == "file" && out[keyBucket] != "" && !visible(out[keyBucket], hostPaths) {
		return bad(keyBucket, "has a directory as bucket that the client cannot see",
			"give an absolute path, and the directory in the PersistentVolume's attribute "+attrHostPath)
	}
	if !isMap(out[keyEnvs]) {
		return bad(keyEnvs, "has envs that are not a map of strings", `write them as JSON or YAML, as in {"AWS_REGION": "eu-central-1"}`)
	}
	return out, secretWarnings(object, out), nil
}

func secretWarnings(object string, data map[string]string) []string {
	if strings.TrimSpace(data[keyConfigs]) == "" {
		return nil
	}
	return []string{object + ": key configs is not followed: a sidecar gets no files of other Secrets; " +
		"put what the client needs into envs, or into a directory named by " + attrHostPath}
}

// copySecret bounds and trims a Secret.
func copySecret(object string, in map[string]string) (map[string]string, error) {
	out, size := make(map[string]string, len(in)), 0
	for k, v := range in {
		out[k] = v
		size += len(k) + len(v)
	}
	if size > secretLimit {
		return nil, &Error{
			Reason: ReasonSecretInvalid, Object: object, Field: "data",
			Message: fmt.Sprintf("has %d bytes, more than the %d that a volume may have", size, secretLimit),
			Cure:    "remove the keys that the volume does not need",
		}
	}
	for _, key := range trimmed {
		if v, ok := out[key]; ok {
			out[key] = strings.TrimSpace(v)
		}
	}
	return out, nil
}

// metaURL returns the URL with its scheme, which is redis where there is none, as in JuiceFS. The address is not parsed
// further: engines have their own forms, and passwords may hold any character. problem never quotes the URL.
func metaURL(in string) (url, problem string) {
	if strings.ContainsFunc(in, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return "", "has a metaurl with a line break or another control character in it"
	}
	head, rest, ok := strings.Cut(in, "://")
	if !ok && in != "" {
		return "redis://" + in, ""
	}
	if rest == "" {
		return "", "has a metaurl without an address"
	}
	if !slices.Contains(engines, head) {
		return "", "has a metaurl of a metadata engine that JuiceFS does not know; it knows " + strings.Join(engines, ", ")
	}
	return in, ""
}

// dataFile strips what SQLite takes as parameters.
func dataFile(path string) string {
	path, _, _ = strings.Cut(path, "?")
	return strings.TrimPrefix(path, "file:")
}

// isMap is true for a JSON or YAML map of words, numbers and truth values; a number without quotes is meant as a word.
func isMap(text string) bool {
	var m map[string]any
	if strings.TrimSpace(text) != "" && yaml.Unmarshal([]byte(text), &m) != nil {
		return false
	}
	for _, v := range m {
		switch v.(type) {
		case string, bool, float64, int64:
		default:
			return false
		}
	}
	return true
}

func secretObject(namespace, name string) string { return "Secret " + namespace + "/" + name }
