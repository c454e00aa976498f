package fuse

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/sidemount/sidemount/mount"
)

// newInit is the INIT request of a kernel that speaks protocol 7.45.
func newInit(flags Flags) []byte {
	b := make([]byte, inHeaderSize+initInSize)
	binary.NativeEndian.PutUint32(b[0:], uint32(len(b)))
	binary.NativeEndian.PutUint32(b[4:], initOpcode)
	binary.NativeEndian.PutUint64(b[8:], 2)
	binary.NativeEndian.PutUint32(b[40:], 7)
	binary.NativeEndian.PutUint32(b[44:], 45)
	binary.NativeEndian.PutUint32(b[48:], 128<<10)
	binary.NativeEndian.PutUint32(b[52:], uint32(flags))
	binary.NativeEndian.PutUint32(b[56:], uint32(flags>>32))
	return b
}

// modern is what Linux 6.18 offers.
const modern = Flags(0x73fffffb) | Flags(0x5fd)<<32

func TestParseInit(t *testing.T) {
	in, err := ParseInit(newInit(modern))
	if err != nil {
		t.Fatal(err)
	}
	if want := (Init{Unique: 2, Major: 7, Minor: 45, MaxReadahead: 128 << 10, Flags: modern}); in != want {
		t.Errorf("got %+v, want %+v", in, want)
	}
	if !CanResend(newInit(modern)) {
		t.Error("the kernel's ability to resend is not seen")
	}
	if CanResend(withoutResend(newInit(modern))) {
		t.Error("the ability to resend is still there")
	}
}

func TestParseInitRefuses(t *testing.T) {
	for name, change := range map[string]func([]byte) []byte{
		"nothing":            func([]byte) []byte { return nil },
		"a header alone":     func(b []byte) []byte { return b[:40] },
		"too much":           func(b []byte) []byte { return append(b, 0) },
		"another request":    func(b []byte) []byte { b[4] = 1; return b },
		"protocol 8":         func(b []byte) []byte { b[40] = 8; return b },
		"an ancient kernel":  func(b []byte) []byte { b[44] = 12; return b },
		"a cut flags2 field": func(b []byte) []byte { return b[:50] },
	} {
		if _, err := ParseInit(change(newInit(modern))); !errors.Is(err, ErrProtocol) {
			t.Errorf("%s: got %v, want ErrProtocol", name, err)
		}
	}
}

func TestNegotiate(t *testing.T) {
	for _, kind := range []mount.ClientKind{mount.JuiceFS, mount.Passthrough} {
		for _, offer := range []Flags{modern, AsyncRead | BigWrites, 0} {
			b, err := Negotiate(kind, newInit(offer|InitExt))
			if err != nil {
				t.Fatal(err)
			}
			a, err := ParseAnswer(b)
			if err != nil {
				t.Fatal(err)
			}
			if extra := a.Flags &^ (offer | InitExt); extra != 0 {
				t.Errorf("%s takes flags %#x that the kernel has not offered", kind, extra)
			}
			if a.Unique != 2 || a.Minor != spokenMinor || a.MaxReadahead != 128<<10 {
				t.Errorf("%s: answer %+v", kind, a)
			}
		}
	}
	if _, err := Negotiate("unknown", newInit(modern)); !errors.Is(err, mount.ErrConfig) {
		t.Errorf("unknown client: got %v, want ErrConfig", err)
	}
}

func TestReplayOffersWhatWasAgreed(t *testing.T) {
	init := newInit(modern)
	answer, err := Negotiate(mount.JuiceFS, init)
	if err != nil {
		t.Fatal(err)
	}
	b, err := Replay(init, answer)
	if err != nil {
		t.Fatal(err)
	}
	in, err := ParseInit(b)
	if err != nil {
		t.Fatal(err)
	}
	a, err := ParseAnswer(answer)
	if err != nil {
		t.Fatal(err)
	}
	if in.Flags != a.Flags || in.Unique != 2 || in.Minor != 45 {
		t.Errorf("replayed %+v after %+v", in, a)
	}
}

func FuzzParseInit(f *testing.F) {
	f.Add(newInit(modern))
	f.Add(newInit(0)[:56])
	f.Fuzz(func(t *testing.T, b []byte) {
		if _, err := ParseInit(b); err != nil {
			return
		}
		answer, err := Negotiate(mount.JuiceFS, b)
		if err != nil {
			t.Fatalf("parsed and not negotiated: %v", err)
		}
		if _, err := Replay(b, answer); err != nil {
			t.Fatalf("negotiated and not replayed: %v", err)
		}
	})
}

// A broker that has just started is given both by an agent, which may be anybody in a tenant's container.
func FuzzReplay(f *testing.F) {
	init := newInit(modern)
	for _, kind := range []mount.ClientKind{mount.JuiceFS, mount.Passthrough} {
		answer, err := Negotiate(kind, init)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(init, answer)
		f.Add(init[:inHeaderSize+initInOldSize], answer)
		f.Add(init, answer[:len(answer)-1])
	}
	f.Add(init, Answer{Minor: 31, Flags: ^Flags(0), MaxReadahead: 1<<32 - 1}.Marshal())
	f.Add(init, init)
	f.Fuzz(func(t *testing.T, init, answer []byte) {
		CanPassthrough(answer)
		replay, err := Replay(init, answer)
		if err != nil {
			if !errors.Is(err, ErrProtocol) {
				t.Fatalf("got %v, want ErrProtocol", err)
			}
			return
		}
		in, err := ParseInit(replay)
		if err != nil {
			t.Fatalf("replayed and not parsed: %v", err)
		}
		a, err := ParseAnswer(answer)
		if err != nil {
			t.Fatal(err)
		}
		if len(replay) != len(init) || in.MaxReadahead != a.MaxReadahead || in.Flags&^a.Flags != 0 {
			t.Errorf("offers %+v, agreed on %+v", in, a)
		}
	})
}
