package sidecar

import (
	"crypto/sha256"
	"encoding/hex"
	"strconv"
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
)

const (
	// prefix begins the name of every container and volume that Inject adds.
	prefix = "sidemount-"
	// nameLimit is the longest name of a container or volume, a DNS label (RFC 1123).
	nameLimit = 63
	// shortHash is what a shortened name ends with, in hexadecimal digits.
	shortHash = 8
	// sessionHash has 80 bits, in hexadecimal digits: the user chooses the volume's name, so that fewer could be made to
	// collide with the session of another pod.
	sessionHash = 20
	// sessionName is how much of the volume's name leads a session ID, for the eyes of the operator only.
	sessionName = 20
)

// SessionID returns the session of a volume in a pod. It is the same for the pod's whole life, on every start of the node.
// podUID and volume determine it; volume is pod.spec.volumes[].name.
func SessionID(podUID types.UID, volume string) mount.SessionID {
	lead := volume
	if len(lead) > sessionName {
		lead = lead[:sessionName]
	}
	return mount.SessionID(strings.TrimRight(lead, "-") + "-" + digest(string(podUID)+"/"+volume, sessionHash))
}

// GuestSession returns the session of a volume in a pod that holds its sessions itself: it need be unique in the pod only.
func GuestSession(volume string) mount.SessionID { return SessionID("", volume) }

// ContainerName returns the name of the sidecar that serves a volume: "sidemount-<volume>", shortened to 63 characters by a
// hash where it has to be.
func ContainerName(volume string) string {
	return dnsLabel(prefix + volume)
}

// GenerationName returns the name of the container of one of several generations of a volume's sidecar; that of the first is ContainerName. No
// other volume's sidecar can have it, because the name of a volume does not begin with a dash.
func GenerationName(volume string, generation int) string {
	if generation == 0 {
		return ContainerName(volume)
	}
	return dnsLabel(prefix + "-" + strconv.Itoa(generation) + "-" + volume)
}

// dnsLabel returns name if it is short enough, otherwise its beginning and a hash of the whole.
func dnsLabel(name string) string {
	if len(name) <= nameLimit {
		return name
	}
	head := strings.TrimRight(name[:nameLimit-shortHash-1], "-")
	return head + "-" + digest(name, shortHash)
}

func digest(s string, digits int) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])[:digits]
}
