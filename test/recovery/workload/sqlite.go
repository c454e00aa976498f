package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// rows is how many rows the table keeps; older ones are removed.
const rows = 1500

// body is what a row must hold, in SQL, so that a reader can check every row by itself. It takes rowBytes.
const (
	body     = `replace(hex(zeroblob(64)), '00', printf('%08x', (id * 2654435761) & 4294967295))`
	rowBytes = 512
)

// sqlite runs transactions in one process and looks at the database from another one. In WAL mode the two share memory through a
// mapped file on the volume, and a commit is not synced: a lost write is a lost row or a malformed database.
func sqlite(ctx context.Context, s *scene) {
	if err := s.transact(ctx); err != nil {
		s.fail(err)
	}
}

func (s *scene) transact(ctx context.Context) error {
	path := filepath.Join(s.dir, "db")
	writer, err := s.openShell(path)
	if err != nil {
		return err
	}
	mode, err := writer.ask("open", "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL, body TEXT NOT NULL);")
	if err != nil {
		return errors.Join(err, writer.close())
	}
	if mode != "wal" {
		s.note("SQLite runs in journal mode %q: it could not share memory through the mount", mode)
	}
	reader, err := s.openShell(path)
	if err != nil {
		return errors.Join(err, writer.close())
	}
	n := 0
	err = s.repeat(ctx, func() error {
		n++
		if err := writer.insert(n); err != nil || n%25 != 0 {
			return err
		}
		return reader.check(n)
	})
	if err == nil {
		err = reader.check(n)
	}
	if err := errors.Join(err, reader.close(), writer.close()); err != nil {
		return err
	}
	return s.keep(path)
}

// shell is a running sqlite3.
type shell struct {
	s     *scene
	cmd   *exec.Cmd
	in    io.WriteCloser
	lines *bufio.Scanner
	asked int
}

func (s *scene) openShell(path string) (*shell, error) {
	cmd := exec.CommandContext(context.Background(), "sqlite3", "-batch", "-noheader", path)
	cmd.Env = append(os.Environ(), "HOME="+s.scratch, "SQLITE_TMPDIR="+s.scratch)
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	// One pipe for answers and errors keeps them in order.
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = cmd.Stdout
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start sqlite3: %w", err)
	}
	h := &shell{s: s, cmd: cmd, in: in, lines: bufio.NewScanner(out)}
	_, err = h.ask("open", ".timeout 60000\n")
	return h, err
}

// ask runs statements and returns the lines that they print.
func (h *shell) ask(class, statements string) (string, error) {
	h.asked++
	mark := fmt.Sprintf("--- %d", h.asked)
	var answer []string
	err := h.s.do("sqlite "+class, func() error {
		// Without an answer the shell is ended, and the loop below with it.
		late := time.AfterFunc(commandPatience, func() { _ = h.cmd.Process.Kill() })
		defer late.Stop()
		if _, err := fmt.Fprintf(h.in, "%s\nSELECT '%s';\n", statements, mark); err != nil {
			return err
		}
		for h.lines.Scan() {
			if h.lines.Text() == mark {
				return nil
			}
			answer = append(answer, h.lines.Text())
		}
		return fmt.Errorf("sqlite3 has ended: %w", errors.Join(h.lines.Err(), io.ErrUnexpectedEOF))
	})
	text := strings.Join(answer, " ")
	if err == nil && strings.Contains(text, "rror") {
		err = errors.New(text)
	}
	if err != nil {
		return text, fmt.Errorf("sqlite %s: %w", class, err)
	}
	return text, nil
}

// insert is one transaction.
func (h *shell) insert(n int) error {
	_, err := h.ask("commit", fmt.Sprintf(
		"BEGIN IMMEDIATE; INSERT INTO t SELECT id, 0, %s FROM (SELECT %d AS id); UPDATE t SET n = n + 1 WHERE id = %d; DELETE FROM t WHERE id <= %d; COMMIT;",
		body, n, n-n%7, n-rows))
	return err
}

// check looks at the database as it must be after n transactions.
func (h *shell) check(n int) error {
	sound, err := h.ask("integrity_check", "PRAGMA integrity_check;")
	if err != nil {
		return err
	}
	if sound != "ok" {
		return &damage{"sqlite integrity_check: " + tail(sound), rowBytes}
	}
	got, err := h.ask("select", fmt.Sprintf("SELECT count(*), max(id), sum(n), sum(body <> %s) FROM t;", body))
	if err != nil {
		return err
	}
	if want := expect(n); got != want {
		return &damage{fmt.Sprintf("sqlite: after %d transactions rows, last, updates and wrong rows are %s, want %s", n, got, want), rowBytes}
	}
	return nil
}

// expect is what check must find: of each seven rows, the first is updated by itself and the six after it.
func expect(n int) string {
	first := max(1, n-rows+1)
	updates := 0
	for id := first; id <= n; id++ {
		if id%7 == 0 {
			updates += min(7, n-id+1)
		}
	}
	return fmt.Sprintf("%d|%d|%d|0", n-first+1, n, updates)
}

// close has the shell end by itself, which checkpoints the log.
func (h *shell) close() error {
	late := time.AfterFunc(commandPatience, func() { _ = h.cmd.Process.Kill() })
	defer late.Stop()
	h.in.Close()
	for h.lines.Scan() {
	}
	if err := h.cmd.Wait(); err != nil {
		return fmt.Errorf("sqlite3: %w", err)
	}
	return nil
}
