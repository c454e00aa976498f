package csi

import (
	"strings"
	"testing"
)

func TestSettingsThatAreNotFollowedAreToldToTheClaim(t *testing.T) {
	s := newStand(t)
	s.events.IncludeObject = true
	s.make(t, request("pvc-1", "secretFinalizer", "true", "juicefs/mount-image", "juicedata/mount:ce-v1.3.0"))
	got := s.told()
	for _, setting := range []string{"secretFinalizer", "juicefs/mount-image"} {
		if !strings.Contains(got, setting) {
			t.Errorf("%s is not told: %s", setting, got)
		}
	}
	if strings.Count(got, "Warning VolumeSettingIgnored") != 2 || strings.Count(got, "PersistentVolumeClaim") != 2 {
		t.Errorf("got %s", got)
	}
	if want := "claim shop/data"; len(s.cluster.reads) != 1 || s.cluster.reads[0] != want {
		t.Errorf("read %q, want %q", s.cluster.reads, want)
	}
	s.make(t, request("pvc-2", "secretFinalizer", "false"))
	if got := s.told(); got != "" {
		t.Errorf("got %s", got)
	}
}

func TestNothingIsToldOfAVolumeThatCannotBeMade(t *testing.T) {
	s := newStand(t)
	r := request("pvc-1", "secretFinalizer", "true", "pathPattern", "${.pvc.labels.none}")
	if _, err := s.CreateVolume(t.Context(), r); err == nil {
		t.Fatal("made")
	}
	if got := s.told(); got != "" {
		t.Errorf("got %s", got)
	}
}

// told returns the events since the last call.
func (s *stand) told() string {
	var all []string
	for len(s.events.Events) > 0 {
		all = append(all, <-s.events.Events)
	}
	return strings.Join(all, "\n")
}
