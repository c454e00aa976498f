package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/sidemount/sidemount/hack/cluster/internal/build"
)

// list is a flag that may be repeated.
type list []string

func (l *list) String() string     { return strings.Join(*l, " ") }
func (l *list) Set(v string) error { *l = append(*l, v); return nil }

// newFlags makes a flag set that reports errors instead of ending the program.
func newFlags(name, args string) *flag.FlagSet {
	f := flag.NewFlagSet(name, flag.ContinueOnError)
	f.Usage = func() {
		fmt.Fprintf(os.Stderr, "usage: cluster %s %s\n", name, args)
		f.PrintDefaults()
	}
	return f
}

// nameFlag is the flag that all commands on one cluster have.
func nameFlag(f *flag.FlagSet) *string {
	return f.String("name", "dev", "`name` of the cluster")
}

// parse wants all arguments to be flags.
func parse(f *flag.FlagSet, args []string) error {
	if err := f.Parse(args); err != nil {
		return err
	}
	if f.NArg() > 0 {
		return fmt.Errorf("%s takes no argument %q", f.Name(), f.Arg(0))
	}
	return nil
}

// places finds hack/cluster and the cache of a checkout.
type places struct{ source, bin string }

func placeFlags(f *flag.FlagSet) *places {
	p := &places{}
	f.StringVar(&p.source, "source", "", "`directory` hack/cluster of a checkout (default: found from the working directory or this program)")
	f.StringVar(&p.bin, "bin", "", "`directory` of the built programs (default REPOSITORY/.cache/bin)")
	return p
}

// resolve fills in the defaults and makes the paths absolute.
func (p *places) resolve() (build.Options, error) {
	var err error
	if p.source == "" {
		if p.source, err = findSource(); err != nil {
			return build.Options{}, err
		}
	}
	if p.bin == "" {
		p.bin = filepath.Join(p.source, "..", "..", ".cache", "bin")
	}
	source, err := filepath.Abs(p.source)
	if err != nil {
		return build.Options{}, err
	}
	bin, err := filepath.Abs(p.bin)
	return build.Options{Source: source, Bin: bin}, err
}

// findSource goes up from the working directory, and then from the program, until it sees hack/cluster.
func findSource() (string, error) {
	starts := []string{}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	if self, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(self))
	}
	for _, dir := range starts {
		for ; ; dir = filepath.Dir(dir) {
			source := filepath.Join(dir, "hack", "cluster")
			if b, err := os.ReadFile(filepath.Join(source, "go.mod")); err == nil && strings.Contains(string(b), modulePath()) {
				return source, nil
			}
			if dir == "/" {
				break
			}
		}
	}
	return "", fmt.Errorf("no checkout with hack/cluster above %s; name it with --source", strings.Join(starts, " or "))
}

func modulePath() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Path
	}
	return "hack/cluster"
}
