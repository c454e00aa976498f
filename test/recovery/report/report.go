// Package report is what a workload of the recovery test tells the harness that kills the client below it. It measures nothing.
package report

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Names of files in the directory that workloads and harness share.
const (
	// StopFile tells the workloads to come to an end.
	StopFile = "stop"
	// AuditFile lists the files that must be on a volume after everything has ended.
	AuditFile = "audit.json"
)

// Report is what one workload did and met.
type Report struct {
	Workload string    `json:"workload"`
	Began    time.Time `json:"began"`
	Ended    time.Time `json:"ended"`
	// Ops counts what was done, by class of operation.
	Ops map[string]Class `json:"ops"`
	// Failures counts the operations whose result was not the one that a local file system gives. Errors has the first of them.
	Failures int      `json:"failures"`
	Errors   []string `json:"errors,omitempty"`
	// Lost is how many bytes were not as they had been written.
	Lost int64 `json:"lost"`
	// Stalls are the operations that took at least StallFrom. StallsLeftOut counts those that found no room.
	Stalls        []Stall `json:"stalls,omitempty"`
	StallsLeftOut int     `json:"stallsLeftOut,omitempty"`
	// Files are what the workload leaves on the volume.
	Files []File `json:"files,omitempty"`
	// Notes are for the person who reads the result.
	Notes []string `json:"notes,omitempty"`
}

// Class is a class of operations.
type Class struct {
	Count   int64         `json:"count"`
	Longest time.Duration `json:"longestNs"`
}

// StallFrom is the shortest time that counts as a stall. An undisturbed operation takes much less.
const StallFrom = 10 * time.Millisecond

// Stall is an operation that took long. Start is the kernel's clock, which the harness on the same machine shares.
type Stall struct {
	Class string        `json:"class"`
	Start time.Time     `json:"start"`
	Took  time.Duration `json:"tookNs"`
}

// File is a file as it must be found: size and SHA-256 of the content.
type File struct {
	Path string `json:"path"`
	Size int64  `json:"size"`
	Sum  string `json:"sum"`
}

// Progress is a workload's sign of life.
type Progress struct {
	Ops      int64 `json:"ops"`
	Failures int   `json:"failures"`
	Lost     int64 `json:"lost"`
	// Error is the first thing that went wrong, empty if nothing has.
	Error string `json:"error,omitempty"`
}

// Total is the number of operations of all classes.
func (r *Report) Total() int64 {
	var n int64
	for _, c := range r.Ops {
		n += c.Count
	}
	return n
}

func reportFile(dir, name string) string   { return filepath.Join(dir, name+".json") }
func progressFile(dir, name string) string { return filepath.Join(dir, name+".progress") }

// Write leaves a workload's report in the shared directory.
func Write(dir string, r *Report) error { return write(reportFile(dir, r.Workload), r) }

// Read returns the report of a workload that has ended, or os.ErrNotExist.
func Read(dir, name string) (*Report, error) {
	r := &Report{}
	return r, read(reportFile(dir, name), r)
}

// WriteProgress replaces a workload's sign of life.
func WriteProgress(dir, name string, p Progress) error { return write(progressFile(dir, name), p) }

// ReadProgress returns a workload's last sign of life; the zero value if it has given none.
func ReadProgress(dir, name string) (Progress, error) {
	var p Progress
	err := read(progressFile(dir, name), &p)
	if errors.Is(err, os.ErrNotExist) {
		return p, nil
	}
	return p, err
}

// WriteAudit and ReadAudit pass on the list of files for the last check.
func WriteAudit(dir string, files []File) error { return write(filepath.Join(dir, AuditFile), files) }

// ReadAudit returns what WriteAudit has left.
func ReadAudit(dir string) ([]File, error) {
	var files []File
	return files, read(filepath.Join(dir, AuditFile), &files)
}

// write replaces a file in one step, so that a reader sees all or nothing of it.
func write(path string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	next := path + ".new"
	if err := os.WriteFile(next, b, 0o644); err != nil {
		return err
	}
	return os.Rename(next, path)
}

func read(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
