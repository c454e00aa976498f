package broker_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// replaceDir makes this program an application that replaces a file in a directory again and again, and opens it meanwhile, until its standard input ends.
const replaceDir = "SIDEMOUNT_TEST_REPLACE"

// TestReplacedFiles is the process of that application.
func TestReplacedFiles(t *testing.T) {
	dir := os.Getenv(replaceDir)
	if dir == "" {
		t.Skip("skipped: run by the specs of sessions")
	}
	var stop atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		stop.Store(true)
	}()
	var opened atomic.Int64
	var all sync.WaitGroup
	path := filepath.Join(dir, "file")
	run := func(step func(n int) error) {
		all.Go(func() {
			for n := 0; !stop.Load() && !t.Failed(); n++ {
				if err := step(n); err != nil {
					t.Error(err)
				}
			}
		})
	}
	run(func(n int) error { return replaceFile(path, n) })
	for range 6 {
		var held []*os.File
		run(func(n int) error {
			f, err := os.Open(path)
			if errors.Is(err, os.ErrNotExist) {
				return nil
			}
			if err != nil {
				return err
			}
			opened.Add(1)
			held = append(held, f)
			if len(held) < 8 {
				return lookAt(f)
			}
			oldest := held[0]
			held = held[1:]
			return errors.Join(lookAt(f), lookAt(oldest), oldest.Close())
		})
	}
	all.Wait()
	fmt.Println("opened", opened.Load())
	if opened.Load() < 100 {
		t.Error("that is too few to say anything")
	}
}

// Every other time the file is large enough for the kernel to read it by itself.
var replacedSizes = []int{2, 96 << 10}

func replaceFile(path string, n int) error {
	temporary := path + ".new"
	if err := os.WriteFile(temporary, bytes.Repeat([]byte{byte(n)}, replacedSizes[n%len(replacedSizes)]), 0o600); err != nil {
		return err
	}
	if n%4 == 0 {
		if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	if n%5 == 0 {
		// The name goes, and comes back as another's.
		if err := os.Rename(temporary, path+".other"); err != nil {
			return err
		}
		temporary = path + ".other"
	}
	return os.Rename(temporary, path)
}

// lookAt finds an open file whole, whatever has become of its name.
func lookAt(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !slices.Contains(replacedSizes, int(info.Size())) {
		return fmt.Errorf("an open file has %d bytes", info.Size())
	}
	ends := make([]byte, 2)
	for i, at := range []int64{0, info.Size() - 1} {
		if _, err := f.ReadAt(ends[i:i+1], at); err != nil {
			return err
		}
	}
	if ends[0] != ends[1] {
		return fmt.Errorf("an open file is that of two: %x", ends)
	}
	return nil
}

var _ = Describe("An open file", func() {
	It("stays the same while its name is replaced and clients are killed", func() {
		const kills = 200
		n := newNode()
		target, s := n.open("replace")
		cmd := exec.Command("/proc/self/exe", "-test.run=^TestReplacedFiles$", "-test.v")
		cmd.Env = append(os.Environ(), replaceDir+"="+target, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr, cmd.WaitDelay = &out, &out, time.Second
		stop, err := cmd.StdinPipe()
		Expect(err).NotTo(HaveOccurred())
		Expect(cmd.Start()).To(Succeed())
		ended := make(chan error, 1)
		go func() { ended <- cmd.Wait() }()
		DeferCleanup(func() { _ = cmd.Process.Kill() })
		for range kills {
			n.killClient("replace", s)
		}
		Expect(stop.Close()).To(Succeed())
		var end error
		Eventually(ended).WithTimeout(20 * time.Second).Should(Receive(&end))
		GinkgoWriter.Write(out.Bytes())
		Expect(end).NotTo(HaveOccurred(), "%s", &out)
		// What was kept for those who had it open goes, also where the kernel told a client that was killed.
		Eventually(func() ([]string, error) {
			return filepath.Glob(filepath.Join(n.data, ".sidemount-unlinked", "*", "*"))
		}).WithTimeout(20 * time.Second).Should(BeEmpty())
	})
})
