package provider

import (
	"fmt"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

// quietLogger drops what virtual-kubelet logs, as warnings and errors, about deletions that it thinks it makes. PodClient has turned
// each of them into a request to the engine, so that nothing of what they say has happened.
type quietLogger struct{ log.Logger }

func misleading(message string) bool {
	return strings.HasPrefix(message, "Force deleting pod in running state") || strings.HasPrefix(message, "There was a conflict, maybe trying to delete")
}

// Error implements log.Logger.
func (q quietLogger) Error(args ...any) {
	if !misleading(fmt.Sprint(args...)) {
		q.Logger.Error(args...)
	}
}

// Warnf implements log.Logger.
func (q quietLogger) Warnf(format string, args ...any) {
	if !misleading(format) {
		q.Logger.Warnf(format, args...)
	}
}

// WithField implements log.Logger.
func (q quietLogger) WithField(key string, value any) log.Logger {
	return quietLogger{q.Logger.WithField(key, value)}
}

// WithFields implements log.Logger.
func (q quietLogger) WithFields(fields log.Fields) log.Logger {
	return quietLogger{q.Logger.WithFields(fields)}
}

// WithError implements log.Logger.
func (q quietLogger) WithError(err error) log.Logger { return quietLogger{q.Logger.WithError(err)} }
