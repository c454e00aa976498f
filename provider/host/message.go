package host

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"

	"github.com/sidemount/sidemount/provider/cri"
	"github.com/sidemount/sidemount/provider/logs"
)

const (
	// maxMessage is how many bytes of a termination message are shown, as of the kubelet.
	maxMessage = 4096
	// maxTail and maxTailLines bound what is taken from the end of a log instead, as of the kubelet.
	maxTail      = 2048
	maxTailLines = 80
)

// message returns what a dead container has left to say: the runtime's message, then that of its termination log, or the end of
// its log if it failed without one and its policy says so.
func (h *Host) message(ctx context.Context, c cri.Container) string {
	h.mu.Lock()
	message, ok := h.messages[c.ID]
	h.mu.Unlock()
	if ok {
		return message
	}
	message = c.Message
	last, err := readMessage(c.TerminationMessageFile)
	if err == nil && last == "" && c.ExitCode != 0 && c.TerminationMessagePolicy == corev1.TerminationMessageFallbackToLogsOnError {
		last, err = logs.Last(c.LogPath, maxTailLines, maxTail)
	}
	if err != nil {
		log.G(ctx).WithError(err).WithField("container", c.Name).Warn("termination message not read")
	}
	if message != "" && last != "" {
		message += ": "
	}
	message += last
	h.mu.Lock()
	h.messages[c.ID] = message
	h.mu.Unlock()
	return message
}

// readMessage returns the beginning of a file that a container has written, "" if there is none.
func readMessage(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxMessage))
	return string(bytes.ToValidUTF8(b, []byte("\uFFFD"))), err
}
