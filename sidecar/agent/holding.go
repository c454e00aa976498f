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
}

// newHolding takes over the files of a session message.
func newHolding(m wire.Message, files []*os.File) *holding {
	return &holding{
		id: m.Session, mount: m.Mount, volume: *m.Volume, init: m.Init, answer: m.Answer, taken: m.Resumed,
		device: files[0], memory: files[1], hold: files[2], watch: files[3],
	}
}

func (h *holding) deposit(view wire.Client) (wire.Message, []*os.File) {
	return wire.Message{
		Type: wire.Deposit, Session: h.id, Mount: h.mount, Volume: &h.volume,
		Init: h.init, Answer: h.answer, Resumed: h.taken, Client: &view,
	}, []*os.File{h.device, h.memory, h.watch}
}

func (h *holding) close() {
	wire.CloseAll([]*os.File{h.device, h.memory, h.hold, h.watch})
}
