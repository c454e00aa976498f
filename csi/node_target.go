package csi

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount/mountpoint"
)

// podsDir is the kubelet's directory of pods. Parts of it belong to pods, which may put symbolic links there; none is
// followed.
type podsDir struct{ kubelet string }

// kubeletLayout is the path of a target below the directory of pods:
//
//	<pod's uid>/volumes/kubernetes.io~csi/<volume>/mount
const (
	kubeletLayoutParts = 5
	kubeletPlugin      = "kubernetes.io~csi"
)

// target is a path at which a volume is published, inside the directory of pods.
type target struct {
	// path is as it was asked for; real has no symbolic link in it, as in mount tables, and names the target towards the keeper.
	path, real string
	// rel is relative to the directory of pods.
	rel string
	// volume is what the kubelet calls the volume: the PersistentVolume's name, or for an inline volume its name in the pod. ""
	// if the path is not made as the kubelet makes it.
	volume string
	// pod is the UID of the pod whose path it is, "" if volume is.
	pod types.UID
}

// target checks a path. It need not exist.
func (d podsDir) target(path string) (target, error) {
	refuse := func(why string) (target, error) {
		return target{}, status.Errorf(codes.InvalidArgument, "target path %q %s", path, why)
	}
	switch {
	case path == "":
		return target{}, status.Error(codes.InvalidArgument, "target path is empty")
	case strings.ContainsFunc(path, func(r rune) bool { return r < ' ' || r == 0x7f }):
		return refuse("has a line break or another control character in it")
	case !filepath.IsAbs(path) || filepath.Clean(path) != path:
		return refuse("is not a clean absolute path")
	}
	pods := filepath.Join(d.kubelet, "pods")
	rel, below := strings.CutPrefix(path, pods+"/")
	if !below {
		return refuse("is not below " + pods + "; if that is not the kubelet's directory, name it with --kubelet-dir")
	}
	real, err := d.real()
	if err != nil {
		return target{}, err
	}
	t := target{path: path, real: filepath.Join(real, rel), rel: rel}
	if parts := strings.Split(rel, "/"); len(parts) == kubeletLayoutParts && parts[1] == "volumes" && parts[2] == kubeletPlugin && parts[4] == "mount" {
		t.volume, t.pod = parts[3], types.UID(parts[0])
	}
	return t, nil
}

// real is the directory of pods as mount tables name it.
func (d podsDir) real() (string, error) {
	real, err := filepath.EvalSymlinks(d.kubelet)
	if err != nil {
		return "", fmt.Errorf("find the kubelet's directory: %w", err)
	}
	return filepath.Join(real, "pods"), nil
}

// asked returns a path of a mount table as the kubelet writes it.
func (d podsDir) asked(real string) (string, error) {
	pods, err := d.real()
	return filepath.Join(d.kubelet, "pods", strings.TrimPrefix(real, pods)), err
}

// parent opens the directory that holds the target, without following a link below the directory of pods.
func (d podsDir) parent(t target) (*os.File, error) {
	pods, err := os.Open(filepath.Join(d.kubelet, "pods"))
	if err != nil {
		return nil, err
	}
	defer pods.Close()
	return open(pods, filepath.Dir(t.rel))
}

// present is parent for a target that is to be published: the caller makes the directory above it (CSI specification, target_path).
func (d podsDir) present(t target) (*os.File, error) {
	parent, err := d.parent(t)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, status.Errorf(codes.FailedPrecondition, "the directory above the target path %s does not exist", t.path)
	}
	return parent, err
}

// open opens a directory below another one for nothing but its name, so that no file system is asked.
func open(dir *os.File, rel string) (*os.File, error) {
	how := &unix.OpenHow{Flags: unix.O_PATH | unix.O_DIRECTORY | unix.O_CLOEXEC, Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS}
	name := filepath.Join(dir.Name(), rel)
	fd, err := unix.Openat2(int(dir.Fd()), rel, how)
	if errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return nil, status.Errorf(codes.InvalidArgument, "target path leads through a symbolic link at or above %s", name)
	}
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// make makes the target's directory if it is missing, and opens it. made tells whether it was missing.
func (d podsDir) make(t target) (dir *os.File, made bool, err error) {
	parent, err := d.present(t)
	if err != nil {
		return nil, false, err
	}
	defer parent.Close()
	name := filepath.Base(t.rel)
	err = unix.Mkdirat(int(parent.Fd()), name, 0o750)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, false, &fs.PathError{Op: "mkdir", Path: t.path, Err: err}
	}
	made = err == nil
	dir, err = open(parent, name)
	return dir, made, err
}

// clear ends every mount at the target. What is mounted there is not asked, and need not be alive.
func (d podsDir) clear(t target) error {
	mounts, err := mountpoint.At(t.real)
	if err != nil || len(mounts) == 0 {
		return err
	}
	parent, err := d.parent(t)
	if err != nil {
		return err
	}
	defer parent.Close()
	for range mounts {
		// The name is looked up from the open directory, so that nobody can have it lead elsewhere.
		if err := mountpoint.Detach(fmt.Sprintf("/proc/self/fd/%d/%s", parent.Fd(), filepath.Base(t.rel))); err != nil {
			return fmt.Errorf("detach %s: %w", t.path, err)
		}
	}
	return nil
}

// remove removes the target's directory if it is empty; kept tells that it is not. Nothing in it is ever deleted: it may be
// somebody's data.
func (d podsDir) remove(t target) (kept bool, err error) {
	parent, err := d.parent(t)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer parent.Close()
	switch err := unix.Unlinkat(int(parent.Fd()), filepath.Base(t.rel), unix.AT_REMOVEDIR); err {
	case nil, unix.ENOENT:
		return false, nil
	case unix.ENOTEMPTY, unix.EEXIST, unix.ENOTDIR:
		return true, nil
	default:
		return false, &fs.PathError{Op: "rmdir", Path: t.path, Err: err}
	}
}
