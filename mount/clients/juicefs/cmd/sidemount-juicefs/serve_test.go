package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
)

var _ = Describe("a volume", func() {
	It("is shared by two pods that keep their metadata in one SQLite file", func(ctx SpecContext) {
		v := sqliteVolume()
		a, b := newStand(ctx, v), newStand(ctx, v)
		done := make(chan error, 2)
		for name, s := range map[string]*stand{"a": a, "b": b} {
			go func() { done <- fill(s.mnt, name) }()
		}
		for range 2 {
			Eventually(ctx, done).WithTimeout(2 * patience).Should(Receive(BeNil()))
		}
		for _, s := range []*stand{a, b} {
			list, err := os.ReadDir(s.mnt)
			Expect(err).NotTo(HaveOccurred())
			Expect(list).To(HaveLen(2 * filled))
		}
		text, err := os.ReadFile(a.path("b-0"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(Equal("b-0"))
	}, SpecTimeout(4*time.Minute))

	It("gives every write that was acknowledged to the next pod when its pod ends", func(ctx SpecContext) {
		v := sqliteVolume()
		first := openStand(ctx, v)
		first.awaitReady(ctx)
		f, err := os.Create(first.path("open"))
		Expect(err).NotTo(HaveOccurred())
		_, err = f.WriteString("neither closed nor synced")
		Expect(err).NotTo(HaveOccurred())
		closing, cancel := context.WithTimeout(ctx, patience)
		defer cancel()
		Expect(first.broker.Close(closing, first.id, 30*time.Second)).To(Succeed())
		_ = f.Close()

		second := newStand(ctx, v)
		text, err := os.ReadFile(second.path("open"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(Equal("neither closed nor synced"))
	}, SpecTimeout(2*time.Minute))

	It("refuses writes when it is read-only", func(ctx SpecContext) {
		v := sqliteVolume()
		Expect(fill(newStand(ctx, v).mnt, "x")).To(Succeed())
		v.ReadOnly = true
		s := newStand(ctx, v)
		text, err := os.ReadFile(s.path("x-1"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(Equal("x-1"))
		Expect(os.WriteFile(s.path("new"), nil, 0o644)).To(MatchError(unix.EROFS))
		s.killClient(ctx)
		_, err = os.ReadFile(s.path("x-2"))
		Expect(err).NotTo(HaveOccurred())
	}, SpecTimeout(time.Minute))

	It("serves a subdirectory, which it makes", func(ctx SpecContext) {
		v := sqliteVolume("subdir=/teams/one")
		Expect(os.WriteFile(newStand(ctx, v).path("file"), []byte("inside"), 0o644)).To(Succeed())
		v.Options = nil
		text, err := os.ReadFile(newStand(ctx, v).path("teams", "one", "file"))
		Expect(err).NotTo(HaveOccurred())
		Expect(string(text)).To(Equal("inside"))
	}, SpecTimeout(time.Minute))

	DescribeTable("says in the session's failure what is wrong", func(ctx SpecContext, change func(mount.Secret), kind error, message string) {
		v := redisVolume()
		change(v.Secret)
		s := openStand(ctx, v)
		var failure error
		Eventually(ctx, func() error {
			status, err := s.broker.Status(s.id)
			Expect(err).NotTo(HaveOccurred())
			failure = status.Failure
			return failure
		}).WithTimeout(patience).Should(MatchError(kind))
		Expect(failure).To(MatchError(ContainSubstring(message)))
		Expect(failure.Error()).NotTo(Or(ContainSubstring(enginePassword), ContainSubstring("wrong-password")))
	},
		Entry("a wrong password", func(s mount.Secret) {
			s["metaurl"] = strings.Replace(s["metaurl"], enginePassword, "wrong-password", 1)
		}, mount.ErrConfig, `refuses the password of Secret key "metaurl"`, SpecTimeout(time.Minute)),
		Entry("no password", func(s mount.Secret) {
			s["metaurl"] = strings.Replace(s["metaurl"], ":"+enginePassword+"@", "", 1)
		}, mount.ErrConfig, `wants a password; Secret key "metaurl" has none`, SpecTimeout(time.Minute)),
		Entry("a database that is not there", func(s mount.Secret) {
			s["metaurl"] = strings.TrimSuffix(s["metaurl"], "/1") + "/4711"
		}, mount.ErrConfig, `has no such database number`, SpecTimeout(time.Minute)),
		Entry("a missing key", func(s mount.Secret) { delete(s, "metaurl") }, mount.ErrConfig, `lacks the key "metaurl"`, SpecTimeout(time.Minute)),
		Entry("an engine that is down", func(s mount.Secret) {
			s["metaurl"] = "redis://:" + enginePassword + "@127.0.0.1:1/1"
		}, mount.ErrUnavailable, "127.0.0.1:1", SpecTimeout(time.Minute)),
	)

	It("is replaced when its metadata engine answers nothing, and its application goes on when that does", func(ctx SpecContext) {
		address, engine := startRedisServer()
		s := openStand(ctx, volume(volumeDir(), "redis://:"+enginePassword+"@"+address+"/1"), func(o *broker.Options) {
			o.Liveness, o.ProbeTimeout, o.Stuck = 3*time.Second, time.Second, time.Second // a busy machine must not make a hung agent of a slow one
		})
		s.awaitReady(ctx)
		Expect(engine.Signal(syscall.SIGSTOP)).To(Succeed())
		DeferCleanup(engine.Signal, syscall.SIGCONT)
		application := exec.Command("touch", s.path("made-meanwhile"))
		application.Stderr = GinkgoWriter
		Expect(application.Start()).To(Succeed())
		ended := make(chan error, 1)
		go func() { ended <- application.Wait() }()
		Eventually(ctx, s.told(broker.ClientHung)).WithTimeout(patience).Should(BeTrue())
		Expect(ended).NotTo(Receive(), "the application has ended without its file")
		Expect(engine.Signal(syscall.SIGCONT)).To(Succeed())
		Eventually(ctx, ended).WithTimeout(patience).Should(Receive(BeNil()))
		s.awaitReady(ctx)
		Expect(s.path("made-meanwhile")).To(BeARegularFile())
	}, SpecTimeout(2*time.Minute))

	It("comes up by itself once the metadata engine does", func(ctx SpecContext) {
		v := redisVolume()
		real := v.Secret["metaurl"]
		_, address, _ := strings.Cut(strings.TrimSuffix(real, "/1"), "@")
		front, open := gate(address)
		v.Secret["metaurl"] = strings.Replace(real, address, front, 1)
		s := openStand(ctx, v)
		Eventually(ctx, func() error {
			status, err := s.broker.Status(s.id)
			Expect(err).NotTo(HaveOccurred())
			return status.Failure
		}).WithTimeout(patience).Should(MatchError(mount.ErrUnavailable))
		open()
		s.awaitReady(ctx)
		Expect(fill(s.mnt, "x")).To(Succeed())
	}, SpecTimeout(2*time.Minute))
})

var _ = Describe("sidemount-juicefs format", func() {
	format := func(v mount.Volume) (string, error) {
		text, err := json.Marshal(v)
		Expect(err).NotTo(HaveOccurred())
		cmd := exec.Command(program, "format")
		cmd.Env = append(os.Environ(), roleEnv+"="+roleFormat)
		cmd.Stdin = strings.NewReader(string(text))
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: nobody, Gid: nobody}}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}

	It("formats once and then leaves the volume alone", func() {
		v := sqliteVolume()
		out, err := format(v)
		Expect(err).NotTo(HaveOccurred(), out)
		uuid, err := os.ReadFile(filepath.Join(v.Secret["bucket"], "testfs", "juicefs_uuid"))
		Expect(err).NotTo(HaveOccurred())
		out, err = format(v)
		Expect(err).NotTo(HaveOccurred(), out)
		again, err := os.ReadFile(filepath.Join(v.Secret["bucket"], "testfs", "juicefs_uuid"))
		Expect(err).NotTo(HaveOccurred())
		Expect(again).To(Equal(uuid))
	})

	It("never prints a secret", func() {
		v := redisVolume()
		v.Secret["metaurl"] = strings.Replace(v.Secret["metaurl"], enginePassword, "wrong-password", 1)
		out, err := format(v)
		Expect(err).To(HaveOccurred())
		Expect(out).To(ContainSubstring("refuses the password"))
		Expect(out).NotTo(ContainSubstring("wrong-password"))
	})
})

// filled is how many files fill makes.
const filled = 100

func fill(dir, prefix string) error {
	for i := range filled {
		name := fmt.Sprintf("%s-%d", prefix, i)
		if err := os.WriteFile(filepath.Join(dir, name), []byte(name), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// gate is an address that refuses connections until it is opened, and then passes them on.
func gate(to string) (address string, open func()) {
	GinkgoHelper()
	l := listen()
	address = l.Addr().String()
	Expect(l.Close()).To(Succeed())
	return address, func() {
		l, err := listenAt(address)
		Expect(err).NotTo(HaveOccurred())
		DeferCleanup(l.Close)
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go pass(conn, to)
			}
		}()
	}
}

func pass(conn io.ReadWriteCloser, to string) {
	defer conn.Close()
	back, err := dial(to)
	if err != nil {
		return
	}
	defer back.Close()
	go func() {
		_, _ = io.Copy(back, conn)
		_ = back.Close()
	}()
	_, _ = io.Copy(conn, back)
}
