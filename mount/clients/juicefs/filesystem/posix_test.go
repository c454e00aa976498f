package filesystem_test

import (
	"testing"

	"github.com/hanwen/go-fuse/v2/posixtest"
)

// unsupported are cases of the suite that are not run, with the reason.
var unsupported = map[string]string{
	"FcntlFlockLocksFile": "the case wants a process's lock to conflict with the same process's, which POSIX forbids (fcntl(2))",
}

func TestPOSIXSuite(t *testing.T) {
	dir := startMount(t, sqliteVolume(t.TempDir()))
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if reason, ok := unsupported[name]; ok {
				t.Skip(reason)
			}
			work := subdir(t, dir)
			test(t, work)
		})
	}
}
