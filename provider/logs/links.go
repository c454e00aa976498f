package logs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/sidemount/sidemount/provider/cri"
)

const (
	linkSuffix = ".log"
	// maxName is how long a file's name may be.
	maxName = 255
)

// linkName is the name by which log collectors find a container's log and learn whose it is. One that is too long is cut before
// the id, as collectors need that most.
func linkName(p cri.Pod, c cri.Container) string {
	tail := "-" + c.ID + linkSuffix
	head := fmt.Sprintf("%s_%s_%s", p.Name, p.Namespace, c.Name)
	return head[:min(len(head), max(0, maxName-len(tail)))] + tail
}

// link makes each container's link in dir point to its log and removes the links into root whose container is gone. Links to
// elsewhere belong to somebody else, a kubelet perhaps.
func link(dir, root string, pods []cri.Pod) error {
	wanted := map[string]string{}
	for _, p := range pods {
		for _, c := range p.Containers {
			wanted[linkName(p, c)] = Path(root, p, c)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		name := filepath.Join(dir, e.Name())
		target, err := os.Readlink(name)
		if err != nil || !strings.HasPrefix(target, root+"/") {
			continue
		}
		if wanted[e.Name()] == target {
			delete(wanted, e.Name())
			continue
		}
		errs = append(errs, remove(name))
	}
	for name, target := range wanted {
		if _, err := os.Stat(target); errors.Is(err, fs.ErrNotExist) {
			// A container that was never started has no log.
			continue
		}
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
