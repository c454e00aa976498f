package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hanwen/go-fuse/v2/posixtest"
	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// posixEnv names the directory in which this program runs go-fuse's table of POSIX cases.
const posixEnv = "SIDEMOUNT_TEST_POSIX"

// notPosix are cases that are not run, with the reason.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "the case wants a process's lock to conflict with the same process's, which POSIX forbids (fcntl(2))",
}

// TestPosixTable is the process that runs the table for a spec.
func TestPosixTable(t *testing.T) {
	dir := os.Getenv(posixEnv)
	if dir == "" {
		t.Skip("skipped: run by a spec, on a volume")
	}
	for name, test := range posixtest.All {
		t.Run(name, func(t *testing.T) {
			if reason, ok := notPosix[name]; ok {
				t.Skip("skipped: ", reason)
			}
			work := filepath.Join(dir, name)
			if err := os.Mkdir(work, 0o755); err != nil {
				t.Fatal(err)
			}
			test(t, work)
		})
	}
}

// passPosix runs the table in a new directory of the volume.
func (s *stand) passPosix(ctx context.Context, name string) {
	GinkgoHelper()
	Expect(os.Mkdir(s.path(name), 0o777)).To(Succeed())
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestPosixTable$", "-test.v")
	cmd.Env = append(os.Environ(), posixEnv+"="+s.path(name), "GORACE=atexit_sleep_ms=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	GinkgoWriter.Write(out)
	Expect(err).NotTo(HaveOccurred(), "the table fails %s", name)
	Expect(string(out)).To(ContainSubstring("--- PASS: TestPosixTable/FileBasic"))
}

var _ = Describe("POSIX", func() {
	It("is kept by the volume, by the next client too, and while clients are killed", func(ctx SpecContext) {
		s := newStand(ctx, sqliteVolume("enable-xattr"))
		s.passPosix(ctx, "before")
		s.killClient(ctx)
		s.passPosix(ctx, "after")
		var done atomic.Bool
		passed := make(chan struct{})
		go func() {
			defer GinkgoRecover()
			defer close(passed)
			defer done.Store(true)
			s.passPosix(ctx, "meanwhile")
		}()
		kills := 0
		for ; kills < 8 && !done.Load(); kills++ { // more in a row would be slowed down by the agent
			wait(ctx, 200*time.Millisecond)
			s.killClient(ctx)
		}
		Eventually(passed).WithTimeout(2 * time.Minute).Should(BeClosed())
		AddReportEntry("kills", kills)
		Expect(kills).To(BeNumerically(">", 3))
	}, SpecTimeout(5*time.Minute))
})
