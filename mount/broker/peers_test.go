package broker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	"golang.org/x/sys/unix"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/fuse/fusetest"
	"github.com/sidemount/sidemount/mount/wire"
)

// dialAs connects to a session's socket with an identity. The thread that has taken it is thrown away.
func (n *node) dialAs(id mount.SessionID, uid, gid int) int {
	GinkgoHelper()
	path := filepath.Join(n.SocketDir(id), "agent.sock")
	connected := make(chan any, 1)
	go func() {
		runtime.LockOSThread()
		unix.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
		unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
		}
		if err != nil {
			connected <- err
			return
		}
		connected <- fd
	}()
	got := <-connected
	Expect(got).To(BeAssignableToTypeOf(0), "%v", got)
	fd := got.(int)
	DeferCleanup(func() { unix.Close(fd) })
	Expect(unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10})).To(Succeed())
	return fd
}

// answer reads one message, nil at the end of the connection.
func answer(fd int) *wire.Message {
	GinkgoHelper()
	b := make([]byte, wire.MaxMessage)
	oob := make([]byte, 256)
	size, oobn, _, _, err := unix.Recvmsg(fd, b, oob, unix.MSG_CMSG_CLOEXEC)
	if err == unix.ECONNRESET || err == nil && size == 0 {
		return nil
	}
	Expect(err).NotTo(HaveOccurred(), "the broker neither answers nor hangs up")
	Expect(oobn).To(BeZero(), "a stranger was given files")
	var m wire.Message
	Expect(json.Unmarshal(b[:size], &m)).To(Succeed())
	return &m
}

func message(m wire.Message) []byte {
	b, err := wire.Encode(m)
	Expect(err).NotTo(HaveOccurred())
	return b
}

var _ = Describe("A peer", func() {
	hello := []byte(`{"v":1,"type":"hello"}`)

	It("that is not the session's user is refused", func() {
		n := newNode()
		n.open("mine")
		// Root may connect although the socket is not its own.
		fd := n.dialAs("mine", 0, 0)
		Expect(answer(fd)).To(HaveField("Type", wire.Refused))
		Expect(answer(fd)).To(BeNil())
	})

	It("that has another session's identity cannot reach this one's socket", func() {
		n := newNode()
		n.open("mine")
		info, err := os.Stat(filepath.Join(n.SocketDir("mine"), "agent.sock"))
		Expect(err).NotTo(HaveOccurred())
		Expect(info.Mode().Perm()).To(Equal(os.FileMode(0o600)))
	})

	It("that comes second is refused, and the first one is not disturbed", func() {
		n := newNode()
		target, s := n.open("busy")
		pid := s.client()
		fd := n.dialAs("busy", nobody, nobody)
		Expect(unix.Sendto(fd, hello, 0, nil)).To(Succeed())
		Expect(answer(fd)).To(HaveField("Type", wire.Refused))
		Expect(answer(fd)).To(BeNil())
		Expect(os.ReadDir(target)).To(BeEmpty())
		Expect(s.client()).To(Equal(pid))
	})

	It("that talks nonsense is hung up on, and no session is disturbed", func() {
		n := newNode()
		n.open("other")
		_, err := n.Open(context.Background(), n.request("victim"))
		Expect(err).NotTo(HaveOccurred())
		null, err := os.Open(os.DevNull)
		Expect(err).NotTo(HaveOccurred())
		defer null.Close()
		file := int(null.Fd())
		deposit := message(wire.Message{
			Type: wire.Deposit, Session: "victim", Mount: "guessed", Volume: &mount.Volume{ID: "pv-victim", Name: "data", Client: mount.Passthrough},
			Init: []byte{1}, Answer: []byte{2}, Client: &wire.Client{Phase: wire.InService, Starts: 1},
		})
		for name, send := range map[string]struct {
			data  []byte
			files []int
		}{
			"garbage":                   {[]byte{0xff, 0, 1}, nil},
			"a cut message":             {hello[:10], nil},
			"another version":           {[]byte(`{"v":99,"type":"hello"}`), nil},
			"a broker's message":        {[]byte(`{"v":1,"type":"replace"}`), nil},
			"a hello with a file":       {hello, []int{file}},
			"far too many files":        {hello, []int{file, file, file, file, file, file, file, file, file, file, file, file}},
			"an oversize message":       {bytes.Repeat([]byte("x"), 150<<10), nil},
			"a deposit without files":   {deposit, nil},
			"a deposit of something":    {deposit, []int{file, file, file}},
			"a state before the hello":  {message(wire.Message{Type: wire.State, Client: &wire.Client{Phase: wire.InService}}), nil},
			"a client's word for ready": {[]byte(`{"v":1,"type":"serving"}`), nil},
		} {
			By(name)
			fd := n.dialAs("victim", nobody, nobody)
			var rights []byte
			if len(send.files) > 0 {
				rights = unix.UnixRights(send.files...)
			}
			Expect(unix.Sendmsg(fd, send.data, rights, nil, 0)).To(Succeed())
			if m := answer(fd); m != nil {
				Expect(m.Type).To(Equal(wire.Refused))
				Expect(answer(fd)).To(BeNil())
			}
			Expect(n.Status("victim")).To(And(HaveField("State", mount.Mounted), HaveField("Ready", false)))
			Expect(n.Status("other")).To(HaveField("Ready", true))
		}
		By("and an honest agent is served afterwards")
		n.runAgent("victim")
		n.waitReady("victim")
	})

	It("that deposits files of a file system that answers nothing cannot stop the broker", func() {
		n := newNode()
		_, err := n.Open(context.Background(), n.request("victim"))
		Expect(err).NotTo(HaveOccurred())
		fs := fusetest.New(GinkgoTB(), fusetest.Flush)
		file, err := fs.Open(unix.O_RDWR)
		Expect(err).NotTo(HaveOccurred())
		deposit := message(wire.Message{
			Type: wire.Deposit, Session: "victim", Mount: "guessed", Volume: &mount.Volume{ID: "pv-victim", Name: "data", Client: mount.Passthrough},
			Init: []byte{1}, Answer: []byte{2}, Client: &wire.Client{Phase: wire.InService, Starts: 1},
		})
		fd := n.dialAs("victim", nobody, nobody)
		Expect(unix.Sendmsg(fd, deposit, unix.UnixRights(file, file, file), nil, 0)).To(Succeed())
		go unix.Close(file) // it waits for the file system, as the broker's own would; from then on this process has no such file
		Expect(answer(fd)).To(HaveField("Type", wire.Refused))
		n.runAgent("victim")
		n.waitReady("victim")
	})

	It("that says nothing does not keep the agent out for long", func() {
		n := newNode()
		_, err := n.Open(context.Background(), n.request("silent"))
		Expect(err).NotTo(HaveOccurred())
		n.dialAs("silent", nobody, nobody)
		n.dialAs("silent", nobody, nobody)
		start := time.Now()
		n.runAgent("silent")
		n.waitReady("silent")
		Expect(time.Since(start)).To(BeNumerically("<", 5*time.Second))
	})
})
