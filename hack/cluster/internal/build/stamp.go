package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// fingerprint hashes what the outputs depend on: the Go version, the command line, and of the directories every Go file
// and the module files. The sums in go.sum stand for all dependencies.
func fingerprint(goVersion string, args []string, dirs []string) (string, error) {
	h := sha256.New()
	fmt.Fprintln(h, goVersion, strings.Join(args, "\x00"))
	for _, dir := range dirs {
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || !isInput(path) {
				return err
			}
			f, err := os.Open(path)
			if err != nil {
				return err
			}
			defer f.Close()
			fmt.Fprintln(h, path)
			_, err = io.Copy(h, f)
			return err
		})
		if err != nil {
			return "", fmt.Errorf("hash the inputs of a build: %w", err)
		}
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func isInput(path string) bool {
	switch filepath.Base(path) {
	case "go.mod", "go.sum":
		return true
	}
	return filepath.Ext(path) == ".go"
}

// upToDate tells whether the outputs exist and were made from inputs with this fingerprint.
func upToDate(stamp, fingerprint string, outputs []string) bool {
	b, err := os.ReadFile(stamp)
	if err != nil || string(b) != fingerprint {
		return false
	}
	for _, o := range outputs {
		if _, err := os.Stat(o); err != nil {
			return false
		}
	}
	return true
}
