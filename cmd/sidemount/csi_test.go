package main

import (
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// csiNodeFlags returns the options that a command line gives.
func csiNodeFlags(t *testing.T, args ...string) *csiNodeOptions {
	t.Helper()
	o := &csiNodeOptions{}
	flags := pflag.NewFlagSet("node", pflag.ContinueOnError)
	o.addTo(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

func TestCSINodeFindsItsPlaceAtTheKubelet(t *testing.T) {
	o := csiNodeFlags(t, "--namespace=storage", "--kubelet-dir=/data/kubelet", "--driver-name=csi.juicefs.com", "--node-name=n1", "--agent-path=/a")
	if err := o.complete(); err != nil {
		t.Fatal(err)
	}
	for got, want := range map[string]string{
		o.endpoint:        "/data/kubelet/plugins/csi.juicefs.com/csi.sock",
		o.registeredPath:  "/data/kubelet/plugins/csi.juicefs.com/csi.sock",
		o.registrationDir: "/data/kubelet/plugins_registry",
	} {
		if got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	o = csiNodeFlags(t, "--namespace=storage", "--endpoint=unix:///csi/csi.sock", "--node-name=n1", "--agent-path=/a")
	if err := o.complete(); err != nil || o.registeredPath != "/csi/csi.sock" {
		t.Errorf("got %s, %v", o.registeredPath, err)
	}
}

func TestCSINodeNamesTheWrongFlag(t *testing.T) {
	for flag, args := range map[string][]string{
		"--namespace":   nil,
		"--kubelet-dir": {"--namespace=s", "--kubelet-dir=kubelet"},
		"--state-dir":   {"--namespace=s", "--state-dir=state"},
		"--endpoint":    {"--namespace=s", "--endpoint=tcp://1.2.3.4:5"},
	} {
		if err := csiNodeFlags(t, args...).complete(); err == nil || !strings.Contains(err.Error(), flag) {
			t.Errorf("%s: got %v", flag, err)
		}
	}
}

func TestTwoDriversShareNoState(t *testing.T) {
	dir := t.TempDir()
	unlock, err := lockState(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := lockState(dir); err == nil || !strings.Contains(err.Error(), "another driver") {
		t.Errorf("got %v", err)
	}
	unlock()
	unlock, err = lockState(dir)
	if err != nil {
		t.Fatalf("after the first has ended: %v", err)
	}
	unlock()
}

func TestCSIControllerNeedsItsWorker(t *testing.T) {
	cmd := newCSIControllerCommand()
	cmd.SetArgs(nil)
	cmd.SilenceErrors, cmd.SilenceUsage = true, true
	if err := cmd.Execute(); err == nil || !strings.Contains(err.Error(), "--worker-socket") {
		t.Errorf("got %v", err)
	}
}
