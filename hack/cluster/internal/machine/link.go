package machine

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"

	"github.com/sidemount/sidemount/hack/cluster/internal/process"
)

// Link is the veth pair between the host and a machine. The kernel removes it with the machine's network namespace.
type Link struct {
	Slot int
}

// Device is the name of the host's end.
func (l Link) Device() string { return "sm" + strconv.Itoa(l.Slot) }

// HostAddress is the host's end.
func (l Link) HostAddress() string { return l.Address(1) }

// Address returns an address of the machine's network, host from 2 to 254.
func (l Link) Address(host int) string { return fmt.Sprintf("10.99.%d.%d", l.Slot, host) }

// Exists tells whether the host's end is there.
func (l Link) Exists() bool {
	_, err := os.Stat("/sys/class/net/" + l.Device())
	return err == nil
}

// Connect gives the machine the first free slot and links it to the host. The slot is free when neither its device nor
// an address of its network is there; the lock keeps two machines from taking the same one.
func Connect(ctx context.Context, machine process.Ref) (Link, error) {
	unlock, err := Lock(ctx, "slots")
	if err != nil {
		return Link{}, err
	}
	defer unlock()
	l, err := freeSlot()
	if err != nil {
		return Link{}, err
	}
	pid := strconv.Itoa(machine.PID)
	host := []string{
		"link add " + l.Device() + " type veth peer name eth0 netns " + pid,
		"addr add " + l.HostAddress() + "/24 dev " + l.Device(),
		"link set " + l.Device() + " up",
	}
	if err := ip(host); err != nil {
		return Link{}, err
	}
	// The default route leads to where nothing is forwarded. Without one, programs on the machine could not even try to
	// connect to the address of a service, which the packet filter redirects only after routing.
	inside := []string{
		"link set lo up",
		"addr add " + l.Address(2) + "/24 dev eth0",
		"link set eth0 up",
		"route add default via " + l.HostAddress(),
	}
	return l, Do(machine, func() error { return ip(inside) })
}

// AddAddress gives the machine one more address of its network.
func (l Link) AddAddress(machine process.Ref, host int) error {
	return Do(machine, func() error {
		return ip([]string{"addr replace " + l.Address(host) + "/24 dev eth0"})
	})
}

func freeSlot() (Link, error) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return Link{}, err
	}
	for slot := 1; slot < 255; slot++ {
		l := Link{Slot: slot}
		if !l.Exists() && !inUse(addrs, fmt.Sprintf("10.99.%d.", slot)) {
			return l, nil
		}
	}
	return Link{}, fmt.Errorf("no slot is free: 254 clusters run, or networks in 10.99.0.0/16 are in use")
}

func inUse(addrs []net.Addr, prefix string) bool {
	for _, a := range addrs {
		if strings.HasPrefix(a.String(), prefix) {
			return true
		}
	}
	return false
}

// ip runs lines of iproute2's batch language, one process for all.
func ip(lines []string) error {
	cmd := exec.Command("ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(lines, "\n") + "\n")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("ip %s: %w: %s", strings.Join(lines, "; "), err, strings.TrimSpace(out.String()))
	}
	return nil
}
