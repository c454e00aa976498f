package docs

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Metric is a metric as the code declares it.
type Metric struct {
	Name, Kind, Help string
	Labels           []string
	// File declares it; the path is relative to the repository.
	File string
}

// Source is what the code says to the outside.
type Source struct {
	// Metrics in the order of their names; one that two files declare is there twice.
	Metrics []Metric
	// Events are the reasons of Events.
	Events map[string]bool
	// Keys are labels, annotations, conditions and attributes under sidemount.io/ and juicefs/.
	Keys map[string]bool
}

// parts are the directories of what is shipped.
var parts = []string{"cmd", "csi", "mount", "node", "provider", "sidecar"}

// ReadSource reads the code that is shipped.
func ReadSource() (*Source, error) {
	s := &Source{Events: map[string]bool{}, Keys: map[string]bool{}}
	for _, part := range parts {
		err := filepath.WalkDir(filepath.Join(root, part), func(path string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			// Packages for tests are named after what they test.
			if d.IsDir() && (d.Name() == "testdata" || strings.HasSuffix(d.Name(), "test")) {
				return filepath.SkipDir
			}
			if d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return nil
			}
			return s.read(path)
		})
		if err != nil {
			return nil, err
		}
	}
	slices.SortFunc(s.Metrics, func(a, b Metric) int { return strings.Compare(a.Name+" "+a.File, b.Name+" "+b.File) })
	return s, nil
}

func (s *Source) read(path string) error {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return fmt.Errorf("read the source: %w", err)
	}
	path, err = filepath.Rel(root, path)
	if err != nil {
		return err
	}
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.ValueSpec:
			s.constant(filepath.Dir(path), n)
		case *ast.CallExpr:
			s.call(path, n)
		case *ast.BasicLit:
			if text, ok := word(n); ok && key.MatchString(text) {
				s.Keys[text] = true
			}
		}
		return true
	})
	return nil
}

var (
	key    = regexp.MustCompile(`^(sidemount\.io|juicefs)/[A-Za-z-]*[a-z]$`)
	reason = regexp.MustCompile(`^[A-Z][A-Za-z]+$`)
)

// constant takes the reasons of events that have a name: those of the broker and of package sidecar are of a type Reason, those of
// the provider begin with "event".
func (s *Source) constant(dir string, v *ast.ValueSpec) {
	kind, typed := v.Type.(*ast.Ident)
	ofReason := typed && kind.Name == "Reason" && (dir == "mount/broker" || dir == "sidecar")
	for i, name := range v.Names {
		if i >= len(v.Values) || !ofReason && !(dir == "provider" && strings.HasPrefix(name.Name, "event")) {
			continue
		}
		if text, ok := word(v.Values[i]); ok && reason.MatchString(text) {
			s.Events[text] = true
		}
	}
}

// call takes the reasons that stand in a call of a recorder, and metrics.
func (s *Source) call(path string, c *ast.CallExpr) {
	f, ok := c.Fun.(*ast.SelectorExpr)
	if !ok {
		return
	}
	name := f.Sel.Name
	switch {
	case (name == "Event" || name == "Eventf") && len(c.Args) >= 4:
		if text, ok := word(c.Args[2]); ok && reason.MatchString(text) {
			s.Events[text] = true
		}
	case name == "NewDesc" && len(c.Args) == 4:
		m := Metric{File: path, Kind: "gauge", Labels: words(c.Args[2])}
		m.Name, _ = word(c.Args[0])
		m.Help, _ = word(c.Args[1])
		if strings.HasSuffix(m.Name, "_total") {
			m.Kind = "counter"
		}
		s.Metrics = append(s.Metrics, m)
	case strings.HasPrefix(name, "New") && len(c.Args) >= 1:
		s.metric(path, c)
	}
}

// metric takes NewCounterVec(CounterOpts{…}, []string{…}) and the like.
func (s *Source) metric(path string, c *ast.CallExpr) {
	options, ok := c.Args[0].(*ast.CompositeLit)
	if !ok {
		return
	}
	kind, ok := options.Type.(*ast.SelectorExpr)
	if !ok || !strings.HasSuffix(kind.Sel.Name, "Opts") {
		return
	}
	m := Metric{File: path, Kind: strings.ToLower(strings.TrimSuffix(kind.Sel.Name, "Opts"))}
	if len(c.Args) > 1 {
		m.Labels = words(c.Args[1])
	}
	for _, e := range options.Elts {
		kv, ok := e.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		field, _ := kv.Key.(*ast.Ident)
		switch field.Name {
		case "Name":
			m.Name, _ = word(kv.Value)
		case "Help":
			m.Help, _ = word(kv.Value)
		case "ConstLabels":
			m.Labels = append(m.Labels, words(kv.Value)...)
		}
	}
	if m.Name != "" {
		s.Metrics = append(s.Metrics, m)
	}
}

// word is the value of a string.
func word(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	text, err := strconv.Unquote(lit.Value)
	return text, err == nil
}

// words are the strings of a slice, or the keys of a map.
func words(e ast.Expr) []string {
	list, ok := e.(*ast.CompositeLit)
	if !ok {
		return nil
	}
	var all []string
	for _, e := range list.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Key
		}
		if text, ok := word(e); ok {
			all = append(all, text)
		}
	}
	return all
}
