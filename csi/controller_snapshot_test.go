package csi

import (
	"fmt"
	"strings"
	"testing"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

func volumeSource(id string) *spec.VolumeContentSource {
	return &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Volume{Volume: &spec.VolumeContentSource_VolumeSource{VolumeId: id}}}
}

func snapshotSource(id string) *spec.VolumeContentSource {
	return &spec.VolumeContentSource{Type: &spec.VolumeContentSource_Snapshot{Snapshot: &spec.VolumeContentSource_SnapshotSource{SnapshotId: id}}}
}

func (s *stand) snapshot(t *testing.T, name, source string) *spec.Snapshot {
	t.Helper()
	response, err := s.CreateSnapshot(t.Context(), &spec.CreateSnapshotRequest{Name: name, SourceVolumeId: source, Secrets: credentials(),
		Parameters: map[string]string{"csi.storage.k8s.io/volumesnapshot/name": "s"}})
	if err != nil {
		t.Fatal(err)
	}
	return response.Snapshot
}

// fill gives a volume content, in bytes.
func (s *stand) fill(volume string, used int64) {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	s.memory.systems[credentials()["metaurl"]].used[volume] = used
}

func TestSnapshotLife(t *testing.T) {
	s := newStand(t)
	s.memory.copies = 1
	s.make(t, request("pvc-1"))
	s.fill("pvc-1", 5000)
	if first := s.snapshot(t, "snap-1", "pvc-1"); first.ReadyToUse || first.SnapshotId != "snap-1" || first.CreationTime.AsTime() != s.memory.now.UTC() {
		t.Errorf("got %v", first)
	}
	early := request("pvc-0")
	early.VolumeContentSource = snapshotSource("snap-1")
	if _, err := s.CreateVolume(t.Context(), early); status.Code(err) != codes.Aborted {
		t.Errorf("a volume of what is still copied: %v", err)
	}
	if second := s.snapshot(t, "snap-1", "pvc-1"); !second.ReadyToUse || second.SizeBytes != 5000 || second.SourceVolumeId != "pvc-1" {
		t.Errorf("got %v", second)
	}
	r := request("pvc-2")
	r.VolumeContentSource = snapshotSource("snap-1")
	if v := s.make(t, r); v.ContentSource.GetSnapshot().GetSnapshotId() != "snap-1" {
		t.Errorf("got %v", v)
	}
	for range 2 {
		if _, err := s.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{SnapshotId: "snap-1", Secrets: credentials()}); err != nil {
			t.Error(err)
		}
	}
	s.make(t, r) // what has been made of the snapshot is there without it
	late := request("pvc-3")
	late.VolumeContentSource = snapshotSource("snap-1")
	if _, err := s.CreateVolume(t.Context(), late); status.Code(err) != codes.NotFound {
		t.Errorf("a volume of a deleted snapshot: %v", err)
	}
}

func TestSourceMustFit(t *testing.T) {
	s := newStand(t)
	s.make(t, request("pvc-1"))
	s.fill("pvc-1", 500)
	s.snapshot(t, "snap-1", "pvc-1")
	clone := request("pvc-2")
	clone.VolumeContentSource = volumeSource("pvc-1")
	s.make(t, clone)
	s.fill("pvc-1", 2<<20)
	s.make(t, clone) // it has grown since, and the clone has been made
	for i, source := range []*spec.VolumeContentSource{volumeSource("pvc-1"), snapshotSource("snap-1")} {
		r := request(fmt.Sprintf("pvc-small-%d", i))
		r.VolumeContentSource = source
		r.CapacityRange.RequiredBytes = 499
		if _, err := s.CreateVolume(t.Context(), r); status.Code(err) != codes.OutOfRange {
			t.Errorf("source %v: got %v", source, err)
		}
		r.CapacityRange = nil
		if v := s.make(t, r); v.CapacityBytes != 0 {
			t.Errorf("without a size: %v", v)
		}
	}
}

