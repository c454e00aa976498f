package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"github.com/onsi/gomega/gbytes"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// bench is a worker without privilege, as it runs beside the CSI controller.
type bench struct {
	dir    string
	socket string
	cmd    *exec.Cmd
	exited chan struct{}
	output *gbytes.Buffer
	admin.Service
}

func newBench() *bench {
	GinkgoHelper()
	dir, err := os.MkdirTemp("", "bench-")
	Expect(err).NotTo(HaveOccurred())
	DeferCleanup(os.RemoveAll, dir)
	Expect(os.Chown(dir, nobody, nobody)).To(Succeed())
	b := &bench{dir: dir, socket: filepath.Join(dir, "admin.sock"), output: gbytes.NewBuffer()}
	b.Service = admin.NewClient(b.socket)
	b.start()
	DeferCleanup(b.stop)
	return b
}

func (b *bench) start(args ...string) {
	GinkgoHelper()
	b.cmd = exec.Command(program, append([]string{"worker", "--socket", b.socket}, args...)...)
	b.cmd.Dir = "/"
	b.cmd.Env = append(os.Environ(), roleEnv+"="+roleFormat)
	out := io.MultiWriter(GinkgoWriter, b.output)
	b.cmd.Stdout, b.cmd.Stderr = out, out
	b.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}, Pdeathsig: syscall.SIGKILL}
	Expect(b.cmd.Start()).To(Succeed())
	exited := make(chan struct{})
	cmd := b.cmd
	go func() {
		defer close(exited)
		_ = cmd.Wait()
	}()
	b.exited = exited
	Eventually(func() error {
		_, err := os.Stat(b.socket)
		return err
	}, patience, 5*time.Millisecond).Should(Succeed())
}

func (b *bench) stop() {
	GinkgoHelper()
	engines := b.hold()
	_ = b.cmd.Process.Signal(syscall.SIGTERM)
	Eventually(b.exited, patience).Should(BeClosed())
	awaitEnd(engines)
}

// hold keeps the engines that run identifiable after their end.
func (b *bench) hold() []*os.File {
	GinkgoHelper()
	var all []*os.File
	for _, pid := range b.engines() {
		fd, err := unix.PidfdOpen(pid, 0)
		if errors.Is(err, unix.ESRCH) {
			continue
		}
		Expect(err).NotTo(HaveOccurred())
		all = append(all, os.NewFile(uintptr(fd), "engine"))
	}
	return all
}

// awaitEnd waits until processes have ended. Whether somebody has reaped them is not ours to know.
func awaitEnd(engines []*os.File) {
	GinkgoHelper()
	for _, f := range engines {
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLIN}}, int(patience.Milliseconds()))
		Expect(err).NotTo(HaveOccurred())
		Expect(n).To(Equal(1), "an engine outlives its worker")
		_ = f.Close()
	}
}

// kill kills the worker as the out-of-memory killer would, and starts the next one.
func (b *bench) kill() {
	GinkgoHelper()
	engines := b.hold()
	Expect(b.cmd.Process.Kill()).To(Succeed())
	Eventually(b.exited, patience).Should(BeClosed())
	awaitEnd(engines) // they end with it
	Expect(os.Remove(b.socket)).To(Succeed())
	b.start()
}

// engines are the pids of the engines that run.
func (b *bench) engines() []int {
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", b.cmd.Process.Pid))
	var all []int
	for _, list := range lists {
		text, _ := os.ReadFile(list) // a thread may have gone
		for _, field := range strings.Fields(string(text)) {
			if pid, err := strconv.Atoi(field); err == nil {
				all = append(all, pid)
			}
		}
	}
	return all
}

// until repeats a command while it is told to come again.
func until(ctx context.Context, command func(context.Context) error) error {
	for {
		err := command(ctx)
		if ctx.Err() != nil || !errors.Is(err, admin.ErrBusy) && !errors.Is(err, mount.ErrUnavailable) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
		}
	}
}

