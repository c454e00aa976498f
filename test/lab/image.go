package lab

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// ProgramImage is an image with a program of this repository and programs that are installed on this host.
type ProgramImage struct {
	// Name is what pods call it; it is pulled from the cluster's own registry.
	Name string
	// Package is a main package of this repository; its program is in the image's root, under the package's last name. May be empty.
	Package string
	// Programs are names of programs that are in PATH here; they are in /usr/bin there, with the libraries that they are linked to.
	Programs []string
	// Files are further files, as "source:target".
	Files []string
	// Links are symbolic links, as "target:name".
	Links []string
}

// Push builds the image and pushes it to the cluster's registry.
func (i ProgramImage) Push(ctx context.Context, l *Lab) error {
	dir, err := os.MkdirTemp("", "sidemount-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	program, tar := filepath.Join(dir, "program"), filepath.Join(dir, "image.tar")
	args := []string{"image", "build", "--name", i.Name, "--tar", tar, "--env", "PATH=/usr/bin:/bin", "--dir", "/tmp:1777"}
	if i.Package != "" {
		if err := l.BuildProgram(ctx, i.Package, program); err != nil {
			return err
		}
		args = append(args, "--file", program+":/"+filepath.Base(i.Package)+":0755")
	}
	files, err := Closure(ctx, i.Programs)
	if err != nil {
		return err
	}
	for _, f := range append(files, i.Files...) {
		args = append(args, "--file", f)
	}
	for _, link := range i.Links {
		args = append(args, "--link", link)
	}
	if _, err := l.Cluster(ctx, args...); err != nil {
		return err
	}
	_, err = l.Cluster(ctx, "image", "push", "--name", l.Name, tar)
	return err
}

// BuildProgram builds a static program of this repository.
func (l *Lab) BuildProgram(ctx context.Context, pkg, output string) error {
	build := exec.CommandContext(ctx, "go", "build", "-o", output, "./"+pkg)
	build.Dir = l.root
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("build %s: %w: %s", pkg, err, out)
	}
	return nil
}

// Closure returns programs that are in PATH and the libraries that they are linked to, as source:target for an image.
func Closure(ctx context.Context, names []string) ([]string, error) {
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
