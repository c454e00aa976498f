package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// imageName is pulled from the cluster's own registry.
const imageName = "recovery/workload:1"

// programs are what the image holds besides the workload, with the libraries that they are linked to. Git runs its parts through a shell.
var programs = []string{"fio", "sqlite3", "git", "busybox"}

// makeImage builds the workloads' image from what is installed here, and pushes it.
func (t *trial) makeImage(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "sidemount-recovery-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	workload := filepath.Join(dir, "workload")
	build := exec.CommandContext(ctx, "go", "build", "-o", workload, "./test/recovery/workload")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build the workload: %w: %s", err, out)
	}
	files, err := closure(ctx, programs)
	if err != nil {
		return err
	}
	tar := filepath.Join(dir, "image.tar")
	args := []string{
		"image", "build", "--name", imageName, "--tar", tar, "--file", workload + ":/workload:0755", "--env", "PATH=/usr/bin:/bin",
		"--link", "/usr/bin/busybox:/bin/sh", "--link", "/usr/bin/git:/usr/lib/git-core/git", "--dir", "/tmp:1777",
	}
	for _, part := range []string{"upload-pack", "receive-pack"} {
		args = append(args, "--link", "git:/usr/bin/git-"+part)
	}
	for _, f := range files {
		args = append(args, "--file", f)
	}
	if _, err := t.lab.Cluster(ctx, args...); err != nil {
		return err
	}
	_, err = t.lab.Cluster(ctx, "image", "push", "--name", t.lab.Name, tar)
	return err
}

// closure returns the programs and their libraries as source:target.
func closure(ctx context.Context, names []string) ([]string, error) {
	seen := map[string]bool{}
	var files []string
	add := func(source, target string) {
		if !seen[target] {
			seen[target] = true
			files = append(files, source+":"+target)
		}
	}
	for _, name := range names {
		path, err := exec.LookPath(name)
		if err != nil {
			return nil, fmt.Errorf("install %s first: %w", name, err)
		}
		add(path, "/usr/bin/"+name)
		libraries, err := librariesOf(ctx, path)
		if err != nil {
			return nil, err
		}
		for _, l := range libraries {
			add(l, l)
		}
	}
	return files, nil
}

// librariesOf asks the dynamic loader what a program needs; a static program needs nothing.
func librariesOf(ctx context.Context, path string) ([]string, error) {
	out, err := exec.CommandContext(ctx, "ldd", path).Output()
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("find the libraries of %s: %w", path, err)
	}
	return parseLibraries(string(out)), nil
}

// parseLibraries reads lines like "libc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x…)" and "/lib64/ld-linux-x86-64.so.2 (0x…)".
func parseLibraries(text string) []string {
	var all []string
	for line := range strings.Lines(text) {
		for _, word := range strings.Fields(line) {
			if strings.HasPrefix(word, "/") {
				all = append(all, word)
			}
		}
	}
	return all
}
