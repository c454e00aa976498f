package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// audit checks, with a mount that was made after everything had ended, that all files are as their writers left them.
func audit(_ context.Context, s *scene) {
	files, err := report.ReadAudit(s.results)
	if err != nil {
		s.fail(err)
		return
	}
	for _, want := range files {
		if err := s.do("audit", func() error { return s.auditFile(want) }); err != nil {
			s.fail(err)
		}
	}
}

func (s *scene) auditFile(want report.File) error {
	f, err := os.Open(filepath.Join(s.volume, want.Path))
	if err != nil {
		return fmt.Errorf("%w: %w", err, &damage{want.Path + " cannot be read", want.Size})
	}
	defer f.Close()
	sum := sha256.New()
	size, err := io.Copy(sum, f)
	switch {
	case err != nil:
		return err
	case size != want.Size:
		return &damage{fmt.Sprintf("%s has %d bytes, want %d", want.Path, size, want.Size), max(size, want.Size) - min(size, want.Size)}
	case hex.EncodeToString(sum.Sum(nil)) != want.Sum:
		return &damage{want.Path + " has the right size and other content", want.Size}
	}
	return nil
}
