package machine

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// statusFD is the descriptor on which Init reports what went wrong; it closes without a word when all is well.
const statusFD = 3

// Init is the first process of a new machine: it reads its Options, prepares the namespaces and becomes pause. It returns
// only on error; no Options are one.
func Init(orders io.Reader) error {
	unix.CloseOnExec(statusFD)
	status := os.NewFile(statusFD, "status")
	err := initMachine(orders)
	fmt.Fprint(status, err)
	return err
}

func initMachine(orders io.Reader) error {
	var o Options
	if err := json.NewDecoder(orders).Decode(&o); err != nil {
		return fmt.Errorf("read orders: %w", err)
	}
	if err := unix.Sethostname([]byte(o.Hostname)); err != nil {
		return fmt.Errorf("set host name: %w", err)
	}
	if err := ownPropagation("/"); err != nil {
		return err
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the pid namespace: %w", err)
	}
	if err := networkSysctls(); err != nil {
		return err
	}
	for path, content := range o.Files {
		if err := overlayFile(o.Scratch, path, content); err != nil {
			return err
		}
	}
	return syscall.Exec(o.Pause, []string{"pause", o.Hostname}, []string{"PATH=" + os.Getenv("PATH")})
}

// ownPropagation cuts a mount tree off from where it was copied from and makes it shared in itself: mounts in here
// reach containers that ask for HostToContainer, and never the host.
func ownPropagation(path string) error {
	if err := unix.Mount("", path, "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make %s private: %w", path, err)
	}
	if err := unix.Mount("", path, "", unix.MS_REC|unix.MS_SHARED, ""); err != nil {
		return fmt.Errorf("make %s shared: %w", path, err)
	}
	return nil
}

// networkSysctls sets what belongs to the network namespace alone: routing between pods, and packet filter rules for what
// crosses a bridge, without which a pod cannot reach a service whose endpoint is on the same bridge.
func networkSysctls() error {
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0); err != nil {
		return fmt.Errorf("allow routing: %w", err)
	}
	err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-iptables", []byte("1"), 0)
	if err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("filter bridged packets: %w", err)
	}
	return nil
}

// overlayFile binds a file with the content over path.
func overlayFile(scratch, path, content string) error {
	if _, err := os.Stat(path); err != nil {
		return nil // this kernel does not have it
	}
	source := filepath.Join(scratch, strings.ReplaceAll(strings.Trim(path, "/"), "/", "."))
	if err := os.WriteFile(source, []byte(content), 0o644); err != nil {
		return err
	}
	if err := unix.Mount(source, path, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("bind over %s: %w", path, err)
	}
	return nil
}
