package machine

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"runtime"
	"syscall"
)

// Detach reads a Spec from r, starts it in a session of its own and prints its pid, as seen inside, to w. Its exit hands
// the process to the machine's pid 1.
func Detach(r io.Reader, w io.Writer) error {
	var s Spec
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	// The namespaces of a node are those of this thread until the process is started from it.
	runtime.LockOSThread()
	if s.Node != nil {
		if err := s.Node.apply(); err != nil {
			return err
		}
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	log, err := os.OpenFile(s.Log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if s.Dir == "" {
		s.Dir = "/"
	}
	p, err := os.StartProcess(s.Argv[0], s.Argv, &os.ProcAttr{
		Dir:   s.Dir,
		Env:   s.Env,
		Files: []*os.File{null, log, log},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	if err != nil {
		return err
	}
	fmt.Fprintln(w, p.Pid)
	return p.Release()
}
