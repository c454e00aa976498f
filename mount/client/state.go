package client

import (
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"sync"
)

// ErrStateFull: the session's small state has no room for the value.
var ErrStateFull = errors.New("session state is full")

// state is a small map in the session's memory. Each half of the region holds a whole map with a sequence number and a checksum; a change is written
// to the older half, so that a client that dies in the middle of it leaves the other one valid.
//
//	sequence uint64 | length uint32 | crc32 uint32 | JSON
type state struct {
	region []byte

	mu       sync.Mutex // guards what follows and the region
	values   map[string][]byte
	sequence uint64
}

const stateHeader = 16

func openState(region []byte) *state {
	s := &state{region: region, values: map[string][]byte{}}
	for half := range 2 {
		sequence, values, ok := readHalf(s.half(half))
		if ok && sequence > s.sequence {
			s.sequence, s.values = sequence, values
		}
	}
	return s
}

func (s *state) half(i int) []byte {
	size := len(s.region) / 2
	return s.region[i*size:][:size]
}

func readHalf(b []byte) (sequence uint64, values map[string][]byte, ok bool) {
	sequence, size := order.Uint64(b), int(order.Uint32(b[8:]))
	if sequence == 0 || size > len(b)-stateHeader {
		return 0, nil, false
	}
	data := b[stateHeader:][:size]
	if crc32.ChecksumIEEE(data) != order.Uint32(b[12:]) || json.Unmarshal(data, &values) != nil {
		return 0, nil, false
	}
	return sequence, values, true
}

func (s *state) get(key string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	v, ok := s.values[key]
	return append([]byte(nil), v...), ok
}

func (s *state) put(key string, value []byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := make(map[string][]byte, len(s.values)+1)
	for k, v := range s.values {
		next[k] = v
	}
	if len(value) == 0 {
		delete(next, key)
	} else {
		next[key] = append([]byte(nil), value...)
	}
	data, err := json.Marshal(next)
	if err != nil {
		return fmt.Errorf("keep %s: %w", key, err)
	}
	b := s.half(int((s.sequence + 1) % 2))
	if len(data) > len(b)-stateHeader {
		return fmt.Errorf("keep %s of %d bytes: %w", key, len(value), ErrStateFull)
	}
	// Until the sequence is there, the half counts as empty.
	word(b, 0).Store(0)
	copy(b[stateHeader:], data)
	order.PutUint32(b[8:], uint32(len(data)))
	order.PutUint32(b[12:], crc32.ChecksumIEEE(data))
	word(b, 0).Store(s.sequence + 1)
	s.sequence++
	s.values = next
	return nil
}
