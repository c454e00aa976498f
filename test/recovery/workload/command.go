package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// commandPatience bounds one run of a program. A client that hangs is replaced much sooner.
const commandPatience = 5 * time.Minute

// program runs a program to its end, records it as an operation and returns what it wrote to its standard output. It does not end with
// the workload: what was begun is finished, and then checked.
func (s *scene) program(class string, env []string, argv ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), commandPatience)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = 10 * time.Second
	start := time.Now()
	err := cmd.Run()
	// How long a program takes says little about how long its calls did, so it is no stall.
	s.add(class, report.Class{Count: 1, Longest: time.Since(start)})
	if err != nil {
		return out.String(), fmt.Errorf("%s: %w: %s", class, err, tail(errs.String()+out.String()))
	}
	return out.String(), nil
}

// tail is the end of a text, where programs say what is wrong.
func tail(text string) string {
	const most = 600
	return text[max(0, len(text)-most):]
}

// keep has a file's present content checked after everything has ended.
func (s *scene) keep(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	if err != nil {
		return err
	}
	rel, err := filepath.Rel(s.volume, path)
	if err != nil {
		return err
	}
	s.leaves(report.File{Path: rel, Size: size, Sum: hex.EncodeToString(sum.Sum(nil))})
	return nil
}
