package webhook

import (
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// complaints takes what net/http has to say about connections. One that is closed without a word is a kubelet's probe of the port.
type complaints struct{ log.Logger }

// Write implements io.Writer for one line.
func (c complaints) Write(line []byte) (int, error) {
	text := strings.TrimSpace(string(line))
	if !strings.HasPrefix(text, "http: TLS handshake error") || !strings.HasSuffix(text, ": EOF") {
		c.WithField("error", text).Warn("connection failed")
	}
	return len(line), nil
}
