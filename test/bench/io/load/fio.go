package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os/exec"
	"strings"
)

// job is a run of fio on the one file.
type job struct {
	name, unit string
	// runs are taken together as one that took as long as all of them: 128 MiB alone take a tenth of a second.
	runs int
	args []string
	// pick takes the figure out of what fio says of reads and of writes.
	pick func(read, write fioFigures) float64
}

type fioFigures struct {
	Bytes float64 `json:"bw_bytes"`
	IOPS  float64 `json:"iops"`
}

const mega = 1e6

// jobs run in this order on the same file. A write counts when it has been synced. Before a read the file's pages leave the page cache
// (fio's default), and small reads go past it, so that it is not the page cache that is measured.
var jobs = []job{
	{"sequential write, 1 MiB blocks", "MB/s", 4, []string{"--rw=write", "--bs=1m", "--end_fsync=1"}, writeRate},
	{"sequential write, 128 KiB blocks", "MB/s", 4, []string{"--rw=write", "--bs=128k", "--end_fsync=1"}, writeRate},
	{"sequential read, 1 MiB blocks", "MB/s", 8, []string{"--rw=read", "--bs=1m"}, readRate},
	{"sequential read, 128 KiB blocks", "MB/s", 8, []string{"--rw=read", "--bs=128k"}, readRate},
	{"random read, 4 KiB, direct", "1/s", 1, []string{"--rw=randread", "--bs=4k", "--direct=1", "--time_based", "--runtime=2"}, func(r, _ fioFigures) float64 { return r.IOPS }},
	{"random write, 4 KiB", "1/s", 1, []string{"--rw=randwrite", "--bs=4k", "--time_based", "--runtime=2"}, func(_, w fioFigures) float64 { return w.IOPS }},
}

func writeRate(_, w fioFigures) float64 { return w.Bytes / mega }
func readRate(r, _ fioFigures) float64  { return r.Bytes / mega }

// measure runs the job as often as it says. The file stays for the jobs that read it.
func (j job) measure(ctx context.Context, dir string) ([]figure, error) {
	args := append([]string{"--name=job", "--directory=" + dir, "--filename=throughput", "--size=128m", "--ioengine=psync", "--thread",
		"--fallocate=none", "--output-format=json"}, j.args...)
	took := 0.0
	for range j.runs {
		rate, err := j.run(ctx, args)
		if err != nil {
			return nil, err
		}
		took += 1 / rate
	}
	return []figure{{j.name, j.unit, float64(j.runs) / took}}, nil
}

func (j job) run(ctx context.Context, args []string) (float64, error) {
	cmd := exec.CommandContext(ctx, "fio", args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return 0, fmt.Errorf("fio: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	var said struct {
		Jobs []struct {
			Error       int `json:"error"`
			Read, Write fioFigures
		} `json:"jobs"`
	}
	// fio may say something before the JSON.
	text := out.Bytes()
	if err := json.Unmarshal(text[max(0, bytes.IndexByte(text, '{')):], &said); err != nil {
		return 0, fmt.Errorf("read fio's figures: %w", err)
	}
	if len(said.Jobs) != 1 || said.Jobs[0].Error != 0 {
		return 0, fmt.Errorf("fio: %s", text)
	}
	value := j.pick(said.Jobs[0].Read, said.Jobs[0].Write)
	if value <= 0 {
		return 0, fmt.Errorf("fio measured nothing")
	}
	return value, nil
}
