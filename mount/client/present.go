package client

import (
	"errors"
	"os"
	"reflect"
	"sync"
	"unsafe"

	"github.com/hanwen/go-fuse/v2/fuse"
)

// errReadPool: go-fuse is not built as this package knows it.
var errReadPool = errors.New("go-fuse has no pool of read buffers")

// presentBuffers makes go-fuse read requests only into memory whose pages are present.
//
// The kernel fails a request with EIO if it cannot copy it into the reader's buffer, and that happens when the reader is killed while a page of the buffer has to be
// faulted in: a page fault gives up if SIGKILL is pending, a copy into present pages does not look (fuse_dev_do_read, get_user_pages). A new buffer of
// Go's has no pages, because memory fresh from the kernel need not be cleared. About one kill in a hundred soon after a start reached an application this way.
//
// go-fuse has no option for its buffers, so its pool of them is changed where it is. A program with a go-fuse that is built otherwise fails at its start, and in the tests.
func presentBuffers(server *fuse.Server) error {
	field := reflect.ValueOf(server).Elem().FieldByName("readPool")
	if !field.IsValid() || field.Type() != reflect.TypeFor[sync.Pool]() {
		return errReadPool
	}
	pool := (*sync.Pool)(unsafe.Pointer(field.UnsafeAddr()))
	if pool.New == nil {
		return errReadPool
	}
	original := pool.New
	pool.New = func() any { return present(original()) }
	// The buffer that INIT was read into is there already.
	pool.Put(present(pool.Get()))
	return nil
}

func present(buffer any) any {
	if b, ok := buffer.([]byte); ok {
		faultIn(b)
	}
	return buffer
}

// faultIn writes to every page of fresh memory.
func faultIn(b []byte) {
	for i := 0; i < len(b); i += os.Getpagesize() {
		b[i] = 0
	}
	if len(b) > 0 {
		b[len(b)-1] = 0
	}
}
