package volume

import (
	"errors"

	"github.com/sidemount/sidemount/provider/volume/tree"
)

var (
	// ErrOptions: a required option is missing or senseless.
	ErrOptions = errors.New("incomplete options")
	// ErrUnsupported: the node does not serve this kind of volume, source or option. Retrying is of no use.
	ErrUnsupported = errors.New("unsupported")
	// ErrMounted: a mount that this package has not made lies in the pod's directory; nothing behind it was touched.
	ErrMounted = tree.ErrMounted
	// ErrEscape: a path leaves its volume.
	ErrEscape = tree.ErrEscape
	// ErrStalled: a file system did not answer in time.
	ErrStalled = errors.New("file system does not answer")
	// ErrTornDown: the pod's volumes are being removed or are gone.
	ErrTornDown = errors.New("volumes of the pod are torn down")
)

// Error says which volume of which pod could not be made; Unwrap gives the reason.
type Error struct {
	// Volume is the name in pod.spec.volumes.
	Volume string
	// Err is the reason; an *env.MissingError if an object does not exist.
	Err error
}

// Error implements error in the words of the kubelet's FailedMount event.
func (e *Error) Error() string {
	return "MountVolume.SetUp failed for volume \"" + e.Volume + "\" : " + e.Err.Error()
}

// Unwrap returns the reason.
func (e *Error) Unwrap() error { return e.Err }
