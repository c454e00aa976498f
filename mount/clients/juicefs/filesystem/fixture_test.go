package filesystem_test

import (
	"os"
	"testing"
)

// subdir makes a directory of its own for a case on a mount.
func subdir(t testing.TB, mnt string) string {
	t.Helper()
	dir, err := os.MkdirTemp(mnt, "case")
	check(t, err)
	return dir
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func create(t testing.TB, name string) *os.File {
	t.Helper()
	return open(t, name, os.O_RDWR|os.O_CREATE|os.O_EXCL)
}

func open(t testing.TB, name string, flags int) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, flags, 0o644)
	check(t, err)
	return f
}

func write(t testing.TB, name, text string) {
	t.Helper()
	check(t, os.WriteFile(name, []byte(text), 0o644))
}

func appendTo(t testing.TB, name, text string) {
	t.Helper()
	f := open(t, name, os.O_WRONLY|os.O_APPEND)
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	check(t, f.Close())
}

func read(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	check(t, err)
	return string(text)
}
