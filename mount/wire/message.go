package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sidemount/sidemount/mount"
)

// Version is the protocol that this package speaks. Fields may be added to it; a change of meaning is another version.
const Version = 1

// Limits of a message in bytes. A volume fits well below the default limit of a unix socket's buffer (net.core.wmem_max).
const (
	MaxVolume  = 256 << 10
	MaxMessage = 320 << 10
	maxText    = 4 << 10
)

// MaxBackings is how many backing files a session may have, and how many numbers fit into a message.
const MaxBackings = 4096

// ErrProtocol: the bytes are not a message of this protocol. The connection is of no more use.
var ErrProtocol = errors.New("protocol violation")

// Type says what a message is.
type Type string

// The messages; see the package's documentation for their directions.
const (
	Hello    Type = "hello"
	Session  Type = "session"
	Deposit  Type = "deposit"
	Accepted Type = "accepted"
	Refused  Type = "refused"
	State    Type = "state"
	Replace  Type = "replace"
	Update   Type = "update"
	Close    Type = "close"
	Closed   Type = "closed"
	Ping     Type = "ping"
	Pong     Type = "pong"
	Config   Type = "config"
	Ready    Type = "ready"
	Attach   Type = "attach"
	Serving  Type = "serving"
	Failed   Type = "failed"
	Back     Type = "back"
	Backed   Type = "backed"
	Unback   Type = "unback"
	Known    Type = "known"
	Standby  Type = "standby"
	Promote  Type = "promote"
	Reserve  Type = "reserve"
	Yield    Type = "yield"
	Leaving  Type = "leaving"
	Stay     Type = "stay"
)

// files is the exact number of files that travel with a message; a type that is not here does not exist.
var files = map[Type]int{
	Hello: 0, Session: 4, Deposit: 3, Accepted: 0, Refused: 0, State: 0, Replace: 0, Update: 0, Close: 0, Closed: 0, Ping: 0, Pong: 0,
	Config: 2, Ready: 0, Attach: 1, Serving: 0, Failed: 0,
	Back: 1, Backed: 0, Unback: 0, Known: 0,
	Standby: 5, Reserve: 4, Promote: 0, Yield: 0, Leaving: 0, Stay: 0,
}

const maxFiles = 5

// Phase is what an agent's client does.
type Phase string

// The phases of a client.
const (
	Starting   Phase = "starting"
	InService  Phase = "serving"
	Waiting    Phase = "waiting"  // it ended; the next one starts after a pause
	Prepared   Phase = "prepared" // it is ready to serve and waits until the agent is promoted
	Terminated Phase = "terminated"
)

// Cause is a kind of failure, as far as somebody decides by it.
type Cause string

// The causes of a failure.
const (
	CauseConfig      Cause = "config"
	CauseUnavailable Cause = "unavailable"
	CauseInternal    Cause = "internal"
	// CauseStale refuses a deposit: what it belongs to has ended. The agent drops it and says hello.
	CauseStale Cause = "stale"
)

// Message is a message of either protocol; a type uses some of its fields.
type Message struct {
	Version int             `json:"v"`
	Type    Type            `json:"type"`
	Session mount.SessionID `json:"session,omitempty"`
	// Mount tells one mount of a session from an earlier one of the same name, with session, standby, deposit and reserve.
	Mount string `json:"mount,omitempty"`
	// Generation orders the agents of a session, with hello, deposit and reserve: the later one is meant to follow the earlier one.
	Generation int `json:"generation,omitempty"`
	// Volume travels with session, standby, update, deposit, reserve and config.
	Volume *mount.Volume `json:"volume,omitempty"`
	// Init and Answer are the handshake's bytes, with session, standby, deposit, reserve and attach.
	Init   []byte `json:"init,omitempty"`
	Answer []byte `json:"answer,omitempty"`
	// Resumed: an earlier client has served the session, with session, standby and config.
	Resumed bool `json:"resumed,omitempty"`
	// Client is what the agent's client does, with state, deposit, reserve and pong.
	Client *Client `json:"client,omitempty"`
	// Grace is how long close or yield may take, and how long stay asks for.
	Grace time.Duration `json:"graceNanoseconds,omitempty"`
	// Cause and Text explain failed, refused, replace and backed; Text is for people and never holds a secret.
	Cause Cause  `json:"cause,omitempty"`
	Text  string `json:"text,omitempty"`
	// Request tells which back a backed answers; 0 answers all.
	Request uint64 `json:"request,omitempty"`
	// Backing is the number of a backing file, with backed; 0 refuses.
	Backing int32 `json:"backing,omitempty"`
	// Backings are numbers of backing files, with unback and known.
	Backings []int32 `json:"backings,omitempty"`
}

