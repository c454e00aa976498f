package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// fioPatterns are written in turn; fio reads everything back and compares checksums.
var fioPatterns = []string{"randwrite", "write", "randrw"}

// fio runs fio again and again; each run writes a file and verifies it.
func fio(ctx context.Context, s *scene) {
	n := 0
	err := s.repeat(ctx, func() error {
		n++
		return s.fioRun(n, fioPatterns[n%len(fioPatterns)])
	})
	if err == nil {
		err = s.keep(filepath.Join(s.dir, fioFile))
	}
	if err != nil {
		s.fail(err)
	}
}

const fioFile = "file"

func (s *scene) fioRun(n int, pattern string) error {
	output := filepath.Join(s.scratch, "fio.json")
	_, err := s.program("fio "+pattern, []string{"TMPDIR=" + s.scratch}, "fio",
		"--name=verify", "--directory="+s.dir, "--filename="+fioFile, "--size=8m", "--rw="+pattern, "--bsrange=4k-128k", "--ioengine=psync",
		"--thread", "--fallocate=none", "--verify=crc32c", "--do_verify=1", "--verify_fatal=1", "--verify_state_save=0",
		fmt.Sprint("--randseed=", s.seed+uint64(n)), "--output-format=json", "--output="+output)
	if err != nil {
		return errors.Join(err, fioDamage(output), fioSaid(output))
	}
	return s.fioFigures(output)
}

type fioOutput struct {
	Jobs []struct {
		Error       int `json:"error"`
		Read, Write struct {
			Total   int64 `json:"total_ios"`
			Latency struct {
				Max int64 `json:"max"`
			} `json:"clat_ns"`
		}
	} `json:"jobs"`
}

// fioFigures takes over how many requests there were and how long the longest took.
func (s *scene) fioFigures(output string) error {
	raw, err := os.ReadFile(output)
	if err != nil {
		return err
	}
	var o fioOutput
	if err := json.Unmarshal(raw, &o); err != nil {
		return fmt.Errorf("read fio's figures: %w", err)
	}
	if len(o.Jobs) != 1 || o.Jobs[0].Error != 0 {
		return fmt.Errorf("fio: %s", tail(string(raw)))
	}
	j := o.Jobs[0]
	s.add("fio: requests to write", report.Class{Count: j.Write.Total, Longest: time.Duration(j.Write.Latency.Max)})
	s.add("fio: requests to read", report.Class{Count: j.Read.Total, Longest: time.Duration(j.Read.Latency.Max)})
	return nil
}

// fioSaid is what fio has written before its figures, where it says which call has failed.
func fioSaid(output string) error {
	raw, err := os.ReadFile(output)
	if err != nil {
		return nil
	}
	said, _, _ := strings.Cut(string(raw), "{")
	var o fioOutput
	if _, figures, ok := strings.Cut(string(raw), said); ok && json.Unmarshal([]byte(figures), &o) == nil && len(o.Jobs) == 1 {
		return fmt.Errorf("fio: error %d: %s", o.Jobs[0].Error, tail(said))
	}
	return fmt.Errorf("fio: %s", tail(string(raw)))
}

// fioDamage tells damaged content from other trouble: fio ends with EILSEQ at the first block that is wrong.
func fioDamage(output string) error {
	const eilseq, leastBlock = 84, 4096
	raw, err := os.ReadFile(output)
	if err != nil {
		return nil
	}
	var o fioOutput
	if json.Unmarshal(raw, &o) == nil && len(o.Jobs) == 1 && o.Jobs[0].Error == eilseq {
		return &damage{"fio verify", leastBlock}
	}
	return nil
}
