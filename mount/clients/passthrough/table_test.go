package passthrough

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func wantPath(t *testing.T, tab *table, node uint64, want string) {
	t.Helper()
	if got, err := tab.path(node); err != nil || got != want {
		t.Errorf("path of %d: got %q, %v; want %q", node, got, err, want)
	}
}

func TestTableSurvives(t *testing.T) {
	memory := make([]byte, 1<<20)
	tab := openTable(memory)
	for _, n := range []struct {
		node, parent uint64
		name         string
	}{{10, rootID, "a"}, {11, 10, "b"}, {12, 11, "c"}, {12, 11, "c"}, {13, rootID, "gone"}} {
		if err := tab.know(n.node, n.parent, n.name); err != nil {
			t.Fatal(err)
		}
	}
	if was, gone := tab.forget(13, 1); !gone || was.name != "gone" {
		t.Errorf("forgot %+v, %v", was, gone)
	}
	if err := tab.move(11, rootID, "moved"); err != nil {
		t.Fatal(err)
	}
	tab.open(12, 1)
	next := openTable(memory)
	wantPath(t, next, 12, "moved/c")
	wantPath(t, next, rootID, ".")
	if _, err := next.path(13); !errors.Is(err, unix.ESTALE) {
		t.Errorf("a forgotten node: %v", err)
	}
	if !next.isOpen(12) || next.isOpen(11) {
		t.Error("open handles are not what they were")
	}
	if _, gone := next.forget(12, 1); gone {
		t.Error("a node that was given out twice is forgotten at once")
	}
	if _, gone := next.forget(12, 1); !gone {
		t.Error("a node is never forgotten")
	}
}

func TestTableUsesSlotsAgain(t *testing.T) {
	tab := openTable(make([]byte, tableHeader+8*slotSize))
	for round := range 100 {
		for i := range uint64(4) {
			if err := tab.know(10+i, rootID, fmt.Sprint(round, i)); err != nil {
				t.Fatal(err)
			}
			if err := tab.move(10+i, rootID, fmt.Sprint("x", round, i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range uint64(4) {
			tab.forget(10+i, 1)
		}
	}
	for i := range uint64(8) {
		if err := tab.know(100+i, rootID, "n"); err != nil {
			t.Fatal(err)
		}
	}
	if err := tab.know(200, rootID, "n"); !errors.Is(err, errTableFull) {
		t.Errorf("got %v, want errTableFull", err)
	}
}

// A client that dies between the two slots of a rename leaves both.
func TestTableOfADeadRename(t *testing.T) {
	memory := make([]byte, tableHeader+8*slotSize)
	tab := openTable(memory)
	if err := tab.know(10, rootID, "old"); err != nil {
		t.Fatal(err)
	}
	old := append([]byte(nil), tab.slot(0)...)
	if err := tab.move(10, rootID, "new"); err != nil {
		t.Fatal(err)
	}
	copy(tab.slot(0), old)
	next := openTable(memory)
	next.settle(func(_, _ uint64, name string) bool { return name == "old" })
	wantPath(t, next, 10, "old")
	if len(next.free)+len(next.index) != int(next.used.Load()) {
		t.Errorf("%d slots are free and %d in use, of %d", len(next.free), len(next.index), next.used.Load())
	}
}

func TestTableRefusesLongNamesAndCycles(t *testing.T) {
	tab := openTable(make([]byte, 1<<16))
	if err := tab.know(10, rootID, strings.Repeat("x", 256)); !errors.Is(err, unix.ENAMETOOLONG) {
		t.Errorf("got %v, want ENAMETOOLONG", err)
	}
	if err := errors.Join(tab.know(10, 11, "a"), tab.know(11, 10, "b")); err != nil {
		t.Fatal(err)
	}
	if _, err := tab.path(10); err == nil {
		t.Error("a cycle has a path")
	}
}

// A directory's number may be used again for the next hidden one. What was in the old one is not hidden in the new one, and a file that has got its number gets its own name.
func TestTableTellsTheHiddenDirectoryFromTheOneBefore(t *testing.T) {
	tab := openTable(make([]byte, 1<<20))
	const outer, inner, file = 7, 5, 9
	if err := errors.Join(tab.know(outer, rootID, hiddenName), tab.know(inner, outer, "SESSION")); err != nil {
		t.Fatal(err)
	}
	tab.hide(outer) // the old outer directory's number is the new inner one's
	if tab.isSaved(inner) {
		t.Error("the old directory passes for a hidden file")
	}
	if err := tab.know(inner, rootID, "new"); err != nil {
		t.Fatal(err)
	}
	wantPath(t, tab, inner, "new")
	if err := tab.know(file, outer, hiddenAs(file)); err != nil {
		t.Fatal(err)
	}
	if !tab.isSaved(file) {
		t.Error("a hidden file is not known as one")
	}
}

func TestTidyLeavesNothingInTheTable(t *testing.T) {
	fs := newClient(t, t.TempDir(), newMemory())
	_, inner, err := fs.hidden.create()
	if err != nil {
		t.Fatal(err)
	}
	outer, _, ok := fs.table.at(inner)
	if !ok {
		t.Fatal("the hidden directory is not in the table")
	}
	fs.hidden.tidy()
	if fs.table.knows(inner) || fs.table.knows(outer) {
		t.Error("a directory that was removed is in the table")
	}
}
