package object

import "errors"

var (
	// ErrOptions: a required option is missing.
	ErrOptions = errors.New("incomplete options")
	// ErrStopped: the store's Run has ended.
	ErrStopped = errors.New("object store stopped")
	// ErrBound: the pod of a token request is gone, or a newer pod has its name.
	ErrBound = errors.New("token cannot be bound to the pod")
	// ErrNoTrustBundle: a projection selects no ClusterTrustBundle and is not optional.
	ErrNoTrustBundle = errors.New("no trust bundle")
)
