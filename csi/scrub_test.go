package csi

import (
	"errors"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func TestSecretsAreStruckOutOfErrors(t *testing.T) {
	request := &spec.DeleteVolumeRequest{Secrets: map[string]string{
		"name": "shared", "metaurl": "redis://ann:hunter%232@redis:6379/1\n", "secret-key": "s3cr3t-s3cr3t", "trash-days": "1000", "token": "abc",
	}}
	for _, text := range []string{
		"open redis://ann:hunter%232@redis:6379/1: no such host", "WRONGPASS for hunter#2", "key s3cr3t-s3cr3t refused", "auth hunter%232",
	} {
		err := scrub(status.Error(codes.Unavailable, text), request)
		if status.Code(err) != codes.Unavailable {
			t.Errorf("%s: got %v", text, err)
		}
		for _, secret := range []string{"hunter", "s3cr3t"} {
			if strings.Contains(err.Error(), secret) {
				t.Errorf("%s is still in %q", secret, err)
			}
		}
	}
	for _, text := range []string{"file system shared is gone after 1000 ms", "abc is short"} {
		if err := errors.New(text); !errors.Is(scrub(err, request), err) {
			t.Errorf("%q has been changed", text)
		}
	}
	if scrub(nil, request) != nil || scrub(errors.New("x"), &spec.ProbeRequest{}) == nil {
		t.Error("scrub makes or loses errors")
	}
}