func TestSnapshotRefuses(t *testing.T) {
	s := newStand(t)
	s.make(t, request("pvc-1"))
	s.make(t, request("pvc-2"))
	s.snapshot(t, "snap-1", "pvc-1")
	for _, tc := range []struct {
		name    string
		request *spec.CreateSnapshotRequest
		code    codes.Code
	}{
		{"no name", &spec.CreateSnapshotRequest{SourceVolumeId: "pvc-1", Secrets: credentials()}, codes.InvalidArgument},
		{"long name", &spec.CreateSnapshotRequest{Name: strings.Repeat("x", 129), SourceVolumeId: "pvc-1", Secrets: credentials()}, codes.InvalidArgument},
		{"no source", &spec.CreateSnapshotRequest{Name: "x", Secrets: credentials()}, codes.InvalidArgument},
		{"no secret", &spec.CreateSnapshotRequest{Name: "x", SourceVolumeId: "pvc-1"}, codes.FailedPrecondition},
		{"a parameter", &spec.CreateSnapshotRequest{Name: "x", SourceVolumeId: "pvc-1", Secrets: credentials(), Parameters: map[string]string{"a": "b"}}, codes.InvalidArgument},
		{"unknown source", &spec.CreateSnapshotRequest{Name: "x", SourceVolumeId: "pvc-9", Secrets: credentials()}, codes.NotFound},
		{"impossible source", &spec.CreateSnapshotRequest{Name: "x", SourceVolumeId: "a/b", Secrets: credentials()}, codes.NotFound},
		{"of another volume", &spec.CreateSnapshotRequest{Name: "snap-1", SourceVolumeId: "pvc-2", Secrets: credentials()}, codes.AlreadyExists},
	} {
		if _, err := s.CreateSnapshot(t.Context(), tc.request); status.Code(err) != tc.code {
			t.Errorf("%s: got %v, want %s", tc.name, err, tc.code)
		}
	}
	for want, r := range map[codes.Code]*spec.DeleteSnapshotRequest{
		codes.InvalidArgument: {Secrets: credentials()}, codes.OK: {SnapshotId: "a/../b"},
	} {
		if _, err := s.DeleteSnapshot(t.Context(), r); status.Code(err) != want {
			t.Errorf("delete: got %v, want %s", err, want)
		}
	}
	_, err := s.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{SnapshotId: "snap-1"})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), snapshotterSecret) {
		t.Errorf("delete without secret: %v", err)
	}
}

func TestListSnapshots(t *testing.T) {
	s := newStand(t)
	for _, volume := range []string{"pvc-1", "pvc-2"} {
		s.make(t, request(volume))
		for i := range 4 {
			s.snapshot(t, fmt.Sprintf("snap-%s-%d", volume, i), volume)
		}
	}
	list := func(r *spec.ListSnapshotsRequest) (ids []string, next string) {
		t.Helper()
		r.Secrets = credentials()
		response, err := s.ListSnapshots(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range response.Entries {
			ids = append(ids, e.Snapshot.SnapshotId)
		}
		return ids, response.NextToken
	}
	if ids, next := list(&spec.ListSnapshotsRequest{}); len(ids) != 8 || next != "" {
		t.Errorf("got %v, %q", ids, next)
	}
	if ids, _ := list(&spec.ListSnapshotsRequest{SnapshotId: "snap-pvc-1-2"}); len(ids) != 1 || ids[0] != "snap-pvc-1-2" {
		t.Errorf("got %v", ids)
	}
	if ids, _ := list(&spec.ListSnapshotsRequest{SourceVolumeId: "pvc-2", MaxEntries: 4}); len(ids) != 4 {
		t.Errorf("got %v", ids)
	}
	for _, r := range []*spec.ListSnapshotsRequest{{SnapshotId: "nobody"}, {SnapshotId: "a/b"}, {SourceVolumeId: "nobody"}} {
		if ids, _ := list(r); len(ids) != 0 {
			t.Errorf("%v: got %v", r, ids)
		}
	}
	pages(t, s, list)
	for want, r := range map[codes.Code]*spec.ListSnapshotsRequest{
		codes.Aborted: {StartingToken: "3", Secrets: credentials()}, codes.InvalidArgument: {MaxEntries: -1, Secrets: credentials()},
	} {
		if _, err := s.ListSnapshots(t.Context(), r); status.Code(err) != want {
			t.Errorf("got %v, want %s", err, want)
		}
	}
	_, err := s.ListSnapshots(t.Context(), &spec.ListSnapshotsRequest{})
	if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), listSecret) {
		t.Errorf("without secret: %v", err)
	}
}

// pages lists three at a time, while the snapshot that a page ends with is deleted.
func pages(t *testing.T, s *stand, list func(*spec.ListSnapshotsRequest) ([]string, string)) {
	t.Helper()
	seen, token := map[string]bool{}, ""
	for {
		ids, next := list(&spec.ListSnapshotsRequest{MaxEntries: 3, StartingToken: token})
		for _, id := range ids {
			if seen[id] {
				t.Errorf("%s is listed twice", id)
			}
			seen[id] = true
		}
		if next == "" {
			break
		}
		if len(ids) != 3 {
			t.Errorf("a page has %v", ids)
		}
		if _, err := s.DeleteSnapshot(t.Context(), &spec.DeleteSnapshotRequest{SnapshotId: ids[2], Secrets: credentials()}); err != nil {
			t.Fatal(err)
		}
		token = next
	}
	if len(seen) != 8 {
		t.Errorf("pages have %v", seen)
	}
}
