package volume

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/provider/volume/tree"
)

// OpenFile opens a regular file in one of the volumes that SetUp returned, for an environment variable that a container has
// written. The path cannot leave the volume, and nothing but a regular file is read. A missing file is fs.ErrNotExist.
// Volumes of somebody else are refused: reading from them could take for ever.
func (m *Manager) OpenFile(_ context.Context, volumes map[string]Mount, volume, path string) (io.ReadCloser, error) {
	mount, ok := volumes[volume]
	if !ok {
		return nil, fmt.Errorf("cannot find the volume %q", volume)
	}
	if mount.Foreign {
		return nil, fmt.Errorf("volume %q is not one of the node's own: %w", volume, ErrUnsupported)
	}
	root, err := tree.Root(mount.HostPath)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	// A container could have left a pipe or a device there.
	file, err := tree.Open(root, path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOCTTY)
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file: %w", path, ErrUnsupported)
	}
	if err != nil {
		file.Close()
		return nil, err
	}
	return file, nil
}
