package preflight

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Below these the pods of a node soon meet a full disk.
const (
	leastFree        = 1 << 30 // bytes
	leastFreePercent = 5
)

// agent looks whether the agent can run in any image.
func (h *Host) agent(context.Context) Result {
	const check = "agent"
	path := h.o.AgentPath
	cure := "put sidemount-agent beside sidemount, or name it with --agent-path"
	info, err := os.Stat(h.path(path))
	switch {
	case errors.Is(err, os.ErrNotExist):
		return missing(check, path+" is not there", cure)
	case err != nil:
		return unread(check, err)
	case !info.Mode().IsRegular() || info.Mode()&0o111 == 0:
		return missing(check, path+" is not a program", cure)
	}
	program, err := elf.Open(h.path(path))
	if err != nil {
		return missing(check, path+" is not a program of this system: "+err.Error(), cure)
	}
	defer func() { _ = program.Close() }() // was only read
	for _, p := range program.Progs {
		if p.Type == elf.PT_INTERP {
			return missing(check, path+" is linked dynamically, and would not start in the images of clients", "build it with CGO_ENABLED=0")
		}
	}
	return ok(check, "%s", path)
}

// kubelet looks for the directory that its plugins register in.
func (h *Host) kubelet(context.Context) Result {
	const check = "kubelet directory"
	const cure = "name the kubelet's --root-dir in --kubelet-dir (the chart's kubeletDir): k0s has /var/lib/k0s/kubelet, microk8s /var/snap/microk8s/common/var/lib/kubelet"
	for _, dir := range []string{"plugins_registry", "pods"} {
		dir = filepath.Join(h.o.KubeletDir, dir)
		info, err := os.Stat(h.path(dir))
		switch {
		case errors.Is(err, os.ErrNotExist), err == nil && !info.IsDir():
			return missing(check, "there is no directory "+dir, cure)
		case err != nil:
			return unread(check, err)
		}
	}
	return ok(check, "%s", h.o.KubeletDir)
}

// disk looks at the file system of all state.
func (h *Host) disk(context.Context) Result {
	check := "disk of " + h.o.StateDir
	mount, err := h.mountOf(h.o.StateDir)
	if err != nil {
		return unread(check, err)
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(h.existing(h.o.StateDir), &fs); err != nil {
		return unread(check, &os.PathError{Op: "statfs", Path: h.o.StateDir, Err: err})
	}
	if mount.readOnly || fs.Flags&unix.ST_RDONLY != 0 {
		return missing(check, mount.point+" is read-only", "name a directory that can be written")
	}
	free, all := int64(fs.Bavail)*fs.Bsize, int64(fs.Blocks)*fs.Bsize
	found := fmt.Sprintf("%s free of %s", size(free), size(all))
	switch {
	case free == 0:
		return missing(check, found, "make room")
	case free < leastFree || free*100 < all*leastFreePercent:
		return warning(check, found, "make room: pods' volumes and logs are there, and a pod that finds no space fails")
	case fs.Files > 0 && fs.Ffree*100 < fs.Files*leastFreePercent:
		return warning(check, fmt.Sprintf("%s, %d inodes of %d", found, fs.Ffree, fs.Files), "remove files: every volume and log needs inodes")
	}
	return ok(check, "%s", found)
}

// sockets looks whether the directory of sockets is empty after a boot.
func (h *Host) sockets(context.Context) Result {
	check := "sockets in " + h.o.RunDir
	mount, err := h.mountOf(h.o.RunDir)
	switch {
	case err != nil:
		return unread(check, err)
	case mount.readOnly:
		return missing(check, mount.point+" is read-only", "name a directory that can be written in --run-dir")
	case mount.kind != "tmpfs":
		return warning(check, mount.point+" is "+mount.kind+", whose files survive a boot", "use a directory below /run, or remove what is in it at boot")
	}
	return ok(check, "%s is tmpfs", mount.point)
}

// existing is the nearest directory above a path that exists, where the host's tree is seen.
func (h *Host) existing(path string) string {
	for ; path != "/"; path = filepath.Dir(path) {
		if _, err := os.Stat(h.path(path)); err == nil {
			break
		}
	}
	return h.path(path)
}

func size(bytes int64) string {
	if bytes < 1<<30 {
		return fmt.Sprintf("%d MiB", bytes>>20)
	}
	return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
}
