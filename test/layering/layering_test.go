// Package layering holds the import budget of the project: which package may know of which, and why.
package layering

import (
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/sidemount/sidemount"

// rule forbids packages below from (relative to the module, "/..." for the tree) to reach any import with a prefix in forbidden,
// directly or through others.
type rule struct {
	from      string
	forbidden []string
	because   string
}

var rules = []rule{
	{"mount/...", []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", "github.com/virtual-kubelet/"},
		"the data path must be small, start in milliseconds and be readable without knowing Kubernetes"},
	{"mount", []string{module + "/mount/"},
		"the vocabulary knows nobody who speaks it"},
	{"mount/...", []string{module + "/sidecar", module + "/provider", module + "/node", module + "/csi", module + "/cmd"},
		"the kernel boundary serves every kind of node and knows none of them"},
	{"sidecar/agent", []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", "github.com/virtual-kubelet/"},
		"the agent is in every sidecar: each dependency costs memory per pod"},
	{"cmd/sidemount-agent", []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", "github.com/virtual-kubelet/", "net/http"},
		"the agent is in every sidecar: each dependency costs memory per pod"},
	{"sidecar", []string{module + "/provider", module + "/node", module + "/csi", module + "/cmd", module + "/mount/broker"},
		"resolve and inject are pure and shared by the provider, the CSI driver and the webhook"},
	{"sidecar/grant", []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", "github.com/virtual-kubelet/", "net/http"},
		"it is in the agent, and in every sidecar with it"},
	{"sidecar/solo", []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", "github.com/virtual-kubelet/", "net/http"},
		"it is in the agent, and in every sidecar with it"},
	{"sidecar/readiness", []string{"k8s.io/", "sigs.k8s.io/", "google.golang.org/grpc", "github.com/virtual-kubelet/", "net/http"},
		"it is in the agent, and in every sidecar with it"},
	{"sidecar/webhook/...", []string{module + "/mount/broker", module + "/sidecar/agent", module + "/provider", module + "/node", module + "/csi", module + "/cmd"},
		"admission changes pods and mounts nothing; it must build and run without any node"},
	{"node/...", []string{module + "/mount", module + "/sidecar", module + "/provider", module + "/csi", module + "/cmd"},
		"the Node object and the kubelet API know pods only through the interfaces that they declare"},
	{"provider/...", []string{module + "/node", module + "/csi", module + "/cmd"},
		"the engine runs pods; who asks it to is not its business"},
	{"provider/...", []string{module + "/mount/broker", module + "/mount/fuse", module + "/sidecar"},
		"sessions reach the engine through its Preparer interface, so that it can be tested and read without them"},
	{"preflight", []string{"k8s.io/client-go", "github.com/virtual-kubelet/", module + "/provider", module + "/node", module + "/csi", module + "/sidecar", module + "/cmd"},
		"what a host must offer is told before anything of the product runs on it"},
	{"csi/...", []string{module + "/node", module + "/provider", module + "/cmd", "github.com/virtual-kubelet/"},
		"ordinary nodes run no part of the virtual node"},
}

func TestImportsFollowTheArchitecture(t *testing.T) {
	graph := imports(t)
	for _, r := range rules {
		for from := range graph {
			if !within(from, r.from) {
				continue
			}
			for _, target := range reach(graph, from) {
				if hit(target, r.forbidden) && !within(target, r.from) {
					t.Errorf("%s reaches %s: forbidden because %s\n\t%s", from, target, r.because, strings.Join(path(graph, from, target), "\n\t→ "))
				}
			}
		}
	}
}

// A rule whose package was moved would pass for ever.
func TestEveryRuleNamesAPackage(t *testing.T) {
	graph := imports(t)
	for _, r := range rules {
		if !slices.ContainsFunc(keys(graph), func(p string) bool { return within(p, r.from) }) {
			t.Errorf("rule for %s matches no package: mend or remove it", r.from)
		}
	}
}

// imports reads the import graph of the module and everything below it from the go command, tests left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", "list", "-deps", "-json=ImportPath,Imports", "./...")
	cmd.Dir = "../.."
	out, err := cmd.Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("go list: %v\n%s", err, exit.Stderr)
		}
		t.Fatal(err)
	}
	graph := map[string][]string{}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return graph
		} else if err != nil {
			t.Fatal(err)
		}
		graph[p.ImportPath] = p.Imports
	}
}

// within tells whether pkg is pattern (relative to the module) or, with "/...", below it.
func within(pkg, pattern string) bool {
	tree, all := strings.CutSuffix(pattern, "/...")
	full := module + "/" + tree
	return pkg == full || all && strings.HasPrefix(pkg, full+"/")
}

func hit(pkg string, prefixes []string) bool {
	return slices.ContainsFunc(prefixes, func(p string) bool {
		return pkg == strings.TrimSuffix(p, "/") || strings.HasPrefix(pkg, strings.TrimSuffix(p, "/")+"/")
	})
}

func reach(graph map[string][]string, from string) []string {
	seen := map[string]bool{from: true}
	todo := []string{from}
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		for _, i := range graph[p] {
			if !seen[i] {
				seen[i] = true
				todo = append(todo, i)
			}
		}
	}
	delete(seen, from)
	all := keys(seen)
	slices.Sort(all)
	return all
}

// path is a shortest chain of imports from one package to another, to show how a forbidden one came in.
func path(graph map[string][]string, from, to string) []string {
	via := map[string]string{from: from}
	todo := []string{from}
	for len(todo) > 0 {
		p := todo[0]
		todo = todo[1:]
		if p == to {
			break
		}
		for _, i := range graph[p] {
			if _, ok := via[i]; !ok {
				via[i] = p
				todo = append(todo, i)
			}
		}
	}
	chain := []string{to}
	for p := to; p != from; {
		p = via[p]
		chain = append([]string{p}, chain...)
	}
	return chain
}

func keys[V any](m map[string]V) []string {
	out := make([]string, 0, len(m))
	for k := range m {
		out = append(out, k)
	}
	return out
}
