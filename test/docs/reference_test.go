package docs

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the generated parts of docs/reference.md anew")

const reference = "docs/reference.md"

// section returns what stands between a pair of marks of the reference.
func section(t *testing.T, name string) (before, text, after string) {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(root, reference))
	if err != nil {
		t.Fatal(err)
	}
	begin, end := "<!-- "+name+": begin -->\n", "<!-- "+name+": end -->"
	before, rest, found := strings.Cut(string(content), begin)
	text, after, ended := strings.Cut(rest, end)
	if !found || !ended {
		t.Fatalf("%s has no place for %s", reference, name)
	}
	return before + begin, text, end + after
}

func source(t *testing.T) *Source {
	t.Helper()
	s, err := ReadSource()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// firstCells are the pieces of code in the first cells of a section's tables.
func firstCells(text string) map[string]bool {
	cells := map[string]bool{}
	for line := range strings.Lines(text) {
		first, _, ok := strings.Cut(strings.TrimPrefix(line, "|"), "|")
		if !strings.HasPrefix(line, "|") || !ok {
			continue
		}
		for _, m := range codeSpan.FindAllStringSubmatch(first, -1) {
			cells[m[1]] = true
		}
	}
	return cells
}

func TestReferenceHasEveryMetric(t *testing.T) {
	before, present, after := section(t, "metrics")
	want, err := metricsTable(source(t).Metrics)
	if err != nil {
		t.Fatal(err)
	}
	if *update {
		if err := os.WriteFile(filepath.Join(root, reference), []byte(before+want+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if present != want {
		t.Errorf("%s does not have the metrics that the code has; run make docs", reference)
	}
}

// owners are the processes that have a metric, by the file that declares it.
var owners = map[string]string{
	"cmd/sidemount/metrics.go": "node", "cmd/sidemount/sessioncensus.go": "node, csi node", "cmd/sidemount/csi.go": "csi", "cmd/sidemount/webhook.go": "webhook", "csi/mountpod/metrics.go": "csi node",
}

func metricsTable(metrics []Metric) (string, error) {
	var b strings.Builder
	b.WriteString("| metric | kind | labels | process | |\n|---|---|---|---|---|\n")
	for i := 0; i < len(metrics); i++ {
		m := metrics[i]
		var who []string
		for ; ; i++ {
			owner, ok := owners[metrics[i].File]
			if !ok {
				return "", fmt.Errorf("say in owners which process has the metrics of %s", metrics[i].File)
			}
			who = append(who, owner)
			if i+1 == len(metrics) || metrics[i+1].Name != m.Name {
				break
			}
		}
		if m.Name == "sidemount_build_info" {
			who = []string{"all"}
		}
		if m.Help == "" {
			return "", fmt.Errorf("%s says nothing in its help", m.Name)
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", m.Name, m.Kind, strings.Join(m.Labels, ", "), strings.Join(who, ", "), strings.TrimSuffix(m.Help, "."))
	}
	return b.String(), nil
}

func TestReferenceHasEveryEvent(t *testing.T) {
	_, text, _ := section(t, "events")
	compare(t, "event", source(t).Events, firstCells(text), "ResizeStarted", "ResizeCompleted")
}

func TestReferenceHasEveryKey(t *testing.T) {
	_, text, _ := section(t, "keys")
	// The chart's webhook looks at this label of namespaces; no Go code does.
	compare(t, "key", source(t).Keys, firstCells(text), "sidemount.io/injection")
}

// compare wants the same on both sides but for what the code's reading cannot see.
func compare(t *testing.T, what string, code, page map[string]bool, elsewhere ...string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(code)) {
		if !page[k] {
			t.Errorf("the code has the %s %s, which %s does not explain: add it to the table", what, k, reference)
		}
	}
	for _, k := range slices.Sorted(maps.Keys(page)) {
		if !code[k] && !slices.Contains(elsewhere, k) {
			t.Errorf("%s explains the %s %s, which no code has", reference, what, k)
		}
	}
}
