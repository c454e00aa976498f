package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"
)

// programs are Kubernetes' tests and what they need, built from the module in suite.
type programs struct{ tests, ginkgo, agnhost, privileges string }

// build makes the programs; the go command's cache makes it quick the second time.
func build(ctx context.Context) (programs, error) {
	dir, err := filepath.Abs(filepath.Join(".cache", "conformance", "bin"))
	if err != nil {
		return programs{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return programs{}, err
	}
	p := programs{tests: filepath.Join(dir, "e2e.test"), ginkgo: filepath.Join(dir, "ginkgo"), agnhost: filepath.Join(dir, "agnhost"),
		privileges: filepath.Join(dir, "nonewprivs")}
	fmt.Fprintln(os.Stderr, "conformance: building Kubernetes' tests, 4 minutes when nothing is cached")
	began := time.Now()
	for _, args := range [][]string{
		{"test", "-c", "-trimpath", "-ldflags", "-s -w", "-o", p.tests, "."},
		{"build", "-trimpath", "-ldflags", "-s -w", "-o", dir + "/", "tool"},
	} {
		cmd := exec.CommandContext(ctx, "go", args...)
		cmd.Dir = filepath.Join("test", "conformance", "suite")
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return programs{}, fmt.Errorf("build Kubernetes' tests: %w", err)
		}
	}
	fmt.Fprintf(os.Stderr, "conformance: built in %.0f s\n", time.Since(began).Seconds())
	return p, nil
}