// Client is what an agent tells of its client.
type Client struct {
	Phase Phase `json:"phase"`
	// Starts counts the clients that this agent has started; Served those of them that came to serve.
	Starts int `json:"starts"`
	Served int `json:"served"`
	// Ended is how the last client ended: "signal: killed", "exit status 1", "oom", "hung".
	Ended string `json:"ended,omitempty"`
	// Pause is how long requests had to wait for this client, when it is the one after another.
	Pause time.Duration `json:"pauseNanoseconds,omitempty"`
	// Cause and Text are why the last client failed, if it said so.
	Cause Cause  `json:"cause,omitempty"`
	Text  string `json:"text,omitempty"`
	// Alive: the client has answered the ping before this one, in a pong.
	Alive bool `json:"alive,omitempty"`
	// Resent counts requests that came once more, after the client before had died over them; Replayed counts bytes of writes that it had not stored. In a client's pong
	// they are about that client, in an agent's about all of its clients.
	Resent   uint64 `json:"resent,omitempty"`
	Replayed uint64 `json:"replayedBytes,omitempty"`
	// Flushed: the last client has written everything out and ended because it was asked to.
	Flushed bool `json:"flushed,omitempty"`
}

// Encode writes a message. It fails for a message that the other end would refuse.
func Encode(m Message) ([]byte, error) {
	m.Version = Version
	m.Text = clip(m.Text)
	b, err := json.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("encode %s: %w", m.Type, err)
	}
	if len(b) > MaxMessage {
		return nil, fmt.Errorf("encode %s: %d bytes are more than %d: %w", m.Type, len(b), MaxMessage, mount.ErrConfig)
	}
	return b, nil
}

// Decode reads a message and checks its shape. The error never quotes the message, which may hold a secret.
func Decode(b []byte) (Message, error) {
	if len(b) > MaxMessage {
		return Message{}, fmt.Errorf("message of %d bytes: %w", len(b), ErrProtocol)
	}
	var m Message
	if err := json.Unmarshal(b, &m); err != nil {
		return Message{}, fmt.Errorf("message is not JSON of the expected shape: %w", ErrProtocol)
	}
	if m.Version != Version {
		return Message{}, fmt.Errorf("message of version %d: %w", m.Version, ErrProtocol)
	}
	if _, ok := files[m.Type]; !ok {
		return Message{}, fmt.Errorf("message of unknown type: %w", ErrProtocol)
	}
	if err := m.check(); err != nil {
		return Message{}, err
	}
	m.Text = clip(m.Text)
	if m.Client != nil {
		m.Client.Text, m.Client.Ended = clip(m.Client.Text), clip(m.Client.Ended)
	}
	return m, nil
}

// check refuses a message without the fields that its type needs, so that no receiver has to.
func (m Message) check() error {
	whole := m.Type == Session || m.Type == Standby || m.Type == Deposit || m.Type == Reserve
	needVolume := whole || m.Type == Update || m.Type == Config
	needInit := whole || m.Type == Attach
	needClient := m.Type == State || m.Type == Deposit || m.Type == Reserve || m.Type == Pong
	switch {
	case needVolume && m.Volume == nil:
		return fmt.Errorf("%s without a volume: %w", m.Type, ErrProtocol)
	case needInit && (len(m.Init) == 0 || len(m.Answer) == 0):
		return fmt.Errorf("%s without INIT: %w", m.Type, ErrProtocol)
	case needClient && m.Client == nil:
		return fmt.Errorf("%s without a client's state: %w", m.Type, ErrProtocol)
	case m.Generation < 0:
		return fmt.Errorf("%s with a negative generation: %w", m.Type, ErrProtocol)
	case m.Grace < 0:
		return fmt.Errorf("%s with a negative grace: %w", m.Type, ErrProtocol)
	case m.Type == Back && m.Request == 0:
		return fmt.Errorf("%s without a request's number: %w", m.Type, ErrProtocol)
	}
	return m.checkBackings()
}

func (m Message) checkBackings() error {
	if len(m.Backings) > MaxBackings {
		return fmt.Errorf("%s of %d backing files: %w", m.Type, len(m.Backings), ErrProtocol)
	}
	if m.Backing < 0 || slices.ContainsFunc(m.Backings, func(number int32) bool { return number <= 0 }) {
		return fmt.Errorf("%s with a backing file's number below 1: %w", m.Type, ErrProtocol)
	}
	return nil
}

// clip bounds text that comes from a client and goes to logs and events. No character is cut in two.
func clip(s string) string {
	if len(s) <= maxText {
		return s
	}
	return strings.ToValidUTF8(s[:maxText], "")
}

// Same tells whether two reports are about the same client in service.
func (c Client) Same(other Client) bool {
	return c.Phase == InService && other.Phase == InService && c.Starts == other.Starts
}
