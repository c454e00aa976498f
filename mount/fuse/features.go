package fuse

import (
	"encoding/binary"
	"fmt"

	"github.com/sidemount/sidemount/mount"
)

// Flags are the features of INIT, flags and flags2 in one word, <linux/fuse.h>.
type Flags uint64

// The features that this project speaks of.
const (
	AsyncRead      Flags = 1 << 0
	PosixLocks     Flags = 1 << 1
	FileOps        Flags = 1 << 2
	BigWrites      Flags = 1 << 5
	FlockLocks     Flags = 1 << 10
	AutoInvalData  Flags = 1 << 12
	ReaddirPlus    Flags = 1 << 13
	ParallelDirOps Flags = 1 << 18
	MaxPages       Flags = 1 << 22
	CacheSymlinks  Flags = 1 << 23
	KillPrivV2     Flags = 1 << 28
	InitExt        Flags = 1 << 30
	Passthrough    Flags = 1 << 37
	HasResend      Flags = 1 << 39
)

// Features is how a kind of client wants its connection to be. The broker answers INIT from it and the client's library sets go-fuse up from
// it, so both must be built from the same table.
type Features struct {
	// Flags are wished for; the kernel's offer limits them.
	Flags Flags
	// MaxWrite is the largest READ and WRITE in bytes.
	MaxWrite uint32
	// MaxBackground is how many asynchronous requests may wait at once; above CongestionThreshold the kernel throttles.
	MaxBackground, CongestionThreshold uint16
}

// common is what every client gets. FileOps is about the owner of locks, without which POSIX locks cannot be told apart.
const common = AsyncRead | FileOps | BigWrites | AutoInvalData | ReaddirPlus | ParallelDirOps | MaxPages

// FeaturesOf returns the features of a kind of client.
func FeaturesOf(kind mount.ClientKind) (Features, error) {
	f := Features{Flags: common, MaxWrite: 128 << 10, MaxBackground: 128, CongestionThreshold: 96}
	switch kind {
	case mount.JuiceFS:
		f.Flags |= PosixLocks | FlockLocks | CacheSymlinks
		return f, nil
	case mount.Passthrough:
		// The kernel itself keeps this client's locks: they hold on this mount only, and no crash can lose them. It also reads and writes files by itself where
		// it can (Linux 6.9).
		// And it need not ask before a write whether the file has capabilities that the write must take away: the host does that by itself, because the
		// client is not privileged.
		f.Flags |= Passthrough | KillPrivV2
		return f, nil
	}
	return Features{}, fmt.Errorf("client %q is unknown: %w", kind, mount.ErrConfig)
}

// Negotiate answers an INIT request on behalf of a client that may not even exist yet.
func Negotiate(kind mount.ClientKind, init []byte) ([]byte, error) {
	f, err := FeaturesOf(kind)
	if err != nil {
		return nil, err
	}
	in, err := ParseInit(init)
	if err != nil {
		return nil, err
	}
	return Answer{
		Unique:              in.Unique,
		Minor:               min(in.Minor, spokenMinor),
		MaxReadahead:        in.MaxReadahead,
		MaxWrite:            f.MaxWrite,
		MaxBackground:       f.MaxBackground,
		CongestionThreshold: f.CongestionThreshold,
		Flags:               in.Flags&f.Flags | InitExt,
	}.Marshal(), nil
}

// CanPassthrough tells whether the kernel and the client's kind have agreed that the kernel may read and write files by itself.
func CanPassthrough(answer []byte) bool {
	a, err := ParseAnswer(answer)
	return err == nil && a.Flags&Passthrough != 0
}

// CanResend tells whether the kernel can give a new client the requests that a dead one took with it (Linux 6.9).
func CanResend(init []byte) bool {
	in, err := ParseInit(init)
	return err == nil && in.Flags&HasResend != 0
}

// withoutResend returns an INIT request as a kernel before Linux 6.9 would send it: without what CanResend and CanPassthrough are about.
func withoutResend(init []byte) []byte {
	b := append([]byte(nil), init...)
	if len(b) >= inHeaderSize+initFlags2At+4 {
		flags2 := binary.NativeEndian.Uint32(b[inHeaderSize+initFlags2At:])
		binary.NativeEndian.PutUint32(b[inHeaderSize+initFlags2At:], flags2&^uint32((HasResend|Passthrough)>>32))
	}
	return b
}
