package main

import (
	"context"
	"fmt"

	"github.com/go-logr/logr"
	"github.com/sirupsen/logrus"
	"github.com/virtual-kubelet/virtual-kubelet/log"
	vklogrus "github.com/virtual-kubelet/virtual-kubelet/log/logrus"
	"k8s.io/klog/v2"
)

// setUpLogging makes one logger for everything that logs: our own packages through virtual-kubelet's interface, the data path
// through logrus, the Kubernetes libraries through klog.
func setUpLogging(ctx context.Context, level, format string) (context.Context, error) {
	parsed, err := logrus.ParseLevel(level)
	if err != nil {
		return ctx, fmt.Errorf("--log-level %q: want trace, debug, info, warn or error", level)
	}
	logger := logrus.StandardLogger()
	logger.SetLevel(parsed)
	switch format {
	case "text":
		logger.SetFormatter(&logrus.TextFormatter{FullTimestamp: true, TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	case "json":
		logger.SetFormatter(&logrus.JSONFormatter{TimestampFormat: "2006-01-02T15:04:05.000Z07:00"})
	default:
		return ctx, fmt.Errorf("--log-format %q: want text or json", format)
	}
	log.L = vklogrus.FromLogrus(logrus.NewEntry(logger))
	klog.SetLogger(logr.New(klogSink{entry: logrus.NewEntry(logger)}))
	return log.WithLogger(ctx, log.L), nil
}

// klogSink passes on what the Kubernetes libraries say. Their informational messages are details to us.
type klogSink struct{ entry *logrus.Entry }

var _ logr.LogSink = klogSink{}

func (klogSink) Init(logr.RuntimeInfo) {}

func (s klogSink) Enabled(level int) bool {
	return s.entry.Logger.IsLevelEnabled(verbosity(level))
}

func (s klogSink) Info(level int, message string, pairs ...any) {
	s.with(pairs).Log(verbosity(level), message)
}

func (s klogSink) Error(err error, message string, pairs ...any) {
	s.with(pairs).WithError(err).Warn(message)
}

func (s klogSink) WithValues(pairs ...any) logr.LogSink { return klogSink{s.with(pairs)} }

func (s klogSink) WithName(name string) logr.LogSink {
	return klogSink{s.entry.WithField("component", name)}
}

func (s klogSink) with(pairs []any) *logrus.Entry {
	entry := s.entry
	for i := 0; i+1 < len(pairs); i += 2 {
		entry = entry.WithField(fmt.Sprint(pairs[i]), pairs[i+1])
	}
	return entry
}

// verbosity maps klog's levels: 0 to 3 are worth a debug line, the rest is for tracing.
func verbosity(level int) logrus.Level {
	if level <= 3 {
		return logrus.DebugLevel
	}
	return logrus.TraceLevel
}
