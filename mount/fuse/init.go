package fuse

import (
	"encoding/binary"
	"fmt"
)

// Sizes of the INIT messages, <linux/fuse.h>: struct fuse_in_header + fuse_init_in (104 bytes since protocol 7.36, 56 before) and struct
// fuse_out_header + fuse_init_out.
const (
	inHeaderSize   = 40
	initInSize     = 64
	initInOldSize  = 16
	outHeaderSize  = 16
	initOutSize    = 64
	initFlags2At   = 16
	initOpcode     = 26
	protocolMajor  = 7
	minimumMinor   = 28
	spokenMinor    = 28
	pageSize       = 4096
	maxStackDepth  = 1
	initAnswerSize = outHeaderSize + initOutSize
)

// Init is what the kernel offers in its INIT request, and Answer what was agreed on. Both sides write integers in the order of the
// machine.
type Init struct {
	Unique       uint64
	Major, Minor uint32
	MaxReadahead uint32
	Flags        Flags
}

// ParseInit reads an INIT request as it came from the device.
func ParseInit(b []byte) (Init, error) {
	if len(b) < inHeaderSize+initInOldSize || len(b) > inHeaderSize+initInSize {
		return Init{}, fmt.Errorf("parse INIT of %d bytes: %w", len(b), ErrProtocol)
	}
	if op := binary.NativeEndian.Uint32(b[4:]); op != initOpcode {
		return Init{}, fmt.Errorf("parse INIT: opcode %d: %w", op, ErrProtocol)
	}
	in := Init{
		Unique:       binary.NativeEndian.Uint64(b[8:]),
		Major:        binary.NativeEndian.Uint32(b[40:]),
		Minor:        binary.NativeEndian.Uint32(b[44:]),
		MaxReadahead: binary.NativeEndian.Uint32(b[48:]),
		Flags:        Flags(binary.NativeEndian.Uint32(b[52:])),
	}
	if len(b) >= 60 && in.Flags&InitExt != 0 {
		in.Flags |= Flags(binary.NativeEndian.Uint32(b[56:])) << 32
	}
	if in.Major != protocolMajor || in.Minor < minimumMinor {
		return Init{}, fmt.Errorf("parse INIT: protocol %d.%d: %w", in.Major, in.Minor, ErrProtocol)
	}
	return in, nil
}

// Answer is the agreement that answers INIT.
type Answer struct {
	Unique              uint64
	Minor               uint32
	MaxReadahead        uint32
	MaxWrite            uint32
	MaxBackground       uint16
	CongestionThreshold uint16
	Flags               Flags
}

// Marshal writes the answer as the device takes it.
func (a Answer) Marshal() []byte {
	b := make([]byte, initAnswerSize)
	binary.NativeEndian.PutUint32(b[0:], initAnswerSize)
	binary.NativeEndian.PutUint64(b[8:], a.Unique)
	o := b[outHeaderSize:]
	binary.NativeEndian.PutUint32(o[0:], protocolMajor)
	binary.NativeEndian.PutUint32(o[4:], a.Minor)
	binary.NativeEndian.PutUint32(o[8:], a.MaxReadahead)
	binary.NativeEndian.PutUint32(o[12:], uint32(a.Flags))
	binary.NativeEndian.PutUint16(o[16:], a.MaxBackground)
	binary.NativeEndian.PutUint16(o[18:], a.CongestionThreshold)
	binary.NativeEndian.PutUint32(o[20:], a.MaxWrite)
	binary.NativeEndian.PutUint16(o[28:], uint16((a.MaxWrite+pageSize-1)/pageSize))
	binary.NativeEndian.PutUint32(o[32:], uint32(a.Flags>>32))
	binary.NativeEndian.PutUint32(o[36:], maxStackDepth)
	return b
}

// ParseAnswer reads an INIT answer.
func ParseAnswer(b []byte) (Answer, error) {
	if len(b) != initAnswerSize || binary.NativeEndian.Uint32(b) != initAnswerSize {
		return Answer{}, fmt.Errorf("parse INIT answer of %d bytes: %w", len(b), ErrProtocol)
	}
	if status := int32(binary.NativeEndian.Uint32(b[4:])); status != 0 {
		return Answer{}, fmt.Errorf("parse INIT answer: status %d: %w", status, ErrProtocol)
	}
	o := b[outHeaderSize:]
	if major := binary.NativeEndian.Uint32(o); major != protocolMajor {
		return Answer{}, fmt.Errorf("parse INIT answer: protocol %d: %w", major, ErrProtocol)
	}
	return Answer{
		Unique:              binary.NativeEndian.Uint64(b[8:]),
		Minor:               binary.NativeEndian.Uint32(o[4:]),
		MaxReadahead:        binary.NativeEndian.Uint32(o[8:]),
		Flags:               Flags(binary.NativeEndian.Uint32(o[12:])) | Flags(binary.NativeEndian.Uint32(o[32:]))<<32,
		MaxBackground:       binary.NativeEndian.Uint16(o[16:]),
		CongestionThreshold: binary.NativeEndian.Uint16(o[18:]),
		MaxWrite:            binary.NativeEndian.Uint32(o[20:]),
	}, nil
}

// Replay returns the INIT request that a later client is given: the kernel's own, offering only what the answer agreed on, so that a newer
// client cannot switch on what the kernel has not.
func Replay(init, answer []byte) ([]byte, error) {
	if _, err := ParseInit(init); err != nil {
		return nil, err
	}
	a, err := ParseAnswer(answer)
	if err != nil {
		return nil, err
	}
	b := append([]byte(nil), init...)
	binary.NativeEndian.PutUint32(b[48:], a.MaxReadahead)
	binary.NativeEndian.PutUint32(b[52:], uint32(a.Flags))
	if len(b) >= 60 {
		binary.NativeEndian.PutUint32(b[56:], uint32(a.Flags>>32))
	}
	return b, nil
}
