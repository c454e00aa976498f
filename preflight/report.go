package preflight

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
)

// Status is what a check came to.
type Status string

const (
	// OK: nothing to do.
	OK Status = "ok"
	// Warning: it works, but something will be worse than it could be.
	Warning Status = "warning"
	// Missing: a node cannot work here.
	Missing Status = "missing"
)

// Result is what a check has found.
type Result struct {
	// Check names it, in a word or two.
	Check  string `json:"check"`
	Status Status `json:"status"`
	// Found says what is there, in words.
	Found string `json:"found"`
	// Cure says what to do. It is empty if the status is OK.
	Cure string `json:"cure,omitempty"`
}

// Report is the result of all checks, in their order.
type Report struct {
	Role    Role     `json:"role"`
	Results []Result `json:"checks"`
}

// Usable is whether nothing is missing.
func (r Report) Usable() bool {
	return !slices.ContainsFunc(r.Results, func(c Result) bool { return c.Status == Missing })
}

// WriteTable writes a line for each check, and below it the cure where there is one.
func (r Report) WriteTable(w io.Writer) error {
	table := tabwriter.NewWriter(w, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "CHECK\tSTATUS\tFOUND")
	for _, c := range r.Results {
		fmt.Fprintf(table, "%s\t%s\t%s\n", c.Check, c.Status, c.Found)
		if c.Cure != "" {
			fmt.Fprintf(table, "\t\tcure: %s\n", c.Cure)
		}
	}
	return table.Flush()
}

// WriteJSON writes the report as one object.
func (r Report) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(r)
}

func ok(check, format string, args ...any) Result {
	return Result{Check: check, Status: OK, Found: fmt.Sprintf(format, args...)}
}

func warning(check, found, cure string) Result {
	return Result{Check: check, Status: Warning, Found: found, Cure: cure}
}

func missing(check, found, cure string) Result {
	return Result{Check: check, Status: Missing, Found: found, Cure: cure}
}
