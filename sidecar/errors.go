package sidecar

import (
	"errors"

	"github.com/sidemount/sidemount/mount"
)

// ErrCollision means that the pod already has a container or volume with a name that a sidecar needs.
var ErrCollision = errors.New("name taken by the pod")

// Reason says in one word why a volume cannot be used. It is fit for an Event.
type Reason string

const (
	// ReasonClaimNotFound: the claim does not exist.
	ReasonClaimNotFound Reason = "ClaimNotFound"
	// ReasonClaimPending: the claim is not bound yet.
	ReasonClaimPending Reason = "ClaimPending"
	// ReasonClaimLost: the claim has lost its PersistentVolume.
	ReasonClaimLost Reason = "ClaimLost"
	// ReasonClaimInvalid: the claim is being deleted, or belongs to another pod.
	ReasonClaimInvalid Reason = "ClaimInvalid"
	// ReasonForeignDriver: the volume is of a driver that this node does not serve.
	ReasonForeignDriver Reason = "ForeignDriver"
	// ReasonVolumeNotFound: the PersistentVolume does not exist.
	ReasonVolumeNotFound Reason = "VolumeNotFound"
	// ReasonVolumeInvalid: the PersistentVolume cannot be used as it is.
	ReasonVolumeInvalid Reason = "VolumeInvalid"
	// ReasonVolumeInUse: another pod uses the volume, which allows one at a time.
	ReasonVolumeInUse Reason = "VolumeInUse"
	// ReasonAttributeInvalid: an attribute, annotation or mount option is unknown or malformed.
	ReasonAttributeInvalid Reason = "AttributeInvalid"
	// ReasonSecretNotFound: the Secret does not exist, or none is named.
	ReasonSecretNotFound Reason = "SecretNotFound"
	// ReasonSecretInvalid: a key of the Secret is missing or malformed.
	ReasonSecretInvalid Reason = "SecretInvalid"
	// ReasonPodUnsupported: the pod asks for something that its sidecar cannot live with.
	ReasonPodUnsupported Reason = "PodUnsupported"
	// ReasonUnavailable: the API server did not answer, or not yet as it will.
	ReasonUnavailable Reason = "Unavailable"
)

// Error says why a volume cannot be used, in words for the user who has to mend it. It never holds the value of a Secret.
type Error struct {
	// Reason is the class of the error.
	Reason Reason
	// Object is what has to be looked at: kind and name, "PersistentVolumeClaim shop/data".
	Object string
	// Field is the path of the wrong field in that object; "" when the object as a whole is meant.
	Field string
	// Message completes the sentence that Object begins: "is not found".
	Message string
	// Cure is what the user can do, in the imperative.
	Cure string
	// Transient means that the same request may succeed later without a change by the user.
	Transient bool
	// Err is the cause, where there is one.
	Err error
}

// Error implements error: "<object> <message> (<field>); <cure>".
func (e *Error) Error() string {
	s := e.Object + " " + e.Message
	if e.Field != "" {
		s += " (" + e.Field + ")"
	}
	if e.Cure != "" {
		s += "; " + e.Cure
	}
	return s
}

// Unwrap returns the cause and mount.ErrUnavailable for a transient error, mount.ErrConfig for any other.
func (e *Error) Unwrap() []error {
	class := mount.ErrConfig
	if e.Transient {
		class = mount.ErrUnavailable
	}
	if e.Err == nil {
		return []error{class}
	}
	return []error{class, e.Err}
}
