package env

import (
	"fmt"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Var is one variable of a container's environment.
type Var struct {
	Name, Value string
}

// Command returns the container's command and arguments with every reference to one of vars expanded. References to
// anything else stay as they are (core/v1 Container.command).
func Command(c *corev1.Container, vars []Var) (command, args []string) {
	values := index(vars)
	lookup := func(name string) string { return valueOrReference(name, values) }
	return expandAll(c.Command, lookup), expandAll(c.Args, lookup)
}

// SubPath returns the path below the volume that the mount asks for: its subPath, or its subPathExpr expanded with vars. A
// reference to a variable that is unset or empty is an error, since the mount would fall on the parent directory.
func SubPath(m corev1.VolumeMount, vars []Var) (string, error) {
	if m.SubPathExpr == "" {
		return m.SubPath, nil
	}
	values := index(vars)
	var missing []string
	path := Expand(m.SubPathExpr, func(name string) string {
		if values[name] == "" && !slices.Contains(missing, name) {
			missing = append(missing, name)
		}
		return values[name]
	})
	if len(missing) > 0 {
		slices.Sort(missing)
		return "", fmt.Errorf("expand subPathExpr of volumeMount %q: missing value for %s", m.Name, strings.Join(missing, ", "))
	}
	return path, nil
}

// Expand replaces each $(NAME) in s by lookup(NAME). "$$" is a literal "$", so that "$$(NAME)" yields "$(NAME)"; a "$" that
// begins neither, and a reference without its closing bracket, are literal.
func Expand(s string, lookup func(name string) string) string {
	var out strings.Builder
	for {
		at := strings.IndexByte(s, '$')
		if at < 0 || at == len(s)-1 {
			out.WriteString(s)
			return out.String()
		}
		out.WriteString(s[:at])
		s = s[at:]
		end := strings.IndexByte(s, ')')
		switch {
		case s[1] == '$':
			out.WriteByte('$')
			s = s[2:]
		case s[1] == '(' && end > 0:
			out.WriteString(lookup(s[2:end]))
			s = s[end+1:]
		default:
			out.WriteString(s[:2])
			s = s[2:]
		}
	}
}

func expandAll(in []string, lookup func(string) string) []string {
	if in == nil {
		return nil
	}
	out := make([]string, len(in))
	for i, s := range in {
		out[i] = Expand(s, lookup)
	}
	return out
}

// valueOrReference looks name up in each map in turn; an unknown name yields the reference itself.
func valueOrReference(name string, values ...map[string]string) string {
	for _, m := range values {
		if v, ok := m[name]; ok {
			return v
		}
	}
	return "$(" + name + ")"
}

func index(vars []Var) map[string]string {
	m := make(map[string]string, len(vars))
	for _, v := range vars {
		m[v.Name] = v.Value
	}
	return m
}
