package main

import (
	"bytes"
	"encoding/json"
	"os"
	"strings"
	"testing"
)

func TestWriteDescribesThisProgram(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	var first, second bytes.Buffer
	if err := write(&first, "image", "1.2.3", []string{self}); err != nil {
		t.Fatal(err)
	}
	if err := write(&second, "image", "1.2.3", []string{self}); err != nil {
		t.Fatal(err)
	}
	if first.String() != second.String() {
		t.Error("two documents of the same program differ")
	}
	var d document
	if err := json.Unmarshal(first.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{d.SPDXID: true}
	var stdlib bool
	for _, p := range d.Packages {
		if known[p.SPDXID] {
			t.Errorf("identifier %s is there twice", p.SPDXID)
		}
		known[p.SPDXID] = true
		stdlib = stdlib || p.Name == "stdlib" && strings.HasPrefix(p.Version, "1.")
	}
	if !stdlib {
		t.Error("the standard library is missing")
	}
	for _, r := range d.Relationships {
		if !known[r.From] || !known[r.To] {
			t.Errorf("%s %s %s speaks of something that is not in the document", r.From, r.Type, r.To)
		}
	}
}

func TestWriteRefusesWhatIsNoGoProgram(t *testing.T) {
	if err := write(&bytes.Buffer{}, "image", "1", []string{"main.go"}); err == nil {
		t.Error("a text file has no build information")
	}
	if err := write(&bytes.Buffer{}, "image", "1", nil); err == nil {
		t.Error("an image of nothing must be refused")
	}
}
