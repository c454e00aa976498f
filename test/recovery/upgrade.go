package main

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"strings"
)

// images are two names for what a passthrough client runs in. The client itself is the agent's, so any image does.
var images = []string{"localhost/pause:1", "registry.k8s.io/pause:3.10"}

// upgradeClient has a user ask for another client. A passthrough client gets another image each time, a JuiceFS client the same one once more.
func upgradeClient(ctx context.Context, t *trial, s *subject) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	args := []string{"client", "upgrade", s.name, "-n", t.namespace, "--kubeconfig", t.lab.Kubeconfig}
	if s.kind == "passthrough" {
		args = append(args, "--image", images[s.upgrades%len(images)])
	}
	s.upgrades++
	cmd := exec.CommandContext(ctx, t.lab.Binary("sidemount"), args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%w: %s", err, strings.TrimSpace(errs.String()))
	}
	if !strings.Contains(out.String(), "the client was") {
		return fmt.Errorf("the command says %q", out.String())
	}
	return nil
}

// handedOver waits until only the next client is left.
func (t *trial) handedOver(ctx context.Context, s *subject, mark int, k *kill) error {
	if err := t.until(ctx, "the end of the sidecar before of pod "+s.name, func() (bool, error) {
		now, err := s.client()
		return err == nil && now != k.client, nil
	}); err != nil {
		return err
	}
	// If the node's process was away in the middle of it, nobody has measured the pause.
	k.Pause = t.log.find(mark, func(r record) bool { return r["session"] == s.session() && r["reason"] == "ClientUpgraded" }).pause()
	return nil
}
