package filesystem_test

import (
	"os"
	"testing"
)

// subdir makes a directory of its own for a case on a mount.
func subdir(t testing.TB, mnt string) string {
	t.Helper()
	dir, err := os.MkdirTemp(mnt, "case")
	if err != nil {
		t.Fatal(err)
	}
	return dir
}
