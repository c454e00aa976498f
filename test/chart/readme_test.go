package chart

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// source is the chart's directory.
const source = "../../charts/sidemount"

var update = flag.Bool("update", false, "write the README's table and the golden files anew")

func TestReadmeDescribesTheValues(t *testing.T) {
	values, err := os.ReadFile(filepath.Join(source, "values.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(source, "README.md")
	got, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := withTable(string(got), values)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(file, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if string(got) != want {
		t.Errorf("the table in %s is not what values.yaml says; run go test ./test/chart -run Readme -update", file)
	}
}

func TestValuesTableWantsAComment(t *testing.T) {
	_, err := valuesTable([]byte("a:\n  # Said.\n  b: 1\n  c: 2\n"))
	if err == nil || !strings.Contains(err.Error(), "a.c") {
		t.Errorf("got %v, want an error about a.c", err)
	}
}

func TestValuesTableRows(t *testing.T) {
	got, err := valuesTable([]byte("# About the file.\n\n# First | line\n# and second.\na: {x: [1]}\nb:\n  # Below.\n  c: text\n"))
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []string{"| `a` | `{\"x\":[1]}` | First \\| line and second. |\n", "| `b.c` | `\"text\"` | Below. |\n"} {
		if !strings.Contains(got, row) {
			t.Errorf("no row %q in\n%s", row, got)
		}
	}
}
