package broker_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/sidemount/sidemount/mount/wire"
)

// deafName makes a copy of this program a client that gets ready and then does not serve.
const deafName = "deaf-client"

// deafClient is its path; sidecars may run it.
func deafClient() string {
	GinkgoHelper()
	path := filepath.Join(filepath.Dir(program), deafName)
	in, err := os.Open("/proc/self/exe")
	Expect(err).NotTo(HaveOccurred())
	defer in.Close()
	out, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_TRUNC, 0o755)
	Expect(err).NotTo(HaveOccurred())
	_, err = io.Copy(out, in)
	Expect(err).NotTo(HaveOccurred())
	Expect(out.Close()).To(Succeed())
	return path
}

// runDeaf is that client. It ends with its agent.
func runDeaf() {
	if err := beDeaf(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

func beDeaf() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := wire.Inherited(3)
	if err != nil {
		return err
	}
	for {
		m, _, err := conn.Receive(ctx)
		if err != nil {
			return err
		}
		switch m.Type {
		case wire.Config:
			err = conn.Send(ctx, wire.Message{Type: wire.Ready})
		case wire.Ping:
			err = conn.Send(ctx, wire.Message{Type: wire.Pong, Client: &wire.Client{Phase: wire.Starting}})
		}
		if err != nil {
			return err
		}
	}
}
