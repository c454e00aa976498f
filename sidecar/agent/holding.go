package agent

import (
	"os"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// holding is what the agent keeps of a session: enough for any next client, and enough for a broker that has forgotten everything.
type holding struct {
	id           mount.SessionID
	mount        string
	volume       mount.Volume
	init, answer []byte
	// taken: a client has been given the connection, so it may have taken requests.
	taken bool

	device, memory *os.File
	// hold is the end of the lease that keeps it open; watch the one that tells the broker when nobody holds it.
	hold, watch *os.File
	// serving watches the lease of the agent that serves, as long as this one stands by; else it is nil.
	serving *os.File
}

// newHolding takes over the files of a session or standby message.
func newHolding(m wire.Message, files []*os.File) *holding {
	h := &holding{
		id: m.Session, mount: m.Mount, volume: *m.Volume, init: m.Init, answer: m.Answer, taken: m.Resumed,
		device: files[0], memory: files[1], hold: files[2], watch: files[3],
	}
	if m.Type == wire.Standby {
		h.serving = files[4]
	}
	return h
}

// standsBy: another agent serves the session, and this one keeps a client ready.
func (h *holding) standsBy() bool { return h.serving != nil }

// promote makes the session this agent's own.
func (h *holding) promote() {
	h.serving.Close()
	h.serving = nil
	h.taken = true
}

func (h *holding) deposit(view wire.Client, generation int) (wire.Message, []*os.File) {
	m := wire.Message{
		Type: wire.Deposit, Session: h.id, Mount: h.mount, Generation: generation, Volume: &h.volume,
		Init: h.init, Answer: h.answer, Resumed: h.taken, Client: &view,
	}
	if h.standsBy() {
		m.Type = wire.Reserve
		return m, []*os.File{h.device, h.memory, h.serving, h.watch}
	}
	return m, []*os.File{h.device, h.memory, h.watch}
}

func (h *holding) close() {
	wire.CloseAll([]*os.File{h.device, h.memory, h.hold, h.watch, h.serving})
}
