package bench

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestPercentile(t *testing.T) {
	all := []time.Duration{4, 1, 3, 2}
	for _, c := range []struct {
		p    int
		want time.Duration
	}{{1, 1}, {25, 1}, {50, 2}, {75, 3}, {99, 4}, {100, 4}} {
		if got := Percentile(all, c.p); got != c.want {
			t.Errorf("Percentile(%d) = %d, want %d", c.p, got, c.want)
		}
	}
	if got := Median(nil); got != 0 {
		t.Errorf("Median of nothing = %d", got)
	}
}

func TestWriteKeepsOtherSections(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.md")
	for _, s := range [][2]string{{"one", "1"}, {"two", "2"}, {"one", "3"}} {
		if err := Write(file, s[0], s[1]); err != nil {
			t.Fatal(err)
		}
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if !strings.Contains(text, "<!-- one: begin -->\n3\n<!-- one: end -->") || !strings.Contains(text, "<!-- two: begin -->\n2\n") {
		t.Errorf("sections are wrong:\n%s", text)
	}
	if strings.Count(text, "one: begin") != 1 {
		t.Errorf("a section was written twice:\n%s", text)
	}
}
