package machine

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A thread that has entered a namespace and does not end keeps a machine's network alive after its processes.
func TestThrowawayThreadIsNeverTheFirst(t *testing.T) {
	for range 100 {
		tid := make(chan int)
		go onThrowawayThread(func() { tid <- unix.Gettid() })
		if got := <-tid; got == unix.Getpid() {
			t.Fatal("ran on the first thread of the process, which does not end")
		}
	}
}