var _ = Describe("the worker", func() {
	It("formats a file system for its first volume, and for nothing else", func(ctx SpecContext) {
		b, v := newBench(), sqliteVolume()
		_, err := b.Volume(ctx, admin.VolumeQuery{FileSystem: v, ID: "a"})
		Expect(err).To(MatchError(mount.ErrConfig))
		Expect(err).To(MatchError(ContainSubstring("holds no file system yet")))
		_, err = b.Capacity(ctx, admin.CapacityQuery{FileSystem: v})
		Expect(err).To(MatchError(mount.ErrConfig))
		made, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "a", CapacityBytes: 1 << 20})
		Expect(err).NotTo(HaveOccurred())
		Expect(b.Volume(ctx, admin.VolumeQuery{FileSystem: v, ID: "a"})).To(Equal(made))
		Expect(b.engines()).To(HaveLen(1))
	})

	It("says what is wrong with a Secret or an option", func(ctx SpecContext) {
		b, v := newBench(), sqliteVolume("subdirr=x")
		_, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "a"})
		Expect(err).To(MatchError(mount.ErrConfig))
		Expect(err).To(MatchError(ContainSubstring(`the nearest known one is "subdir"`)))
		v = sqliteVolume()
		v.Client = mount.Passthrough
		_, err = b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "a"})
		Expect(err).To(MatchError(mount.ErrConfig))
	})

	It("keeps a client within the quota", func(ctx SpecContext) {
		if os.Geteuid() != 0 {
			Skip("mounting needs root")
		}
		b, v := newBench(), sqliteVolume("heartbeat=1")
		_, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "pvc-1", CapacityBytes: 10 << 20})
		Expect(err).NotTo(HaveOccurred())
		mounted := v
		mounted.Options = append([]string{"subdir=pvc-1"}, v.Options...)
		s := newStand(ctx, mounted)
		var st unix.Statfs_t
		Expect(unix.Statfs(s.mnt, &st)).To(Succeed())
		Expect(int64(st.Blocks) * st.Bsize).To(BeNumerically("==", 10<<20))
		Expect(os.WriteFile(s.path("small"), make([]byte, 5<<20), 0o600)).To(Succeed())
		Eventually(func() error { return os.WriteFile(s.path("large"), make([]byte, 8<<20), 0o600) }, patience, 200*time.Millisecond).
			Should(MatchError(syscall.EDQUOT))
		Expect(os.Remove(s.path("large"))).To(Succeed())
		Eventually(func(g Gomega) {
			used, err := b.Volume(ctx, admin.VolumeQuery{FileSystem: v, ID: "pvc-1"})
			g.Expect(err).NotTo(HaveOccurred())
			g.Expect(used.UsedBytes).To(BeNumerically("==", 5<<20))
		}, patience, 200*time.Millisecond).Should(Succeed())
		_, err = b.ExpandVolume(ctx, admin.ExpandVolume{FileSystem: v, ID: "pvc-1", CapacityBytes: 20 << 20})
		Expect(err).NotTo(HaveOccurred())
		Eventually(func() error { return os.WriteFile(s.path("large"), make([]byte, 8<<20), 0o600) }, patience, 200*time.Millisecond).Should(Succeed())
	})

	It("removes a volume's objects too", func(ctx SpecContext) {
		if os.Geteuid() != 0 {
			Skip("mounting needs root")
		}
		b, v := newBench(), sqliteVolume()
		_, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "a"})
		Expect(err).NotTo(HaveOccurred())
		mounted := v
		mounted.Options = []string{"subdir=a"}
		s := newStand(ctx, mounted)
		Expect(os.WriteFile(s.path("data"), make([]byte, 9<<20), 0o600)).To(Succeed())
		objects := func() (n int) {
			_ = filepath.WalkDir(filepath.Join(v.Secret["bucket"], "testfs", "chunks"), func(_ string, d os.DirEntry, err error) error {
				if err == nil && d.Type().IsRegular() {
					n++
				}
				return nil
			})
			return n
		}
		Eventually(objects, patience, 50*time.Millisecond).Should(BeNumerically(">=", 3))
		_, err = b.CreateSnapshot(ctx, admin.CreateSnapshot{FileSystem: v, ID: "shot", SourceVolumeID: "a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(b.DeleteVolume(ctx, admin.DeleteVolume{FileSystem: v, ID: "a"})).To(Succeed())
		Consistently(objects, time.Second, 50*time.Millisecond).Should(BeNumerically(">=", 3), "the snapshot needs them")
		_, err = b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "b", Source: &admin.Source{SnapshotID: "shot"}})
		Expect(err).NotTo(HaveOccurred())
		copied := v
		copied.Options = []string{"subdir=b"}
		restored := newStand(ctx, copied)
		text, err := os.ReadFile(restored.path("data"))
		Expect(err).NotTo(HaveOccurred())
		Expect(text).To(Equal(make([]byte, 9<<20)))
		Expect(b.DeleteVolume(ctx, admin.DeleteVolume{FileSystem: v, ID: "b"})).To(Succeed())
		Expect(b.DeleteSnapshot(ctx, admin.DeleteSnapshot{FileSystem: v, ID: "shot"})).To(Succeed())
		Eventually(objects, patience, 50*time.Millisecond).Should(BeZero())
	})

	DescribeTable("goes on after any kill", func(ctx SpecContext, file func(...string) mount.Volume, engines bool) {
		b, v := newBench(), file()
		_, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "source", CapacityBytes: 1 << 30})
		Expect(err).NotTo(HaveOccurred())
		ctx2, cancel := context.WithTimeout(ctx, 2*patience)
		defer cancel()
		const chains, kills = 6, 8
		var wg sync.WaitGroup
		failures := make(chan error, chains)
		enough := make(chan struct{})
		for chain := range chains {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for round := 0; ; round++ {
					select {
					case <-enough:
						return
					default:
					}
					if err := lifeOfAVolume(ctx2, b, v, fmt.Sprintf("v%d-%d", chain, round)); err != nil {
						failures <- err
						return
					}
				}
			}()
		}
		for range kills {
			<-time.After(time.Duration(50+rand.IntN(400)) * time.Millisecond)
			if !engines {
				b.kill()
				continue
			}
			for _, pid := range b.engines() {
				Expect(syscall.Kill(pid, syscall.SIGKILL)).To(Or(Succeed(), MatchError(syscall.ESRCH)))
			}
		}
		close(enough)
		wg.Wait()
		close(failures)
		for err := range failures {
			Expect(err).NotTo(HaveOccurred())
		}
		list, err := b.Snapshots(ctx, admin.SnapshotsQuery{FileSystem: v})
		Expect(err).NotTo(HaveOccurred())
		Expect(list).To(BeEmpty())
		Expect(b.DeleteVolume(ctx, admin.DeleteVolume{FileSystem: v, ID: "source"})).To(Succeed())
		s := newStand(ctx, v)
		Eventually(func(g Gomega) {
			for dir, want := range map[string]int{"": 1, ".sidemount": 5, ".sidemount/volumes": 0, ".sidemount/snapshots": 0, ".sidemount/content": 0, ".sidemount/new": 0, ".sidemount/trash": 0} {
				names, err := os.ReadDir(s.path(dir))
				g.Expect(err).NotTo(HaveOccurred())
				g.Expect(names).To(HaveLen(want), "in %q: %v", dir, names)
			}
		}, patience, 100*time.Millisecond).Should(Succeed())
	},
		Entry("of the worker, with SQLite", sqliteVolume, false),
		Entry("of an engine, with SQLite", sqliteVolume, true),
		Entry("of the worker, with Redis", redisVolume, false),
		Entry("of an engine, with Redis", redisVolume, true),
	)

	It("says within ten seconds that a metadata engine is away, and goes on when it is back", func(ctx SpecContext) {
		address, redis := startRedisServer()
		b, v := newBench(), volume(volumeDir(), "redis://:"+enginePassword+"@"+address+"/1")
		_, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(redis.Signal(syscall.SIGSTOP)).To(Succeed())
		DeferCleanup(redis.Signal, syscall.SIGCONT)
		for range 2 { // the second time they find a new engine, which cannot connect
			began := time.Now()
			const callers = 5
			answers := make(chan error, callers)
			for range callers {
				go func() {
					_, err := b.Volume(ctx, admin.VolumeQuery{FileSystem: v, ID: "a"})
					answers <- err
				}()
			}
			for range callers {
				Eventually(answers, patience).Should(Receive(MatchError(mount.ErrUnavailable)))
			}
			// The machine may be busy; by itself JuiceFS would try for minutes.
			Expect(time.Since(began)).To(BeNumerically("<", 30*time.Second))
			Eventually(b.engines, patience, 50*time.Millisecond).Should(BeEmpty())
		}
		Expect(redis.Signal(syscall.SIGCONT)).To(Succeed())
		Eventually(func() error {
			_, err := b.Volume(ctx, admin.VolumeQuery{FileSystem: v, ID: "a"})
			return err
		}, patience, 100*time.Millisecond).Should(Succeed())
		Expect(string(b.output.Contents())).NotTo(ContainSubstring(enginePassword))
	})

	It("gives rotated credentials an engine of their own, and lets go of what is idle", func(ctx SpecContext) {
		b, v := newBench(), sqliteVolume()
		Expect(b.cmd.Process.Signal(syscall.SIGTERM)).To(Succeed())
		Eventually(b.exited, patience).Should(BeClosed())
		Expect(os.Remove(b.socket)).To(Succeed())
		b.start("--idle", "1s")
		_, err := b.CreateVolume(ctx, admin.CreateVolume{FileSystem: v, ID: "a"})
		Expect(err).NotTo(HaveOccurred())
		rotated := v
		rotated.Secret = mount.Secret{"access-key": "new", "secret-key": "rotated-secret"}
		for k, value := range v.Secret {
			rotated.Secret[k] = value
		}
		_, err = b.Volume(ctx, admin.VolumeQuery{FileSystem: rotated, ID: "a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(b.engines()).To(HaveLen(2))
		for _, pid := range b.engines() {
			for _, file := range []string{"cmdline", "environ"} {
				text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, file))
				Expect(err).NotTo(HaveOccurred())
				Expect(string(text)).NotTo(ContainSubstring("rotated-secret"))
			}
		}
		Eventually(b.engines, patience, 50*time.Millisecond).Should(BeEmpty())
		_, err = b.Volume(ctx, admin.VolumeQuery{FileSystem: v, ID: "a"})
		Expect(err).NotTo(HaveOccurred())
		Expect(string(b.output.Contents())).NotTo(ContainSubstring("rotated-secret"))
	})
})

