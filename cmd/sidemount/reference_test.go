package main

import (
	"bytes"
	"os"
	"strings"
	"testing"
)

// referencePage is the page whose part about flags is what the program says of itself.
const referencePage = "../../docs/reference.md"

func TestReferenceHasEveryFlag(t *testing.T) {
	var got bytes.Buffer
	if err := writeReference(&got, newCommand()); err != nil {
		t.Fatal(err)
	}
	const begin, end = "<!-- flags: begin -->\n", "<!-- flags: end -->"
	page, err := os.ReadFile(referencePage)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, found := strings.Cut(string(page), begin)
	present, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for the flags", referencePage)
	}
	if *update {
		if err := os.WriteFile(referencePage, []byte(before+begin+got.String()+end+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if present != got.String() {
		t.Errorf("%s does not describe the flags of this program; run make docs", referencePage)
	}
}

func TestReferenceShowsDefaultsAsTheyAreWritten(t *testing.T) {
	_, flags := nodeFlags(t)
	for name, want := range map[string]string{"driver-name": "`csi.sidemount.io`", "capacity": "", "port": "`10250`", "node-name": ""} {
		if got := defaultOf(flags.Lookup(name)); got != want {
			t.Errorf("--%s: %q, want %q", name, got, want)
		}
	}
}
