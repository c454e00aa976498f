package engine

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// bucket is an S3 service in memory with one bucket, as far as JuiceFS needs it. It checks the access key, not the signature.
type bucket struct {
	mu      sync.Mutex
	exists  bool
	objects map[string][]byte
}

const s3Key = "AKIATEST"

func (b *bucket) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if !strings.Contains(r.Header.Get("Authorization"), "Credential="+s3Key+"/") {
		refuse(w, http.StatusForbidden, "InvalidAccessKeyId")
		return
	}
	_, key, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
	switch {
	case key == "" && r.Method == http.MethodPut:
		b.exists = true
	case !b.exists:
		refuse(w, http.StatusNotFound, "NoSuchBucket")
	case key == "" && r.Method == http.MethodGet:
		b.list(w, r.URL.Query().Get("prefix"), r.URL.Query().Get("delimiter"))
	case r.Method == http.MethodPut:
		data, err := io.ReadAll(r.Body)
		if err != nil {
			refuse(w, http.StatusBadRequest, "IncompleteBody")
			return
		}
		b.objects[key] = data
	case r.Method == http.MethodDelete:
		delete(b.objects, key)
		w.WriteHeader(http.StatusNoContent)
	default:
		data, ok := b.objects[key]
		if !ok {
			refuse(w, http.StatusNotFound, "NoSuchKey")
			return
		}
		http.ServeContent(w, r, "", time.Unix(0, 0), bytes.NewReader(data))
	}
}

func (b *bucket) list(w http.ResponseWriter, prefix, delimiter string) {
	type content struct{ Key string }
	type common struct{ Prefix string }
	var answer struct {
		XMLName        xml.Name `xml:"ListBucketResult"`
		Contents       []content
		CommonPrefixes []common
	}
	for key := range b.objects {
		rest, ok := strings.CutPrefix(key, prefix)
		if !ok {
			continue
		}
		if dir, _, ok := strings.Cut(rest, delimiter); ok && delimiter != "" {
			if p := (common{prefix + dir + delimiter}); !slices.Contains(answer.CommonPrefixes, p) {
				answer.CommonPrefixes = append(answer.CommonPrefixes, p)
			}
			continue
		}
		answer.Contents = append(answer.Contents, content{key})
	}
	_ = xml.NewEncoder(w).Encode(answer)
}

func refuse(w http.ResponseWriter, status int, code string) {
	w.Header().Set("Content-Type", "application/xml")
	w.WriteHeader(status)
	fmt.Fprintf(w, "<Error><Code>%s</Code><Message>%s</Message></Error>", code, code)
}

// s3Volume is a volume on a bucket that does not exist yet.
func s3Volume(t *testing.T, storage string) (mount.Volume, *bucket) {
	t.Helper()
	b := &bucket{objects: make(map[string][]byte)}
	server := httptest.NewServer(b)
	t.Cleanup(server.Close)
	v := localVolume(t.TempDir())
	v.Secret["storage"] = storage
	v.Secret["bucket"] = server.URL + "/volumes"
	v.Secret["access-key"] = s3Key
	v.Secret["secret-key"] = "very-secret-key"
	v.Secret["envs"] = `{"AWS_REGION": "us-east-1"}`
	t.Setenv("AWS_REGION", "us-east-1")
	return v, b
}

func TestAVolumeOnS3IsFormattedAndProbed(t *testing.T) {
	for _, kind := range []string{"s3", "minio"} {
		t.Run(kind, func(t *testing.T) {
			v, b := s3Volume(t, kind)
			if err := Format(context.Background(), mustParse(t, v)); err != nil {
				t.Fatal(err)
			}
			if uuid := string(b.objects["testfs/juicefs_uuid"]); uuid != settingOf(t, v) {
				t.Errorf("the bucket says %q, the metadata engine %q", uuid, settingOf(t, v))
			}

			v.Secret["access-key"] = "AKIAWRONG"
			_, err := Connect(context.Background(), mustParse(t, v), Earlier{})
			if !errors.Is(err, mount.ErrConfig) || !strings.Contains(err.Error(), "InvalidAccessKeyId") || strings.Contains(err.Error(), "very-secret") {
				t.Errorf("with a wrong key: %v", err)
			}
			c, err := Connect(context.Background(), mustParse(t, v), Earlier{Sid: 1})
			if err != nil {
				t.Fatalf("a session that goes on asked the object store: %v", err)
			}
			c.Close()
		})
	}
}

func TestAnObjectStoreThatRefusesIsNotFormatted(t *testing.T) {
	v, b := s3Volume(t, "minio")
	v.Secret["access-key"] = "AKIAWRONG"
	err := Format(context.Background(), mustParse(t, v))
	if !errors.Is(err, mount.ErrConfig) || !strings.Contains(err.Error(), "InvalidAccessKeyId") {
		t.Errorf("with a wrong key: %v", err)
	}
	if len(b.objects) != 0 {
		t.Errorf("%d objects were written", len(b.objects))
	}
	v.Secret["bucket"] = "http://" + closedPort(t) + "/volumes"
	v.Secret["access-key"] = s3Key
	if err := Format(context.Background(), mustParse(t, v)); !errors.Is(err, mount.ErrUnavailable) {
		t.Errorf("with nobody there: %v", err)
	}
}
