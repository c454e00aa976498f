package logs

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sidemount/sidemount/provider/cri"
)

// fakeRuntime has pods and opens their logs anew.
type fakeRuntime struct {
	root   string
	pods   []cri.Pod
	err    error
	opened []string
}

func (r *fakeRuntime) Pods(context.Context) ([]cri.Pod, error) {
	return r.pods, nil
}

func (r *fakeRuntime) ReopenLog(_ context.Context, id string) error {
	r.opened = append(r.opened, id)
	if r.err != nil {
		return r.err
	}
	for _, p := range r.pods {
		for _, c := range p.Containers {
			if c.ID == id {
				return os.WriteFile(Path(r.root, p, c), nil, 0o640)
			}
		}
	}
	return cri.ErrNotFound
}

// newNode has a running and an ended container, each with a log of the given size.
func newNode(t *testing.T, size int) (*fakeRuntime, *Keeper) {
	t.Helper()
	r := &fakeRuntime{root: t.TempDir()}
	r.pods = []cri.Pod{{UID: "u", Namespace: "ns", Name: "pod", Containers: []cri.Container{
		{ID: "live", Name: "app", Attempt: 2, State: cri.Running}, {ID: "dead", Name: "app", Attempt: 1, State: cri.Exited},
		{ID: "unborn", Name: "later", State: cri.Created},
	}}}
	for _, c := range r.pods[0].Containers[:2] {
		path := Path(r.root, r.pods[0], c)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(strings.Repeat("x", size)), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	k, err := NewKeeper(KeeperOptions{Runtime: r, Root: r.root, Links: t.TempDir(), MaxSize: 100, MaxFiles: 4, Interval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	return r, k
}

func names(t *testing.T, dir string) []string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

func TestKeepRotatesWhatRunsAndIsLarge(t *testing.T) {
	r, k := newNode(t, 100)
	if err := k.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"live"}, r.opened); diff != "" {
		t.Errorf("reopened (-want +got):\n%s", diff)
	}
	got := names(t, filepath.Join(r.root, "ns_pod_u", "app"))
	if len(got) != 3 || got[0] != "1.log" || got[1] != "2.log" || !strings.HasPrefix(got[2], "2.log.20") {
		t.Errorf("files %v", got)
	}
	if err := k.Keep(t.Context()); err != nil || len(r.opened) != 1 {
		t.Errorf("a small log was rotated: %v, %v", r.opened, err)
	}
}

func TestRotateKeepsSoManyFiles(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "0.log")
	write := func(name, content string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o640); err != nil {
			t.Fatal(err)
		}
	}
	write("0.log.20250101-000000.gz", "old")
	write("0.log.20250102-000000.tmp", "interrupted")
	write("0.log.20250102-000000", "interrupted before its end")
	write("0.log.20250103-000000", "interrupted after its end")
	write("0.log.20250103-000000.gz", "complete")
	write("1.log", "another's")
	for i := range 6 {
		write("0.log", fmt.Sprint("content ", i))
		reopen := func(context.Context) error { return os.WriteFile(path, nil, 0o640) }
		if err := rotate(t.Context(), path, 4, epoch.Add(time.Duration(i)*time.Minute), reopen); err != nil {
			t.Fatal(err)
		}
	}
	want := []string{"0.log", "0.log.20260102-030705.gz", "0.log.20260102-030805.gz", "0.log.20260102-030905", "1.log"}
	if diff := cmp.Diff(want, names(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	f, err := os.Open(filepath.Join(dir, want[2]))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	if data, err := io.ReadAll(z); err != nil || string(data) != "content 4" {
		t.Errorf("the compressed file has %q, %v", data, err)
	}
	if info, err := f.Stat(); err != nil || info.Mode().Perm() != 0o640 {
		t.Errorf("its mode is %v, %v", info.Mode(), err)
	}
	if err := Remove(path); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"1.log"}, names(t, dir)); diff != "" {
		t.Errorf("after Remove (-want +got):\n%s", diff)
	}
	if err := Remove(filepath.Join(dir, "no", "0.log")); err != nil {
		t.Errorf("Remove of nothing: %v", err)
	}
}

func TestRotateUndoesItselfIfTheRuntimeRefuses(t *testing.T) {
	r, k := newNode(t, 100)
	r.err = errors.New("no")
	if err := k.Keep(t.Context()); !errors.Is(err, r.err) {
		t.Errorf("Keep: %v", err)
	}
	if diff := cmp.Diff([]string{"1.log", "2.log"}, names(t, filepath.Join(r.root, "ns_pod_u", "app"))); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	r.err = cri.ErrNotFound
	if err := k.Keep(t.Context()); err != nil {
		t.Errorf("a container that is gone: %v", err)
	}
}

func TestKeepReopensALostFile(t *testing.T) {
	r, k := newNode(t, 1)
	path := Path(r.root, r.pods[0], r.pods[0].Containers[0])
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := k.Keep(t.Context()); err != nil || len(r.opened) != 1 {
		t.Errorf("reopened %v, %v", r.opened, err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Error(err)
	}
}

func TestKeepLinks(t *testing.T) {
	r, k := newNode(t, 1)
	dir := k.opts.Links
	foreign := filepath.Join(dir, "foreign_ns_c-1.log")
	if err := os.Symlink("/var/log/elsewhere/0.log", foreign); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"gone_ns_app-9.log", "pod_ns_app-dead.log"} {
		if err := os.Symlink(filepath.Join(r.root, "gone", "0.log"), filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	for range 2 {
		if err := k.Keep(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"foreign_ns_c-1.log", "pod_ns_app-dead.log", "pod_ns_app-live.log"}, names(t, dir)); diff != "" {
			t.Fatalf("(-want +got):\n%s", diff)
		}
	}
	if target, err := os.Readlink(filepath.Join(dir, "pod_ns_app-dead.log")); err != nil || target != filepath.Join(r.root, "ns_pod_u", "app", "1.log") {
		t.Errorf("the link of the ended container leads to %s, %v", target, err)
	}
	r.pods = nil
	if err := k.Keep(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"foreign_ns_c-1.log"}, names(t, dir)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	long := linkName(cri.Pod{Name: strings.Repeat("p", 253), Namespace: "ns"}, cri.Container{Name: "c", ID: strings.Repeat("0", 64)})
	if len(long) != 255 || !strings.HasSuffix(long, "-"+strings.Repeat("0", 64)+".log") {
		t.Errorf("the link of a pod with a long name is %q", long)
	}
}

func TestRunEndsWithItsContext(t *testing.T) {
	_, k := newNode(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- k.Run(ctx) }()
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestKeeperOptions(t *testing.T) {
	for _, o := range []KeeperOptions{{}, {Runtime: &fakeRuntime{}, MaxFiles: 1}, {Runtime: &fakeRuntime{}, MaxSize: -1}} {
		if _, err := NewKeeper(o); err == nil {
			t.Errorf("NewKeeper(%+v) succeeded", o)
		}
	}
}
