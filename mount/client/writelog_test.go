package client

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// sharedMemory is memory of the kind that a session has: a mapped memfd.
func sharedMemory(t *testing.T, size int) []byte {
	t.Helper()
	fd, err := unix.MemfdCreate("writelog-test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		t.Fatal(err)
	}
	mem, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = unix.Munmap(mem) })
	return mem
}

func mustAppend(t *testing.T, l *WriteLog, node uint64, offset int64, data []byte) *Record {
	t.Helper()
	r, err := l.Append(node, offset, data)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// replayed is what a new process would write, as text.
func replayed(t *testing.T, mem []byte) []string {
	t.Helper()
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	err = l.Replay(func(r *Record, data []byte) error {
		got = append(got, fmt.Sprintf("%d@%d=%s", r.Node, r.Offset, data))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestWriteLogKeepsUnflushedWritesOfADeadProcess(t *testing.T) {
	mem := sharedMemory(t, 1<<20)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	l.Applied(mustAppend(t, l, 7, 0, []byte("one")))
	l.Applied(mustAppend(t, l, 8, 4096, []byte("two")))
	mustAppend(t, l, 7, 3, []byte("three")) // logged, not executed: it may have been answered by nobody, replaying it is right too

	got := replayed(t, mem)
	want := []string{"7@0=one", "8@4096=two", "7@3=three"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("replay gives %v, want %v", got, want)
	}
}

func TestWriteLogDropsOnlyWhatTheFlushCovered(t *testing.T) {
	mem := sharedMemory(t, 1<<20)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	l.Applied(mustAppend(t, l, 7, 0, []byte("covered")))
	running := mustAppend(t, l, 7, 10, []byte("running"))
	flush := l.Begin(7)
	l.Applied(running)
	l.Applied(mustAppend(t, l, 7, 20, []byte("later")))
	flush.Done()
	l.Discard(mustAppend(t, l, 7, 30, []byte("refused")))

	got := replayed(t, mem)
	want := []string{"7@10=running", "7@20=later"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("replay gives %v, want %v", got, want)
	}
}

func TestWriteLogIgnoresARecordThatWasNeverFinished(t *testing.T) {
	mem := sharedMemory(t, 1<<20)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.reserve(7, 0, 100); err != nil { // the process dies before the data is there
		t.Fatal(err)
	}
	mustAppend(t, l, 7, 200, []byte("whole"))
	if got := replayed(t, mem); len(got) != 1 || got[0] != "7@200=whole" {
		t.Errorf("replay gives %v, want the finished record only", got)
	}
}

func TestWriteLogDropsWritesToFilesThatAreGone(t *testing.T) {
	mem := sharedMemory(t, 1<<20)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, 7, 0, []byte("gone"))
	mustAppend(t, l, 8, 0, []byte("there"))

	next, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	err = next.Replay(func(r *Record, _ []byte) error {
		if r.Node == 7 {
			return syscall.ESTALE
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if next.Has(7) || !next.Has(8) {
		t.Errorf("node 7 kept: %t, node 8 kept: %t; want only 8", next.Has(7), next.Has(8))
	}
}

func TestWriteLogIsFullUntilTheOldestIsFlushed(t *testing.T) {
	mem := sharedMemory(t, 256<<10)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	data := bytes.Repeat([]byte{1}, 16<<10)
	n := uint64(0)
	for ; err == nil; n++ {
		var r *Record
		if r, err = l.Append(n, 0, data); err == nil {
			l.Applied(r)
		}
	}
	if !errors.Is(err, ErrLogFull) {
		t.Fatalf("append to a full log: %v, want ErrLogFull", err)
	}
	oldest, ok := l.Oldest()
	if !ok || oldest != 0 {
		t.Fatalf("oldest node is %d, want 0", oldest)
	}
	if !l.Crowded() {
		t.Error("a full log is not crowded")
	}
	freed := l.Freed()
	l.Begin(oldest).Done()
	select {
	case <-freed:
	default:
		t.Error("nobody is told that there is room")
	}
	mustAppend(t, l, 99, 0, data[:8<<10])
}

func TestWriteLogIsFullOfTinyWritesToo(t *testing.T) {
	l, err := OpenWriteLog(sharedMemory(t, 32<<20))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for ; err == nil; n++ {
		_, err = l.Append(7, int64(n), []byte("x"))
	}
	if !errors.Is(err, ErrLogFull) || !l.Crowded() {
		t.Errorf("after %d writes of a byte: %v, crowded %t", n, err, l.Crowded())
	}
}

func TestWriteLogRefusesForeignMemory(t *testing.T) {
	mem := sharedMemory(t, 1<<20)
	copy(mem, "not a log at all")
	if _, err := OpenWriteLog(mem); !errors.Is(err, ErrLogCorrupt) {
		t.Fatalf("open: %v, want ErrLogCorrupt", err)
	}
	if _, err := ResetWriteLog(mem); err != nil {
		t.Fatalf("reset: %v", err)
	}
}

func TestWriteLogFindsABrokenRecord(t *testing.T) {
	mem := sharedMemory(t, 1<<20)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	r := mustAppend(t, l, 7, 0, []byte("data"))
	*(*uint32)(unsafe.Pointer(&l.ring[r.at+4])) = 1 << 30
	if _, err := OpenWriteLog(mem); !errors.Is(err, ErrLogCorrupt) {
		t.Fatalf("open: %v, want ErrLogCorrupt", err)
	}
}

func TestWriteLogGivesItsMemoryBackWhenIdle(t *testing.T) {
	mem := sharedMemory(t, 8<<20)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		l.Applied(mustAppend(t, l, 1, int64(i)<<20, bytes.Repeat([]byte{0xff}, 1<<20)))
	}
	flushing := l.Begin(1)
	l.keep = 0
	l.Rest() // it is not empty
	l.keep = keepPages
	flushing.Done()
	l.Rest() // it has not been empty for long
	if n := residentPages(t, mem); n < 1024 {
		t.Errorf("%d pages are resident while the log is in use, want those of 4 MiB", n)
	}
	l.keep = 0
	l.Rest()
	if n := residentPages(t, mem); n > 4 {
		t.Errorf("%d pages are resident in an idle log, want almost none", n)
	}
	if got := replayed(t, mem); len(got) != 0 {
		t.Errorf("replay gives %d records of an empty log", len(got))
	}
}

func residentPages(t *testing.T, mem []byte) int {
	t.Helper()
	vec := make([]byte, len(mem)/4096)
	_, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&mem[0])), uintptr(len(mem)), uintptr(unsafe.Pointer(&vec[0])))
	if errno != 0 {
		t.Fatal(errno)
	}
	n := 0
	for _, v := range vec {
		n += int(v & 1)
	}
	return n
}

// TestWriteLogAgainstAModel runs random writers and flushes, then compares what a new process would see with what was
// acknowledged and not flushed.
func TestWriteLogAgainstAModel(t *testing.T) {
	mem := sharedMemory(t, 512<<10)
	l, err := OpenWriteLog(mem)
	if err != nil {
		t.Fatal(err)
	}
	const nodes = 4
	var mu [nodes]sync.Mutex // one writer at a time per node, as the kernel has it
	var want [nodes][]string
	var wg sync.WaitGroup
	deadline := time.Now().Add(time.Minute)
	for w := range nodes * 2 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			rnd := rand.New(rand.NewSource(int64(w)))
			for i := range 2000 {
				node := rnd.Intn(nodes)
				mu[node].Lock()
				if rnd.Intn(40) == 0 {
					l.Begin(uint64(node)).Done()
					want[node] = nil
				}
				data := bytes.Repeat([]byte{byte('a' + w)}, 1+rnd.Intn(2000))
				r, err := l.Append(uint64(node), int64(i), data)
				if err == nil {
					l.Applied(r)
					want[node] = append(want[node], fmt.Sprintf("%d@%d=%s", node, i, data))
				} else {
					l.Begin(uint64(node)).Done()
					want[node] = nil
				}
				mu[node].Unlock()
				if time.Now().After(deadline) {
					t.Error("the model takes too long")
					return
				}
			}
		}()
	}
	wg.Wait()
	var got [nodes][]string
	for _, line := range replayed(t, mem) {
		node := line[0] - '0'
		got[node] = append(got[node], line)
	}
	for node := range nodes {
		if fmt.Sprint(got[node]) != fmt.Sprint(want[node]) {
			t.Errorf("node %d: %d records replayed, want %d", node, len(got[node]), len(want[node]))
		}
	}
}
