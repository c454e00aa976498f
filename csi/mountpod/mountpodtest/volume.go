package mountpodtest

import (
	"context"
	"errors"
	"testing"

	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/sidecar"
)

// Passthrough is a volume that shows a directory of this machine, as a PersistentVolume with these further attributes describes it.
func Passthrough(t testing.TB, handle, dir string, attributes map[string]string) sidecar.Mount {
	t.Helper()
	all := map[string]string{"sidemount.io/client": "passthrough", "path": dir}
	for k, v := range attributes {
		all[k] = v
	}
	return Describe(t, sidecar.Source{Handle: handle, Attributes: all})
}

// Describe understands a volume as the driver does.
func Describe(t testing.TB, s sidecar.Source) sidecar.Mount {
	t.Helper()
	r, err := sidecar.NewResolver(sidecar.Options{Objects: nothing{}})
	if err != nil {
		t.Fatal(err)
	}
	s.Name, s.Object, s.AttributesField, s.MountPod = "volume", "PersistentVolume "+s.Handle, "spec.csi.volumeAttributes", true
	m, err := r.Describe(s)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// nothing is an API server without objects: a description needs none.
type nothing struct{}

var errNothing = errors.New("no such object")

func (nothing) PersistentVolumeClaim(context.Context, string, string) (*corev1.PersistentVolumeClaim, error) {
	return nil, errNothing
}
func (nothing) PersistentVolume(context.Context, string) (*corev1.PersistentVolume, error) {
	return nil, errNothing
}
func (nothing) Secret(context.Context, string, string) (*corev1.Secret, error) {
	return nil, errNothing
}
