package main

import (
	"path/filepath"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/sidecar/agent"
)

// engineless is a file system that can tell its figures, and nothing that its engine would have to know.
type engineless struct {
	fuse.RawFileSystem
	answer fuse.Status
}

func (e engineless) StatFs(<-chan struct{}, *fuse.InHeader, *fuse.StatfsOut) fuse.Status {
	return fuse.OK
}

func (e engineless) Lookup(<-chan struct{}, *fuse.InHeader, string, *fuse.EntryOut) fuse.Status {
	return e.answer
}

func TestProbeAsksForWhatOnlyTheEngineKnows(t *testing.T) {
	if unix.Access("/dev/fuse", unix.R_OK|unix.W_OK) != nil || unix.Geteuid() != 0 {
		t.Skip("skipped: needs root and /dev/fuse")
	}
	for name, one := range map[string]struct {
		answer fuse.Status
		want   int
	}{
		"a name that is not there": {fuse.ENOENT, exitOK},
		"an engine that is away":   {fuse.EIO, int(unix.EIO)},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			server, err := fuse.NewServer(engineless{fuse.NewDefaultRawFileSystem(), one.answer}, dir, &fuse.MountOptions{DirectMountStrict: true})
			if err != nil {
				t.Fatal(err)
			}
			go server.Serve()
			t.Cleanup(func() {
				for deadline := time.Now().Add(10 * time.Second); ; {
					if err := server.Unmount(); err == nil || time.Now().After(deadline) {
						return
					}
				}
			})
			if err := server.WaitMount(); err != nil {
				t.Fatal(err)
			}
			if got := onPath([]string{dir}, agent.Probe); got != one.want {
				t.Errorf("exit code %d, want %d", got, one.want)
			}
			if got := onPath([]string{dir}, printUsage); got != exitOK {
				t.Errorf("figures: exit code %d", got)
			}
		})
	}
}

func TestProbeOfNoDirectoryFails(t *testing.T) {
	if got := onPath([]string{filepath.Join(t.TempDir(), "gone")}, agent.Probe); got != int(unix.ENOENT) {
		t.Errorf("exit code %d, want %d", got, unix.ENOENT)
	}
}