// lifeOfAVolume makes a volume and what can be made of it, and removes it all again.
func lifeOfAVolume(ctx context.Context, s admin.Service, f mount.Volume, id string) error {
	steps := []func(context.Context) error{
		func(ctx context.Context) error {
			_, err := s.CreateVolume(ctx, admin.CreateVolume{FileSystem: f, ID: id, CapacityBytes: 1 << 20})
			return err
		},
		func(ctx context.Context) error {
			shot, err := s.CreateSnapshot(ctx, admin.CreateSnapshot{FileSystem: f, ID: "s-" + id, SourceVolumeID: "source"})
			if err == nil && !shot.Ready {
				err = admin.ErrBusy
			}
			return err
		},
		func(ctx context.Context) error {
			_, err := s.CreateVolume(ctx, admin.CreateVolume{FileSystem: f, ID: "c-" + id, CapacityBytes: 1 << 20, Source: &admin.Source{SnapshotID: "s-" + id}})
			return err
		},
		func(ctx context.Context) error {
			v, err := s.ExpandVolume(ctx, admin.ExpandVolume{FileSystem: f, ID: "c-" + id, CapacityBytes: 2 << 20})
			if err == nil && v.CapacityBytes != 2<<20 {
				err = fmt.Errorf("capacity is %d", v.CapacityBytes)
			}
			return err
		},
		func(ctx context.Context) error { return s.DeleteVolume(ctx, admin.DeleteVolume{FileSystem: f, ID: id}) },
		func(ctx context.Context) error {
			return s.DeleteSnapshot(ctx, admin.DeleteSnapshot{FileSystem: f, ID: "s-" + id})
		},
		func(ctx context.Context) error {
			return s.DeleteVolume(ctx, admin.DeleteVolume{FileSystem: f, ID: "c-" + id})
		},
	}
	for i, step := range steps {
		if err := until(ctx, step); err != nil {
			return fmt.Errorf("%s, step %d: %w", id, i, err)
		}
	}
	return nil
}
