package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// git clones a repository onto the volume, commits, packs and checks it, and removes it, again and again.
func git(ctx context.Context, s *scene) {
	source := filepath.Join(s.scratch, "source.git")
	if err := s.makeSource(source); err != nil {
		s.fail(err)
		return
	}
	n := 0
	err := s.repeat(ctx, func() error {
		n++
		return s.gitRound(source, filepath.Join(s.dir, fmt.Sprint("clone-", n)), n)
	})
	if err != nil {
		s.fail(err)
	}
}

// The size of the source repository.
const (
	sourceFiles   = 60
	sourceCommits = 12
)

// makeSource makes a repository with a history, outside of the volume.
func (s *scene) makeSource(source string) error {
	if _, err := s.git("init", "--quiet", "--bare", "--initial-branch=main", source); err != nil {
		return err
	}
	r := rand.New(rand.NewPCG(s.seed, 3))
	var stream bytes.Buffer
	for c := range sourceCommits {
		fmt.Fprintf(&stream, "commit refs/heads/main\ncommitter Workload <workload@example.invalid> %d +0000\ndata 6\nchange\n", 1700000000+c)
		for f := range sourceFiles {
			if c > 0 && r.IntN(4) > 0 {
				continue
			}
			text := strings.Repeat(fmt.Sprintf("file %d of commit %d, %d\n", f, c, r.Uint64()), 1+r.IntN(80))
			fmt.Fprintf(&stream, "M 100644 inline dir-%d/file-%d\ndata %d\n%s\n", f%7, f, len(text), text)
		}
	}
	cmd := exec.Command("git", "--git-dir="+source, "fast-import", "--quiet")
	cmd.Env = append(os.Environ(), s.gitEnv()...)
	cmd.Stdin = &stream
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("make the source repository: %w: %s", err, tail(string(out)))
	}
	return nil
}

func (s *scene) gitRound(source, clone string, n int) error {
	steps := []func() error{
		func() error { _, err := s.git("clone", "--quiet", "file://"+source, clone); return err },
		func() error { return s.gitCheck(clone) },
		func() error { return s.gitCommit(clone, n) },
		func() error {
			_, err := s.git("-C", clone, "gc", "--quiet", "--prune=now")
			return err
		},
		func() error { return s.gitCheck(clone) },
		func() error { return os.RemoveAll(clone) },
	}
	for _, step := range steps {
		if err := step(); err != nil {
			return fmt.Errorf("clone %d: %w", n, err)
		}
	}
	return nil
}

func (s *scene) gitCommit(clone string, n int) error {
	change := []byte(fmt.Sprintf("round %d\n", n))
	if err := os.WriteFile(filepath.Join(clone, "change"), change, 0o644); err != nil {
		return err
	}
	_, err := s.git("-C", clone, "add", "--all")
	if err == nil {
		_, err = s.git("-C", clone, "commit", "--quiet", "--message=round")
	}
	return err
}

// gitCheck has git check every object, and that the files are those of the commit.
func (s *scene) gitCheck(clone string) error {
	if _, err := s.git("-C", clone, "fsck", "--full", "--strict", "--no-progress"); err != nil {
		return errors.Join(err, &damage{"git fsck", 1})
	}
	// Without the index's cached times, so that every file is read.
	if _, err := s.git("-C", clone, "read-tree", "HEAD"); err != nil {
		return err
	}
	changed, err := s.git("-C", clone, "status", "--porcelain")
	if err == nil && changed != "" {
		err = &damage{"git status: " + tail(changed), 1}
	}
	return err
}

func (s *scene) git(args ...string) (string, error) {
	return s.program("git: "+verb(args), s.gitEnv(), append([]string{"git"}, args...)...)
}

// verb is git's subcommand.
func verb(args []string) string {
	if args[0] == "-C" {
		return args[2]
	}
	return args[0]
}

func (s *scene) gitEnv() []string {
	return []string{
		"HOME=" + s.scratch, "TMPDIR=" + s.scratch, "GIT_CONFIG_NOSYSTEM=1", "GIT_CONFIG_COUNT=3",
		"GIT_CONFIG_KEY_0=safe.directory", "GIT_CONFIG_VALUE_0=*", "GIT_CONFIG_KEY_1=gc.auto", "GIT_CONFIG_VALUE_1=0",
		"GIT_CONFIG_KEY_2=pack.threads", "GIT_CONFIG_VALUE_2=1",
		"GIT_AUTHOR_NAME=Workload", "GIT_AUTHOR_EMAIL=workload@example.invalid", "GIT_COMMITTER_NAME=Workload", "GIT_COMMITTER_EMAIL=workload@example.invalid",
	}
}
