package broker_test

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

// posixDir makes this program run go-fuse's table of POSIX cases in a directory.
const posixDir = "SIDEMOUNT_TEST_POSIX"

// notPosix are cases that are not run, with the reason.
var notPosix = map[string]string{
	"FcntlFlockLocksFile": "the case wants a process's lock to conflict with the same process's, which POSIX forbids (fcntl(2))",
}

// TestPosixTable is the process that runs the table for a spec.
func TestPosixTable(t *testing.T) {
	dir := os.Getenv(posixDir)
	if dir == "" {
		t.Skip("skipped: run by the specs of sessions")
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

// passPosix runs the table in a new directory of a mount.
func passPosix(mount, name string) {
	GinkgoHelper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	dir := filepath.Join(mount, name)
	Expect(os.Mkdir(dir, 0o777)).To(Succeed())
	cmd := exec.CommandContext(ctx, "/proc/self/exe", "-test.run=^TestPosixTable$", "-test.v")
	cmd.Env = append(os.Environ(), posixDir+"="+dir, "GORACE=atexit_sleep_ms=0")
	cmd.WaitDelay = time.Second
	out, err := cmd.CombinedOutput()
	GinkgoWriter.Write(out)
	Expect(err).NotTo(HaveOccurred(), "the table fails %s", name)
	Expect(string(out)).To(ContainSubstring("--- PASS: TestPosixTable/FileBasic"))
}

var _ = Describe("POSIX", func() {
	It("is kept by a passthrough volume, by the next client too, and while clients are killed", func() {
		n := newNode()
		target, s := n.open("posix")
		passPosix(target, "before")
		n.killClient("posix", s)
		passPosix(target, "after")
		var done atomic.Bool
		passed := make(chan struct{})
		go func() {
			defer GinkgoRecover()
			defer close(passed)
			defer done.Store(true)
			passPosix(target, "meanwhile")
		}()
		kills := 0
		for !done.Load() {
			n.killClient("posix", s)
			kills++
		}
		Eventually(passed).Should(BeClosed())
		AddReportEntry("kills", itoa(kills))
		Expect(kills).To(BeNumerically(">", 3))
	})
})
