package imagegc

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidemount/sidemount/provider/cri"
)

// store is a runtime on a disk of 1000 bytes. Images give back what they take.
type store struct {
	images []cri.Image
	used   map[string]bool
	taken  uint64
	stuck  map[string]bool
	gone   []string
}

func (s *store) Images(context.Context) ([]cri.Image, error)         { return s.images, nil }
func (s *store) UsedImages(context.Context) (map[string]bool, error) { return s.used, nil }
func (s *store) disk(string) (capacity, available uint64, err error) {
	return 1000, 1000 - s.taken, nil
}
func (s *store) ImageFileSystems(context.Context) (images, containers []cri.FileSystem, err error) {
	return []cri.FileSystem{{Mountpoint: "/images"}}, nil, nil
}

var errStuck = errors.New("stuck")

func (s *store) RemoveImage(_ context.Context, id string) error {
	if s.stuck[id] {
		return errStuck
	}
	i := slices.IndexFunc(s.images, func(img cri.Image) bool { return img.ID == id })
	s.taken -= s.images[i].Size
	s.images = slices.Delete(slices.Clone(s.images), i, i+1)
	s.gone = append(s.gone, id)
	return nil
}

// node is a collector whose clock the test moves.
type node struct {
	*store
	*Collector
	now time.Time
}

func newNode(t *testing.T, taken uint64, images ...cri.Image) *node {
	t.Helper()
	n := &node{store: &store{images: images, taken: taken, used: map[string]bool{}}, now: time.Unix(1000, 0)}
	c, err := New(Options{Runtime: n.store, Disk: n.disk, Now: func() time.Time { return n.now }})
	if err != nil {
		t.Fatal(err)
	}
	n.Collector = c
	return n
}

// look collects after so many minutes.
func (n *node) look(t *testing.T, minutes int) error {
	t.Helper()
	n.now = n.now.Add(time.Duration(minutes) * time.Minute)
	_, err := n.Collect(t.Context())
	return err
}

func TestNothingIsRemovedWhileThereIsRoom(t *testing.T) {
	n := newNode(t, 849, cri.Image{ID: "a", Size: 500})
	for range 3 {
		if err := n.look(t, 10); err != nil || len(n.gone) != 0 {
			t.Errorf("removed %v, %v", n.gone, err)
		}
	}
}

func TestLeastRecentlyUsedFirst(t *testing.T) {
	n := newNode(t, 0, cri.Image{ID: "a", Size: 40}, cri.Image{ID: "b", Size: 40}, cri.Image{ID: "c", Size: 40, RepoTags: []string{"c:1"}},
		cri.Image{ID: "d", Size: 40}, cri.Image{ID: "pinned", Size: 40, Pinned: true})
	n.used = map[string]bool{"a": true, "c:1": true}
	_ = n.look(t, 0)
	n.used = map[string]bool{"b": true, "c:1": true}
	_ = n.look(t, 5)
	n.used = map[string]bool{"c:1": true}
	n.taken = 900
	if err := n.look(t, 5); err != nil {
		t.Error(err)
	}
	// d was never used, a not since b was; c is in use by one of its names.
	if diff := cmp.Diff([]string{"d", "a", "b"}, n.gone); diff != "" {
		t.Errorf("removed (-want +got):\n%s", diff)
	}
	if n.taken != 780 {
		t.Errorf("%d bytes are taken, want no more than 800", n.taken)
	}
}

func TestAYoungImageIsKept(t *testing.T) {
	n := newNode(t, 900, cri.Image{ID: "a", Size: 500})
	if err := n.look(t, 0); !errors.Is(err, ErrNotEnough) || len(n.gone) != 0 {
		t.Errorf("removed %v, %v", n.gone, err)
	}
	if err := n.look(t, 2); err != nil || len(n.gone) != 1 {
		t.Errorf("removed %v, %v", n.gone, err)
	}
	n.images = []cri.Image{{ID: "a", Size: 500}}
	n.taken = 900
	if err := n.look(t, 1); !errors.Is(err, ErrNotEnough) {
		t.Errorf("an image that was pulled again is not young: %v, %v", n.gone, err)
	}
}

func TestAStuckImageDoesNotKeepTheOthers(t *testing.T) {
	n := newNode(t, 900, cri.Image{ID: "a", Size: 200}, cri.Image{ID: "b", Size: 200})
	n.stuck = map[string]bool{"a": true}
	_ = n.look(t, 0)
	if err := n.look(t, 5); !errors.Is(err, errStuck) || errors.Is(err, ErrNotEnough) || len(n.gone) != 1 {
		t.Errorf("removed %v, %v", n.gone, err)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	n := newNode(t, 0)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- n.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	for _, o := range []Options{{}, {Runtime: &store{}, HighPercent: 101}, {Runtime: &store{}, HighPercent: 50, LowPercent: 60}} {
		if _, err := New(o); err == nil {
			t.Errorf("New(%+v) succeeded", o)
		}
	}
	if c, a, err := statfs("/"); err != nil || c == 0 || a > c {
		t.Errorf("statfs = %d, %d, %v", c, a, err)
	}
}
