package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// locks holds a lock of each kind for seconds, over kills, while another process tries to take it and must not get it; and then gives
// it up, and the other process must get it.
type locks struct {
	base
	file  *file
	other *contender
	held  string
	until time.Time
}

// longestHeld is how long a lock is held; some kills fall into it.
const longestHeld = 4 * time.Second

// lockCalls are the kinds of locks: of a process, of an open file, and flock. Each takes (F_WRLCK) or gives up (F_UNLCK) without waiting.
var lockCalls = map[string]func(fd int, kind int16) error{
	"posix": func(fd int, kind int16) error { return rangeLock(fd, unix.F_SETLK, kind) },
	"ofd":   func(fd int, kind int16) error { return rangeLock(fd, unix.F_OFD_SETLK, kind) },
	"flock": func(fd int, kind int16) error {
		if kind == unix.F_UNLCK {
			return unix.Flock(fd, unix.LOCK_UN)
		}
		return unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB)
	},
}

func rangeLock(fd, command int, kind int16) error {
	return unix.FcntlFlock(uintptr(fd), command, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: 10, Len: 100})
}

func (w *locks) start() (err error) {
	if w.file, err = w.open(w.path("locked"), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL); err != nil {
		return err
	}
	w.other, err = startContender(w.path("locked"))
	return err
}

func (w *locks) round() error {
	switch {
	case w.held == "":
		return w.take([]string{"posix", "ofd", "flock"}[w.rand.IntN(3)])
	case time.Now().After(w.until):
		return w.give()
	}
	return w.expect("busy")
}

func (w *locks) take(kind string) error {
	if err := w.do("lock "+kind, func() error { return lockCalls[kind](w.file.fd, unix.F_WRLCK) }); err != nil {
		return fmt.Errorf("take the %s lock that nobody has: %w", kind, err)
	}
	w.held, w.until = kind, time.Now().Add(time.Duration(w.rand.Int64N(int64(longestHeld))))
	return nil
}

func (w *locks) give() error {
	if err := w.do("unlock "+w.held, func() error { return lockCalls[w.held](w.file.fd, unix.F_UNLCK) }); err != nil {
		return fmt.Errorf("give up the %s lock: %w", w.held, err)
	}
	err := w.expect("free")
	w.held = ""
	return err
}

// expect has the other process try.
func (w *locks) expect(want string) error {
	var got string
	err := w.do("contend "+w.held, func() (err error) {
		got, err = w.other.try(w.held)
		return err
	})
	if err == nil && got != want {
		err = fmt.Errorf("the %s lock is %s to another process, want %s", w.held, got, want)
	}
	return err
}

func (w *locks) finish() error {
	return errors.Join(w.file.close(), w.other.end())
}

// contender is the process that tries.
type contender struct {
	cmd     *exec.Cmd
	in      io.WriteCloser
	answers *bufio.Scanner
}

// contenderKind is the first argument of that process.
const contenderKind = "contend"

func startContender(name string) (*contender, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(context.Background(), self, contenderKind, name)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the contender: %w", err)
	}
	return &contender{cmd, in, bufio.NewScanner(out)}, nil
}

func (c *contender) try(kind string) (string, error) {
	if _, err := fmt.Fprintln(c.in, kind); err != nil {
		return "", fmt.Errorf("ask the contender: %w", err)
	}
	if !c.answers.Scan() {
		return "", fmt.Errorf("the contender does not answer: %w", c.answers.Err())
	}
	return c.answers.Text(), nil
}

func (c *contender) end() error {
	c.in.Close()
	return c.cmd.Wait()
}

// contend is the other process: for each kind of lock that it reads, it says whether it got it.
func contend(name string) int {
	fd, err := unix.Open(name, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, "contend:", err)
		return 1
	}
	defer unix.Close(fd)
	asked := bufio.NewScanner(os.Stdin)
	for asked.Scan() {
		call := lockCalls[strings.TrimSpace(asked.Text())]
		if call == nil {
			fmt.Println("unknown")
			continue
		}
		switch err := call(fd, unix.F_WRLCK); {
		case err == nil:
			fmt.Println(answer("free", call(fd, unix.F_UNLCK)))
		case errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES):
			fmt.Println("busy")
		default:
			fmt.Println(answer("", err))
		}
	}
	return 0
}

func answer(good string, err error) string {
	if err != nil {
		return "error: " + err.Error()
	}
	return good
}
