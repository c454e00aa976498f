package mount

import "fmt"

// ClientKind names a client: the program that serves a volume.
type ClientKind string

const (
	// JuiceFS serves a JuiceFS volume with the JuiceFS engine. It is the default.
	JuiceFS ClientKind = "juicefs"
	// Passthrough serves a directory of the host; it needs nothing else to be installed.
	Passthrough ClientKind = "passthrough"
)

// VolumeID identifies a volume in the cluster: the volumeHandle of its PersistentVolume.
type VolumeID string

// Volume is a file system as its client must serve it.
type Volume struct {
	// ID is the volumeHandle of the PersistentVolume.
	ID VolumeID `json:"id"`
	// Name is what the pod calls it (pod.spec.volumes[].name); it is unique in the pod.
	Name string `json:"name"`
	// Client is the program that serves it.
	Client ClientKind `json:"client"`
	// Config describes the file system by the client's own keys, none of them secret (passthrough: "path").
	Config map[string]string `json:"config,omitempty"`
	// Options are the mount options in the client's own spelling, "key" or "key=value", later ones winning.
	Options []string `json:"options,omitempty"`
	// ReadOnly makes the mount refuse writes with EROFS.
	ReadOnly bool `json:"readOnly,omitempty"`
	// Secret is the content of the volume's Secret.
	Secret Secret `json:"secret,omitempty"`
}

// Secret is the content of a Kubernetes Secret on its way to a client. It travels over unix sockets in memory only and
// prints as its keys without their values, so that a log line or an error can never leak it.
type Secret map[string]string

// Format implements fmt.Formatter: every verb prints the number of keys and none of the values.
func (s Secret) Format(f fmt.State, _ rune) {
	fmt.Fprintf(f, "[%d secret keys]", len(s))
}
