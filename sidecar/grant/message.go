package grant

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sidemount/sidemount/mount"
)

// Protocol is the name for ALPN. A change of meaning is another protocol.
const Protocol = "sidemount-grant/1"

// Audience is whom a token must be for, unless somebody chooses another name.
const Audience = "volumes.sidemount.io"

// Limits of a message in bytes. A volume has at most 256 KiB, a pod a few of them.
const (
	maxRequest = 64 << 10
	maxReply   = 8 << 20
	maxVolumes = 128
)

// ErrProtocol: the bytes are no message of this protocol.
var ErrProtocol = errors.New("not a message of the grant protocol")

// Request asks for volumes of the pod that the token is for.
type Request struct {
	// Token proves which pod asks.
	Token string `json:"token"`
	// Volumes are names of volumes in that pod.
	Volumes []string `json:"volumes"`
}

// Format keeps the token out of every printed form.
func (r Request) Format(f fmt.State, _ rune) { fmt.Fprintf(f, "grant request for %q", r.Volumes) }

// Reply has one Result for each volume asked for, in the same order, or an Error about the request as a whole.
type Reply struct {
	Results []Result `json:"results,omitempty"`
	Error   *Failure `json:"error,omitempty"`
}

// Result is a volume or the reason why there is none.
type Result struct {
	Volume *mount.Volume `json:"volume,omitempty"`
	Error  *Failure      `json:"error,omitempty"`
}

// Failure is an error on its way.
type Failure struct {
	// Message is for people and holds no secret.
	Message string `json:"message"`
	// Transient: the same request may succeed later without anybody's doing.
	Transient bool `json:"transient,omitempty"`
}

// Error implements error.
func (f *Failure) Error() string { return f.Message }

// Unwrap returns mount.ErrUnavailable for a transient failure, mount.ErrConfig for any other.
func (f *Failure) Unwrap() error {
	if f.Transient {
		return mount.ErrUnavailable
	}
	return mount.ErrConfig
}

func (r Request) check() error {
	if r.Token == "" || len(r.Volumes) == 0 || len(r.Volumes) > maxVolumes {
		return fmt.Errorf("a request needs a token and 1 to %d volumes: %w", maxVolumes, ErrProtocol)
	}
	return nil
}

func (r Reply) check(asked int) error {
	if r.Error != nil {
		return nil
	}
	if len(r.Results) != asked {
		return fmt.Errorf("%d results for %d volumes: %w", len(r.Results), asked, ErrProtocol)
	}
	for _, result := range r.Results {
		if (result.Volume == nil) == (result.Error == nil) {
			return fmt.Errorf("a result must be a volume or an error: %w", ErrProtocol)
		}
	}
	return nil
}

// write sends one message.
func write(w io.Writer, message any, limit int) error {
	body, err := json.Marshal(message)
	if err != nil {
		return fmt.Errorf("encode a message: %w", err)
	}
	if len(body) > limit {
		return fmt.Errorf("message of %d bytes, more than %d: %w", len(body), limit, ErrProtocol)
	}
	_, err = w.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(body))), body...))
	return err
}

// read receives one message. Its error quotes nothing of it.
func read(r io.Reader, message any, limit int) error {
	var head [4]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return fmt.Errorf("receive a message: %w", err)
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > uint32(limit) {
		return fmt.Errorf("message of %d bytes, more than %d: %w", size, limit, ErrProtocol)
	}
	// Memory is taken as bytes arrive, so that a length alone costs nothing.
	body, err := io.ReadAll(io.LimitReader(r, int64(size)))
	if err != nil {
		return fmt.Errorf("receive a message: %w", err)
	}
	if len(body) != int(size) {
		return fmt.Errorf("receive a message: %w", io.ErrUnexpectedEOF)
	}
	if json.Unmarshal(body, message) != nil {
		return ErrProtocol
	}
	return nil
}
