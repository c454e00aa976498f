package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"text/tabwriter"

	"github.com/sidemount/sidemount/hack/cluster/internal/build"
	"github.com/sidemount/sidemount/hack/cluster/internal/cluster"
)

func runBuild(ctx context.Context, args []string) error {
	f := newFlags("build", "[flags]")
	p := placeFlags(f)
	if err := parse(f, args); err != nil {
		return err
	}
	o, err := p.resolve()
	if err != nil {
		return err
	}
	if err := build.Run(ctx, o, os.Stderr); err != nil {
		return err
	}
	fmt.Fprintf(os.Stderr, "all programs and base images are in %s\n", o.Bin)
	return nil
}

func runUp(ctx context.Context, args []string) error {
	f := newFlags("up", "[flags]")
	name, p, process := nameFlag(f), placeFlags(f), processFlags(f)
	dir := f.String("dir", "", "`directory` for the cluster (default "+cluster.DefaultDir+"/NAME)")
	nodes := f.Int("nodes", 1, "`number` of ordinary nodes")
	virtual := f.Int("virtual", 1, "`number` of virtual nodes")
	var images list
	f.Var(&images, "client-image-tar", "image `archive` to push; may be repeated")
	if err := parse(f, args); err != nil {
		return err
	}
	o, err := p.resolve()
	if err != nil {
		return err
	}
	if build.Missing(o.Bin) != "" {
		if err := build.Run(ctx, o, os.Stderr); err != nil {
			return err
		}
	}
	_, err = cluster.Up(ctx, cluster.UpOptions{
		Name: *name, Dir: *dir, Bin: o.Bin,
		Nodes: *nodes, Virtual: *virtual, Process: process.value(), Images: images,
	}, os.Stderr)
	return err
}

func runDown(ctx context.Context, args []string) error {
	f := newFlags("down", "[flags]")
	name := nameFlag(f)
	if err := parse(f, args); err != nil {
		return err
	}
	return cluster.Down(ctx, *name, os.Stderr)
}

func runList(_ context.Context, args []string) error {
	if err := parse(newFlags("list", ""), args); err != nil {
		return err
	}
	names, err := cluster.List()
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "NAME\tSERVER\tNODES\tRUNS\tDIRECTORY")
	for _, name := range names {
		s, err := cluster.Load(name)
		if err != nil {
			fmt.Fprintf(w, "%s\t%v\n", name, err)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%t\t%s\n", name, s.Server, strings.Join(s.NodeNames(), ","), s.Machine.Alive(), s.Dir)
	}
	return w.Flush()
}

func runKubeconfig(_ context.Context, args []string) error {
	f := newFlags("kubeconfig", "[flags]")
	name := nameFlag(f)
	if err := parse(f, args); err != nil {
		return err
	}
	s, err := cluster.Load(*name)
	if err != nil {
		return err
	}
	fmt.Println(s.Kubeconfig)
	return nil
}

func runStatus(ctx context.Context, args []string) error {
	f := newFlags("status", "[flags]")
	name := nameFlag(f)
	if err := parse(f, args); err != nil {
		return err
	}
	s, err := cluster.Load(*name)
	if err != nil {
		return err
	}
	statuses, err := cluster.Check(ctx, s)
	if err != nil {
		return err
	}
	healthy := true
	w := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tPID\tRSS\tHEALTHY")
	for _, st := range statuses {
		word := "yes"
		if st.Err != nil {
			healthy, word = false, "no: "+st.Err.Error()
		}
		fmt.Fprintf(w, "%s\t%d\t%d MB\t%s\n", st.Name, st.PID, st.RSS>>20, word)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	if !healthy {
		return exitCode(1)
	}
	return nil
}
