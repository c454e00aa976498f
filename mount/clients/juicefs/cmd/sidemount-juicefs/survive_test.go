package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
)

// engines are the kinds of volume that every promise is kept on.
var engines = []TableEntry{
	Entry("on SQLite", func() mount.Volume { return sqliteVolume() }, SpecTimeout(5*time.Minute)),
	Entry("on Redis", func() mount.Volume { return redisVolume() }, SpecTimeout(5*time.Minute)),
	Entry("on PostgreSQL", func() mount.Volume { return postgresVolume() }, SpecTimeout(5*time.Minute)),
	Entry("on MySQL", func() mount.Volume { return mysqlVolume() }, SpecTimeout(5*time.Minute)),
	Entry("on SQLite with trash, in a subdirectory", func() mount.Volume {
		v := sqliteVolume("subdir=some/where")
		v.Secret["trash-days"] = "1"
		return v
	}, SpecTimeout(5*time.Minute)),
}

var _ = Describe("an application whose client is killed", func() {
	DescribeTable("loses no write and sees no error", func(ctx SpecContext, v func() mount.Volume) {
		s := newStand(ctx, v())
		expectNoPrivilege(s)
		load, stop := context.WithCancel(ctx)
		var workers sync.WaitGroup
		jobs := []*job{{name: "blocks", run: s.writeBlocks}, {name: "append", run: s.appendLines}, {name: "names", run: s.useNames}}
		for _, j := range jobs {
			workers.Go(func() { j.err = j.loop(load) })
		}
		for range 8 {
			wait(ctx, 300*time.Millisecond)
			s.killClient(ctx)
		}
		wait(ctx, 300*time.Millisecond)
		stop()
		workers.Wait()
		for _, j := range jobs {
			Expect(j.err).NotTo(HaveOccurred(), j.name)
			Expect(j.rounds).To(BeNumerically(">", 10), j.name)
			AddReportEntry(j.name, fmt.Sprintf("%d rounds, longest %s", j.rounds, j.longest))
		}
		AddReportEntry("pauses", fmt.Sprint(s.pauses()))
	}, engines)

	DescribeTable("keeps a file that was unlinked while open", func(ctx SpecContext, v func() mount.Volume) {
		s := newStand(ctx, v())
		f, err := os.Create(s.path("gone"))
		Expect(err).NotTo(HaveOccurred())
		defer f.Close()
		other, err := os.Create(s.path("later"))
		Expect(err).NotTo(HaveOccurred())
		defer other.Close()
		Expect(os.Remove(f.Name())).To(Succeed())
		_, err = f.WriteString("still here")
		Expect(err).NotTo(HaveOccurred())
		s.killClient(ctx)
		Expect(contents(f)).To(Equal("still here"))
		_, err = f.WriteAt([]byte("STILL"), 0)
		Expect(err).NotTo(HaveOccurred())
		Expect(f.Sync()).To(Succeed())
		Expect(contents(f)).To(Equal("STILL here"))

		// The new client has to know of files that it did not open itself.
		_, err = other.WriteString("removed after the restart")
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Remove(other.Name())).To(Succeed())
		Expect(other.Sync()).To(Succeed())
		Expect(contents(other)).To(Equal("removed after the restart"))
	}, engines)

	DescribeTable("keeps its locks, and gives them up on close", func(ctx SpecContext, v func() mount.Volume) {
		s := newStand(ctx, v())
		open := func() *os.File {
			f, err := os.OpenFile(s.path("locked"), os.O_RDWR|os.O_CREATE, 0o644)
			Expect(err).NotTo(HaveOccurred())
			return f
		}
		holder, other := open(), open()
		defer other.Close()
		lock := func(f *os.File) error {
			return errors.Join(
				unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB),
				unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_WRLCK, Start: 10, Len: 10}))
		}
		Expect(lock(holder)).To(Succeed())
		for range 2 {
			Expect(unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB)).To(MatchError(unix.EWOULDBLOCK))
			Expect(unix.FcntlFlock(other.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: 15, Len: 1})).To(MatchError(unix.EAGAIN))
			s.killClient(ctx)
		}
		Expect(holder.Close()).To(Succeed())
		Eventually(ctx, func() error { return lock(other) }).WithTimeout(patience).WithPolling(10 * time.Millisecond).Should(Succeed())
	}, engines)

	DescribeTable("goes on reading a directory where it was", func(ctx SpecContext, v func() mount.Volume) {
		s := newStand(ctx, v())
		want := make([]string, 0, 2000)
		for i := range cap(want) {
			name := fmt.Sprintf("name-%04d", i)
			want = append(want, name)
			Expect(os.Mkdir(s.path(name), 0o755)).To(Succeed())
		}
		dir, err := os.Open(s.mnt)
		Expect(err).NotTo(HaveOccurred())
		defer dir.Close()
		var got []string
		for len(got) < len(want) {
			names, err := dir.Readdirnames(300)
			Expect(err).NotTo(HaveOccurred())
			got = append(got, names...)
			for _, name := range names[:10] { // names that were given out may go without disturbing the rest
				Expect(os.Remove(s.path(name))).To(Succeed())
			}
			if len(got)%600 == 0 {
				s.killClient(ctx)
			}
		}
		_, err = dir.Readdirnames(1)
		Expect(err).To(MatchError(io.EOF))
		slices.Sort(got)
		Expect(got).To(Equal(want))
	}, engines)

	It("loses nothing that it wrote through a shared mapping", func(ctx SpecContext) {
		s := newStand(ctx, sqliteVolume())
		const size = 1 << 20
		f, err := os.Create(s.path("mapped"))
		Expect(err).NotTo(HaveOccurred())
		Expect(f.Truncate(size)).To(Succeed())
		mem, err := unix.Mmap(int(f.Fd()), 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
		Expect(err).NotTo(HaveOccurred())
		Expect(f.Close()).To(Succeed())
		for round := range 4 {
			for i := 0; i < size; i += 64 {
				copy(mem[i:], fmt.Sprintf("round %d at %d", round, i))
			}
			if round%2 == 0 {
				Expect(unix.Msync(mem, unix.MS_SYNC)).To(Succeed())
			}
			s.killClient(ctx)
		}
		Expect(unix.Msync(mem, unix.MS_SYNC)).To(Succeed())
		want := string(mem)
		Expect(unix.Munmap(mem)).To(Succeed())
		s.killClient(ctx)
		text, err := os.ReadFile(s.path("mapped"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text) == want).To(BeTrue(), "the file differs from what was mapped")
	}, NodeTimeout(time.Minute))

	It("sees truncation and times in the order in which it set them", func(ctx SpecContext) {
		s := newStand(ctx, sqliteVolume())
		f, err := os.Create(s.path("ordered"))
		Expect(err).NotTo(HaveOccurred())
		defer f.Close()
		past := time.Date(2001, 2, 3, 4, 5, 6, 0, time.UTC)
		_, err = f.WriteString(strings.Repeat("x", 10000))
		Expect(err).NotTo(HaveOccurred())
		Expect(f.Truncate(100)).To(Succeed())
		_, err = f.WriteAt([]byte("tail"), 100)
		Expect(err).NotTo(HaveOccurred())
		Expect(os.Chtimes(f.Name(), past, past)).To(Succeed())
		s.killClient(ctx)
		info, err := os.Stat(f.Name())
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Size()).To(Equal(int64(104)))
		Expect(info.ModTime().Equal(past)).To(BeTrue(), "mtime is %s", info.ModTime())
		Expect(contents(f)).To(Equal(strings.Repeat("x", 100) + "tail"))
	}, NodeTimeout(time.Minute))

	It("writes more without a sync than its log holds", func(ctx SpecContext) {
		s := newStand(ctx, sqliteVolume())
		const pieces, size = 96, 512 << 10 // 96 MiB in two files, three times the log
		var files [2]*os.File
		for i := range files {
			f, err := os.Create(s.path(fmt.Sprint("big-", i)))
			Expect(err).NotTo(HaveOccurred())
			defer f.Close()
			files[i] = f
		}
		piece := func(file, n int) []byte { return bytes.Repeat([]byte{byte(file*100 + n), byte(n)}, size/2) }
		for n := range pieces {
			for i, f := range files {
				_, err := f.Write(piece(i, n))
				Expect(err).NotTo(HaveOccurred())
			}
			if n == pieces/3 || n == pieces-1 {
				s.killClient(ctx)
			}
		}
		got := make([]byte, size)
		for n := range pieces {
			for i, f := range files {
				_, err := f.ReadAt(got, int64(n)*size)
				Expect(err).NotTo(HaveOccurred())
				Expect(bytes.Equal(got, piece(i, n))).To(BeTrue(), "piece %d of file %d", n, i)
			}
		}
	}, NodeTimeout(2*time.Minute))

	It("is replaced in order without losing locks or open files", func(ctx SpecContext) {
		s := newStand(ctx, sqliteVolume())
		open := func() *os.File {
			f, err := os.OpenFile(s.path("file"), os.O_RDWR|os.O_CREATE, 0o644)
			Expect(err).NotTo(HaveOccurred())
			return f
		}
		holder, other := open(), open()
		defer holder.Close()
		defer other.Close()
		Expect(unix.Flock(int(holder.Fd()), unix.LOCK_EX|unix.LOCK_NB)).To(Succeed())
		_, err := holder.WriteString("before")
		Expect(err).NotTo(HaveOccurred())
		s.endClient(ctx, unix.SIGTERM)
		Expect(contents(holder)).To(Equal("before"))
		Expect(unix.Flock(int(other.Fd()), unix.LOCK_EX|unix.LOCK_NB)).To(MatchError(unix.EWOULDBLOCK))
	}, NodeTimeout(time.Minute))

	It("shows what it wrote to other pods before it syncs", func(ctx SpecContext) {
		v := sqliteVolume()
		a, b := newStand(ctx, v), newStand(ctx, v)
		f, err := os.Create(a.path("file"))
		Expect(err).NotTo(HaveOccurred())
		defer f.Close()
		_, err = f.WriteString("still open")
		Expect(err).NotTo(HaveOccurred())
		Eventually(ctx, func() (string, error) {
			text, err := os.ReadFile(b.path("file"))
			return string(text), err
		}).WithTimeout(30 * time.Second).WithPolling(100 * time.Millisecond).Should(Equal("still open"))
	}, NodeTimeout(time.Minute))

	It("finds everything again when the agent is killed too", func(ctx SpecContext) {
		s := newStand(ctx, sqliteVolume())
		// The next agent must wait already: starting a process closes files in it, which on this mount needs a client.
		first, gone := s.agent, s.exited
		s.startAgent()
		f, err := os.Create(s.path("file"))
		Expect(err).NotTo(HaveOccurred())
		defer f.Close()
		_, err = f.WriteString("written before")
		Expect(err).NotTo(HaveOccurred())
		Expect(first.Process.Kill()).To(Succeed())
		Eventually(gone, patience).Should(BeClosed())
		Expect(contents(f)).To(Equal("written before"))
		s.awaitReady(ctx)
	}, NodeTimeout(time.Minute))
})

