package engine

import (
	"errors"
	"strings"
	"testing"

	"github.com/juicedata/juicefs/pkg/object"
	"github.com/juicedata/juicefs/pkg/utils"

	"github.com/sidemount/sidemount/mount"
)

// pageless is a store that lists everything or nothing, as Redis does.
type pageless struct{ object.ObjectStorage }

func (pageless) List(string, string, string, string, int64, bool) ([]object.Object, bool, string, error) {
	return nil, false, "", utils.ENOTSUP
}

func (p pageless) ListAll(string, string, bool) (<-chan object.Object, error) {
	objects, _, _, err := p.ObjectStorage.List("", "", "", "", 100, true)
	all := make(chan object.Object, len(objects))
	for _, o := range objects {
		all <- o
	}
	close(all)
	return all, err
}

func TestTrialOfAStoreThatListsNoPages(t *testing.T) {
	memory, err := object.CreateStorage("mem", "", "", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := trial(pageless{memory}); err != nil {
		t.Errorf("an empty store: %v", err)
	}
	if err := memory.Put("chunks/0/0/1_0_4", strings.NewReader("data")); err != nil {
		t.Fatal(err)
	}
	if err := trial(pageless{memory}); !errors.Is(err, mount.ErrConfig) {
		t.Errorf("a store with objects: got %v, want ErrConfig", err)
	}
}
