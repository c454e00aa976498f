package cri

import (
	"encoding/base64"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// pullSecret has an entry per location, the user being the location.
func pullSecret(name string, locations ...string) *corev1.Secret {
	var entries []string
	for _, l := range locations {
		auth := base64.StdEncoding.EncodeToString([]byte(l + ":pw:" + name))
		if strings.Contains(l, ":") {
			// A user cannot contain a colon in the joint form.
			entries = append(entries, fmt.Sprintf(`%q:{"username":%q,"password":"pw:%s"}`, l, l, name))
			continue
		}
		entries = append(entries, fmt.Sprintf(`%q:{"auth":%q}`, l, auth))
	}
	return &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: "ns", Name: name},
		Type:       corev1.SecretTypeDockerConfigJson,
		Data:       map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{"auths":{` + strings.Join(entries, ",") + `}}`)},
	}
}

func TestKeyringLookup(t *testing.T) {
	for _, tt := range []struct {
		name      string
		locations []string
		image     string
		want      []string
	}{
		{"host", []string{"gcr.io"}, "gcr.io/p/i:v1", []string{"gcr.io"}},
		{"other host", []string{"gcr.io"}, "quay.io/p/i", nil},
		{"scheme and version are ignored", []string{"https://gcr.io/v2/"}, "gcr.io/p/i", []string{"https://gcr.io/v2/"}},
		{"path below the version", []string{"https://gcr.io/v1/p"}, "gcr.io/p/i", []string{"https://gcr.io/v1/p"}},
		{"specific first", []string{"quay.io", "quay.io/coreos"}, "quay.io/coreos/etcd", []string{"quay.io/coreos", "quay.io"}},
		{"path must be a prefix", []string{"quay.io/coreos"}, "quay.io/other/etcd", nil},
		{"glob per label", []string{"*.dkr.*.example"}, "1.dkr.eu.example/a", []string{"*.dkr.*.example"}},
		{"glob does not cross labels", []string{"*.example"}, "a.b.example/i", nil},
		{"port", []string{"reg.example:5000"}, "reg.example:5000/a", []string{"reg.example:5000"}},
		{"port differs", []string{"reg.example:5000"}, "reg.example/a", nil},
		{"glob with port", []string{"*.example:5000"}, "reg.example:5000/a", []string{"*.example:5000"}},
		{"Docker Hub by its old name", []string{"https://index.docker.io/v1/"}, "busybox", []string{"https://index.docker.io/v1/"}},
		{"Docker Hub by its new name", []string{"docker.io"}, "juicedata/mount:v1", []string{"docker.io"}},
		{"Docker Hub repository", []string{"docker.io/library"}, "busybox", []string{"docker.io/library"}},
		{"Docker Hub for others", []string{"https://index.docker.io/v1/"}, "gcr.io/p/i", nil},
		{"invalid image", []string{"gcr.io"}, "gcr.io/P", nil},
		{"bad glob", []string{"[.io"}, "gcr.io/p", nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			k, err := ParseKeyring([]*corev1.Secret{pullSecret("s", tt.locations...)})
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, a := range k.Lookup(tt.image) {
				got = append(got, a.Username)
				if a.Password != "pw:s" {
					t.Errorf("password of %s is %q", a.Username, a.Password)
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("Lookup(%q) (-want +got):\n%s", tt.image, diff)
			}
		})
	}
}

func TestKeyringSecrets(t *testing.T) {
	legacy := &corev1.Secret{Type: corev1.SecretTypeDockercfg, Data: map[string][]byte{
		corev1.DockerConfigKey: []byte(`{"gcr.io":{"username":"old","password":"p","email":"e@x"}}`),
	}}
	opaque := &corev1.Secret{Type: corev1.SecretTypeOpaque, Data: map[string][]byte{corev1.DockerConfigJsonKey: []byte(`{`)}}
	k, err := ParseKeyring([]*corev1.Secret{pullSecret("first", "gcr.io"), opaque, legacy})
	if err != nil {
		t.Fatal(err)
	}
	got := k.Lookup("gcr.io/a")
	if len(got) != 2 || got[0].Password != "pw:first" || got[1].Username != "old" {
		t.Errorf("Lookup = %d credentials; want that of the first secret, then that of the second", len(got))
	}
}

func TestKeyringErrorsHideContent(t *testing.T) {
	const token = "c2VjcmV0LXRva2Vu"
	for _, content := range []string{
		`{"auths":{"gcr.io":{"auth":"` + token + `!"}}}`,
		`{"auths":{"gcr.io":{"auth":"` + token + `"}}}`,
		`{"auths":{"gcr.io":"` + token + `"}}`,
		`{"auths":{"gcr.io":{"password":"` + token + `"}`,
		`{"auths":"` + token + `"}`,
	} {
		s := pullSecret("broken", "x")
		s.Data[corev1.DockerConfigJsonKey] = []byte(content)
		k, err := ParseKeyring([]*corev1.Secret{s, pullSecret("good", "gcr.io")})
		if err == nil || !strings.Contains(err.Error(), "ns/broken") {
			t.Errorf("%s: error %v does not name the secret", content, err)
		}
		if err != nil && (strings.Contains(err.Error(), token) || strings.Contains(err.Error(), "secret-token")) {
			t.Errorf("error %q shows the content", err)
		}
		if len(k.Lookup("gcr.io/a")) != 1 {
			t.Errorf("%s: the other secret was lost", content)
		}
	}
}

func TestAuthPrintsNoSecret(t *testing.T) {
	a := Auth{Username: "u", Password: "hush", IdentityToken: "hush", RegistryToken: "hush", Auth: "hush"}
	if s := fmt.Sprintf("%v %+v %#v %s", a, a, a, []Auth{a}); strings.Contains(s, "hush") {
		t.Errorf("prints %q", s)
	}
}

func FuzzKeyring(f *testing.F) {
	f.Add([]byte(`{"auths":{"https://a.b:5/v1/c":{"auth":"YTpi"}}}`), "a.b:5/c/d:e")
	f.Add([]byte(`{"auths":{"*.b":{"username":"u"}}}`), "a.b/c")
	f.Fuzz(func(t *testing.T, config []byte, image string) {
		s := &corev1.Secret{Type: corev1.SecretTypeDockerConfigJson, Data: map[string][]byte{corev1.DockerConfigJsonKey: config}}
		k, _ := ParseKeyring([]*corev1.Secret{s})
		if _, err := ParseImage(image); err != nil && len(k.Lookup(image)) > 0 {
			t.Errorf("credentials for the invalid image %q", image)
		}
	})
}