// wait lets the load run for a while.
func wait(ctx context.Context, d time.Duration) {
	select {
	case <-time.After(d):
	case <-ctx.Done():
	}
}

// contents reads a whole file through its handle.
func contents(f *os.File) string {
	GinkgoHelper()
	text, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<30))
	Expect(err).NotTo(HaveOccurred())
	return string(text)
}

// expectNoPrivilege checks that the client could not have mounted anything.
func expectNoPrivilege(s *stand) {
	GinkgoHelper()
	pid, err := s.client()
	Expect(err).NotTo(HaveOccurred())
	status, err := os.ReadFile(filepath.Join("/proc", fmt.Sprint(pid), "status"))
	Expect(err).NotTo(HaveOccurred())
	for _, line := range []string{"Uid:\t65534\t65534\t65534\t65534", "CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1"} {
		Expect(string(status)).To(ContainSubstring(line))
	}
}

// job is a verifying load.
type job struct {
	name    string
	run     func(round int) error
	rounds  int
	longest time.Duration
	err     error
}

func (j *job) loop(ctx context.Context) error {
	for ; ctx.Err() == nil; j.rounds++ {
		begin := time.Now()
		if err := j.run(j.rounds); err != nil {
			return fmt.Errorf("round %d: %w", j.rounds, err)
		}
		j.longest = max(j.longest, time.Since(begin))
	}
	return nil
}
