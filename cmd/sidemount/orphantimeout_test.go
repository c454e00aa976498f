package main

import (
	"testing"
	"time"

	"github.com/spf13/pflag"
)

func TestOrphanTimeout(t *testing.T) {
	for text, want := range map[string]time.Duration{"": time.Hour, "0": 0, "5m": 5 * time.Minute} {
		var args []string
		if text != "" {
			args = []string{"--orphan-timeout=" + text}
		}
		if got := parsed(t, args...).orphanTimeout; got != want {
			t.Errorf("node, %q: got %s, want %s", text, got, want)
		}
		o := &csiNodeOptions{}
		flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
		o.addTo(flags)
		if err := flags.Parse(args); err != nil || o.orphanTimeout != want {
			t.Errorf("csi, %q: got %s, %v, want %s", text, o.orphanTimeout, err, want)
		}
	}
	if checkOrphanTimeout(0) != nil || checkOrphanTimeout(time.Minute) != nil || checkOrphanTimeout(-1) == nil {
		t.Error("0 and any duration are allowed, and nothing below")
	}
}
