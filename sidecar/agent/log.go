package agent

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// logger writes lines like logrus' text format, without its weight.
type logger struct{ w io.Writer }

// line writes one event; fields are pairs of key and value.
func (l logger) line(level, message string, fields ...any) {
	var b strings.Builder
	fmt.Fprintf(&b, "time=%s level=%s msg=%q", time.Now().UTC().Format(time.RFC3339Nano), level, message)
	for i := 0; i+1 < len(fields); i += 2 {
		fmt.Fprintf(&b, " %v=%q", fields[i], fmt.Sprint(fields[i+1]))
	}
	b.WriteByte('\n')
	// There is nobody to tell when the log itself is broken.
	_, _ = io.WriteString(l.w, b.String())
}

func (l logger) info(message string, fields ...any) { l.line("info", message, fields...) }
func (l logger) warn(message string, fields ...any) { l.line("warning", message, fields...) }
