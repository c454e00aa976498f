package broker_test

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"
)

// stepPath makes this program an application that does one step with an open file for every line that it reads.
const stepPath = "SIDEMOUNT_TEST_STEP"

// stepper is such an application. It is a process of its own for the reason that a load is one.
type stepper struct {
	cmd     *exec.Cmd
	orders  io.WriteCloser
	answers chan string
}

func startStepper(path string) *stepper {
	GinkgoHelper()
	s := &stepper{cmd: exec.Command("/proc/self/exe"), answers: make(chan string, 1)}
	s.cmd.Env = append(os.Environ(), stepPath+"="+path, "GORACE=atexit_sleep_ms=0")
	s.cmd.Stderr = GinkgoWriter
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	var err error
	s.orders, err = s.cmd.StdinPipe()
	Expect(err).NotTo(HaveOccurred())
	out, err := s.cmd.StdoutPipe()
	Expect(err).NotTo(HaveOccurred())
	Expect(s.cmd.Start()).To(Succeed())
	go func() {
		defer close(s.answers)
		for scanner := bufio.NewScanner(out); scanner.Scan(); {
			s.answers <- scanner.Text()
		}
	}()
	DeferCleanup(func() {
		s.cmd.Process.Kill()
		Eventually(s.answers).WithTimeout(10 * time.Second).Should(BeClosed())
		s.cmd.Wait()
	})
	Eventually(s.answers).WithTimeout(10 * time.Second).Should(Receive(Equal("ready")))
	return s
}

// step has the application do one step and fails the spec if that is wrong or takes long.
func (s *stepper) step(name string) {
	GinkgoHelper()
	_, err := fmt.Fprintln(s.orders, name)
	Expect(err).NotTo(HaveOccurred())
	Eventually(s.answers).WithTimeout(3*time.Second).Should(Receive(Equal("ok")), name)
}

// runSteps is the application.
func runSteps(path string) {
	w, err := newStepWork(path)
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("ready")
	for scanner := bufio.NewScanner(os.Stdin); scanner.Scan(); {
		if err := w.do(scanner.Text()); err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Println("ok")
	}
}

// stepWork knows what its file must hold.
type stepWork struct {
	f, end *os.File
	mapped []byte
	rounds uint64
	want   []byte
}

const stepSize = 64 << 10

func newStepWork(path string) (*stepWork, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return nil, err
	}
	if err := f.Truncate(stepSize); err != nil {
		return nil, err
	}
	end, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	mapped, err := unix.Mmap(int(f.Fd()), 0, stepSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return &stepWork{f: f, end: end, mapped: mapped, want: make([]byte, stepSize)}, err
}

func (w *stepWork) do(name string) error {
	w.rounds++
	block := bytes.Repeat(binary.LittleEndian.AppendUint64(nil, w.rounds*0x9e3779b97f4a7c15), 512)
	at := int64(w.rounds%8) * int64(len(block))
	switch name {
	case "write":
		copy(w.want[at:], block)
		_, err := w.f.WriteAt(block, at)
		return err
	case "map":
		copy(w.want[at:], block)
		copy(w.mapped[at:], block)
		return nil
	case "append":
		w.want = append(w.want, block...)
		_, err := w.end.Write(block)
		return err
	case "read":
		got := make([]byte, len(w.want)+1)
		n, err := w.f.ReadAt(got, 0)
		if !errors.Is(err, io.EOF) {
			return fmt.Errorf("the file does not end: %w", err)
		}
		return same("read", got[:n], w.want)
	case "see":
		return same("mapped", w.mapped, w.want[:stepSize])
	case "size":
		info, err := os.Stat(w.f.Name())
		if err == nil && info.Size() != int64(len(w.want)) {
			err = fmt.Errorf("the size is %d, want %d", info.Size(), len(w.want))
		}
		return err
	case "truncate":
		w.want = append(w.want[:stepSize/2], make([]byte, stepSize/2)...)
		return errors.Join(w.f.Truncate(stepSize/2), w.f.Truncate(stepSize))
	case "sync":
		return w.f.Sync()
	case "close":
		return errors.Join(unix.Munmap(w.mapped), w.f.Close(), w.end.Close())
	}
	return fmt.Errorf("no step %q", name)
}

func same(what string, got, want []byte) error {
	if len(got) != len(want) {
		return fmt.Errorf("%s: %d bytes, want %d", what, len(got), len(want))
	}
	for i := range got {
		if got[i] != want[i] {
			return fmt.Errorf("%s: byte %d is %x, want %x", what, i, got[i], want[i])
		}
	}
	return nil
}
