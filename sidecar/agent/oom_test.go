package agent

import (
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/wire"
)

// A client that were given its score after it had been started would be spared until then, and the agent taken instead.
func TestClientIsBornALikelierVictimThanTheAgent(t *testing.T) {
	score := func() string {
		raw, err := os.ReadFile(ownOOMScore)
		if err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(string(raw))
	}
	before := score()
	own, err := strconv.Atoi(before)
	if err != nil {
		t.Fatal(err)
	}
	b := newBroker(t)
	run(t, b.socket, "serve")
	b.hand(mount.Volume{ID: "v", Config: map[string]string{"do": "score"}}, false)
	m := b.until("the client's score", func(m wire.Message) bool { return m.Type == wire.State && m.Client.Text != "" })
	if want := strconv.Itoa(min(own+500, 1000)); m.Client.Text != want {
		t.Errorf("the client's score is %s, want %s", m.Client.Text, want)
	}
	if after := score(); after != before {
		t.Errorf("the agent's score is %s, and was %s", after, before)
	}
}
