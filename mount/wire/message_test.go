package wire

import (
	"encoding/json"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/sidemount/sidemount/mount"
)

func volume() *mount.Volume {
	return &mount.Volume{ID: "pv-1", Name: "data", Client: mount.JuiceFS, Secret: mount.Secret{"metaurl": "redis://:pw@host/1"}}
}

func TestMessageTravels(t *testing.T) {
	want := Message{
		Version: Version, Type: Deposit, Session: "s-1", Mount: "m", Volume: volume(), Init: []byte{1, 2}, Answer: []byte{3}, Resumed: true,
		Client: &Client{Phase: InService, Starts: 2, Served: 1, Ended: "oom"},
	}
	b, err := Encode(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestDecodeRefuses(t *testing.T) {
	for name, b := range map[string]string{
		"nothing":                 ``,
		"no JSON":                 `hello`,
		"a cut message":           `{"v":1,"type":"hel`,
		"two messages":            `{"v":1,"type":"hello"}{"v":1,"type":"hello"}`,
		"another version":         `{"v":2,"type":"hello"}`,
		"no type":                 `{"v":1}`,
		"an unknown type":         `{"v":1,"type":"sudo"}`,
		"a session without INIT":  `{"v":1,"type":"session","volume":{"id":"x","name":"y","client":"juicefs"}}`,
		"a config without volume": `{"v":1,"type":"config"}`,
		"a state without client":  `{"v":1,"type":"state"}`,
		"a negative grace":        `{"v":1,"type":"close","graceNanoseconds":-1}`,
		"a back without number":   `{"v":1,"type":"back"}`,
		"a backing file below 0":  `{"v":1,"type":"backed","request":1,"backing":-1}`,
		"a backing file of 0":     `{"v":1,"type":"unback","backings":[1,0]}`,
		"too many backing files":  `{"v":1,"type":"known","backings":[1` + strings.Repeat(",1", MaxBackings) + `]}`,
		"a wrong shape":           `{"v":1,"type":"state","client":7}`,
		"an oversize message":     `{"v":1,"type":"hello","text":"` + strings.Repeat("x", MaxMessage) + `"}`,
	} {
		if _, err := Decode([]byte(b)); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want ErrProtocol", name, err)
		}
	}
}

// Whoever sends a message may have written it without Encode.
func TestDecodeClipsWhatAClientSays(t *testing.T) {
	long := strings.Repeat("ä", maxText)
	b, err := json.Marshal(Message{Version: Version, Type: State, Text: long, Client: &Client{Phase: Waiting, Text: long, Ended: long}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]string{"text": m.Text, "client's text": m.Client.Text, "client's end": m.Client.Ended} {
		if len(got) > maxText || !utf8.ValidString(got) || !strings.HasPrefix(long, got) || got == "" {
			t.Errorf("%s has %d bytes", name, len(got))
		}
	}
}

func TestDecodeDoesNotQuote(t *testing.T) {
	_, err := Decode([]byte(`{"v":1,"type":"config","volume":{"secret":"my-password"}}`))
	if err == nil || strings.Contains(err.Error(), "my-password") {
		t.Errorf("the error quotes the message: %v", err)
	}
}

func TestEncodeRefusesWhatDoesNotFit(t *testing.T) {
	v := volume()
	v.Config = map[string]string{"k": strings.Repeat("x", MaxMessage)}
	if _, err := Encode(Message{Type: Update, Volume: v}); !errors.Is(err, mount.ErrConfig) {
		t.Errorf("got %v, want ErrConfig", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, m := range []Message{
		{Type: Hello},
		{Type: Session, Volume: volume(), Init: []byte{1}, Answer: []byte{2}},
		{Type: State, Client: &Client{Phase: Waiting, Ended: "signal: killed"}},
		{Type: Close, Grace: 1000},
		{Type: Back, Request: 1},
		{Type: Backed, Request: 1, Backing: 7},
		{Type: Known, Backings: []int32{1, 2}},
	} {
		b, err := Encode(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Add([]byte(`{"v":1,"type":"hello"`))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Decode(b)
		if err != nil {
			return
		}
		again, err := Encode(m)
		if errors.Is(err, mount.ErrConfig) {
			return // JSON that needs more room when it is written by the book
		}
		if err != nil {
			t.Fatalf("decoded and not encoded: %v", err)
		}
		if _, err := Decode(again); err != nil {
			t.Fatalf("encoded and not decoded: %v", err)
		}
	})
}

// Every message that the largest numbers make must fit.
func TestNumbersOfBackingFilesFit(t *testing.T) {
	m := Message{Type: Known}
	for range MaxBackings {
		m.Backings = append(m.Backings, math.MaxInt32)
	}
	b, err := Encode(m)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Decode(b); err != nil {
		t.Fatal(err)
	}
}
