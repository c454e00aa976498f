package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
)

const agentName = "sidemount-agent"

// agentPathOr returns the agent beside this program, unless a path is given.
func agentPathOr(given string) (string, error) {
	if given != "" {
		return given, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	return filepath.Join(filepath.Dir(self), agentName), nil
}

// installAgent copies the agent into a directory of its own, which every sidecar gets to see, and nothing else of this host with
// it. The file is replaced as a whole: running sidecars keep the one they have started from.
func installAgent(program, dir string) error {
	content, err := os.ReadFile(program)
	if err != nil {
		return fmt.Errorf("--agent-path: %w", err)
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	path := filepath.Join(dir, agentName)
	if present, err := os.ReadFile(path); err == nil && bytes.Equal(present, content) {
		return nil
	}
	next, err := os.CreateTemp(dir, "."+agentName+"-*")
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	defer os.Remove(next.Name())
	_, err = next.Write(content)
	if closeErr := next.Close(); err == nil {
		err = closeErr
	}
	if err == nil {
		err = os.Chmod(next.Name(), 0o755)
	}
	if err == nil {
		err = os.Rename(next.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("install the agent: %w", err)
	}
	return nil
}
