package sidecar

import (
	"errors"
	"slices"
	"testing"

	"github.com/sidemount/sidemount/mount"
)

func TestTemplatesOfTheStorageClassGiveWayToTheirValues(t *testing.T) {
	s := Source{Object: "PersistentVolume pv", Attributes: map[string]string{attrMountOptions: "writeback,cache-size=512"},
		MountOptions: []string{"cache-size=${.pvc.annotations.cache}", "max-uploads=9"}}
	options, err := s.options()
	if want := (mountOptions{"writeback", "cache-size=512", "max-uploads=9"}); err != nil || !slices.Equal(options, want) {
		t.Errorf("got %v, %v, want %v", options, err, want)
	}
	s.MountOptions = []string{"subdir=${.pvc.name}"}
	var e *Error
	if _, err := s.options(); !errors.As(err, &e) || !errors.Is(err, mount.ErrConfig) {
		t.Errorf("a subdir that nobody has filled in: got %v", err)
	}
}
