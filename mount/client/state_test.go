package client

import (
	"errors"
	"testing"
)

func TestStateSurvives(t *testing.T) {
	region := make([]byte, stateSize)
	s := openState(region)
	for i, v := range []string{"1", "2", "3"} {
		if err := s.put("sid", []byte(v)); err != nil {
			t.Fatal(err)
		}
		if err := s.put("other", []byte{byte(i)}); err != nil {
			t.Fatal(err)
		}
	}
	again := openState(region)
	if v, ok := again.get("sid"); !ok || string(v) != "3" {
		t.Errorf("got %q, %v", v, ok)
	}
	if err := again.put("sid", nil); err != nil {
		t.Fatal(err)
	}
	if _, ok := openState(region).get("sid"); ok {
		t.Error("a removed key is there")
	}
}

func TestStateSurvivesATornWrite(t *testing.T) {
	region := make([]byte, stateSize)
	s := openState(region)
	if err := s.put("key", []byte("old")); err != nil {
		t.Fatal(err)
	}
	if err := s.put("key", []byte("new")); err != nil {
		t.Fatal(err)
	}
	// The half with the newest map is damaged, as if its writer had died.
	half := s.half(int(s.sequence % 2))
	half[stateHeader] ^= 0xff
	if v, ok := openState(region).get("key"); !ok || string(v) != "old" {
		t.Errorf("got %q, %v; want the map before", v, ok)
	}
}

func TestStateIsBounded(t *testing.T) {
	s := openState(make([]byte, stateSize))
	if err := s.put("key", []byte("kept")); err != nil {
		t.Fatal(err)
	}
	if err := s.put("big", make([]byte, stateSize)); !errors.Is(err, ErrStateFull) {
		t.Errorf("got %v, want ErrStateFull", err)
	}
	if v, _ := s.get("key"); string(v) != "kept" {
		t.Errorf("a refused value changed another: %q", v)
	}
}

func TestMemoryKnowsItsLayout(t *testing.T) {
	all := make([]byte, clientAt+4096)
	if _, err := newMemory(all); err != nil {
		t.Fatal(err)
	}
	if _, err := newMemory(all); err != nil {
		t.Errorf("the second client: %v", err)
	}
	word(all, 0).Store(layoutMagic | layoutVersion + 1)
	if _, err := newMemory(all); err == nil {
		t.Error("memory of another layout is accepted")
	}
}
