package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/utils"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
)

const (
	// connectTimeout bounds the way from nothing to a loaded setting. The agent retries, so a long wait only hides the reason.
	connectTimeout = 10 * time.Second
	// dialTimeout bounds the first look whether anybody listens at all.
	dialTimeout = 4 * time.Second
)

// connect opens the metadata engine and returns the volume's setting, nil if the engine holds no volume.
func connect(ctx context.Context, s *Spec, conf *meta.Config) (meta.Meta, *meta.Format, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	address := s.Address()
	if err := reach(ctx, address); err != nil {
		return nil, nil, err
	}
	type result struct {
		client  meta.Meta
		setting *meta.Format
		err     error
	}
	done := make(chan result, 1)
	go func() {
		var r result
		if r.client, r.err = newClient(s.MetaURL, conf); r.err == nil {
			r.setting, r.err = load(r.client)
		}
		done <- r
	}()
	select {
	case r := <-done:
		if r.err != nil {
			if r.client != nil {
				_ = r.client.Shutdown()
			}
			return nil, nil, classify(address, r.err)
		}
		return r.client, r.setting, nil
	case <-ctx.Done():
		// The goroutine is left behind: the drivers below cannot be interrupted. The process ends after this error.
		return nil, nil, fmt.Errorf("%w: metadata engine %s does not answer", mount.ErrUnavailable, address)
	}
}

// reach dials the engine's servers; one that answers is enough. It keeps the drivers' long retries for later, when they help.
func reach(ctx context.Context, a Address) error {
	if len(a.Hosts) == 0 {
		return nil
	}
	dialer := net.Dialer{Timeout: dialTimeout}
	var last error
	for _, host := range a.Hosts {
		conn, err := dialer.DialContext(ctx, a.network, host)
		if err == nil {
			return conn.Close()
		}
		last = err
	}
	return fmt.Errorf("%w: metadata engine %s: %w", mount.ErrUnavailable, a, last)
}

// load reads the setting; an engine without a volume gives nil.
func load(client meta.Meta) (*meta.Format, error) {
	setting, err := client.Load(true)
	if err != nil && strings.HasPrefix(err.Error(), "database is not formatted") {
		return nil, nil
	}
	return setting, err
}

// fatal carries what the library wanted to end the process for.
type fatal struct{ message string }

func (f fatal) Error() string { return f.message }

// fatalMu lets one goroutine at a time change what the library's logger does on a fatal message.
var fatalMu sync.Mutex

// newClient is meta.NewClient, which calls logger.Fatalf, and so os.Exit, when it cannot connect. Here that becomes an error.
func newClient(url string, conf *meta.Config) (client meta.Meta, err error) {
	fatalMu.Lock()
	defer fatalMu.Unlock()
	logger := utils.GetLogger("juicefs")
	exit, hooks := logger.ExitFunc, logger.ReplaceHooks(logrus.LevelHooks{})
	var message string
	logger.AddHook(fatalHook{&message})
	logger.ExitFunc = func(int) { panic(fatal{message}) }
	defer func() {
		logger.ExitFunc = exit
		logger.ReplaceHooks(hooks)
		if f, ok := recover().(fatal); ok {
			client, err = nil, f
		}
	}()
	return meta.NewClient(url, conf), nil
}

// fatalHook remembers the last fatal message.
type fatalHook struct{ message *string }

func (h fatalHook) Levels() []logrus.Level { return []logrus.Level{logrus.FatalLevel} }

func (h fatalHook) Fire(e *logrus.Entry) error {
	*h.message = e.Message
	return nil
}

// misconfigured are parts of the drivers' messages that mean that somebody must change the Secret. What they mean is said in
// our words: the messages themselves may hold the address with its password.
var misconfigured = []struct{ part, meaning string }{
	{"WRONGPASS", "refuses the password of Secret key \"metaurl\""},
	{"NOAUTH", "wants a password; Secret key \"metaurl\" has none"},
	{"invalid password", "refuses the password of Secret key \"metaurl\""},
	{"invalid username-password", "refuses the password of Secret key \"metaurl\""},
	{"AUTH <password> called without any password", "has no password; Secret key \"metaurl\" gives one"},
	{"password authentication failed", "refuses the password of Secret key \"metaurl\""},
	{"Access denied", "refuses the user or password of Secret key \"metaurl\""},
	{"NOPERM", "does not let the user of Secret key \"metaurl\" do its work"},
	{"permission denied for", "does not let the user of Secret key \"metaurl\" do its work"},
	{"Unknown database", "has no such database as Secret key \"metaurl\" names"},
	{"does not exist", "has no such database or role as Secret key \"metaurl\" names"},
	{"DB index is out of range", "has no such database number as Secret key \"metaurl\" names"},
	{"invalid database number", "has no such database number as Secret key \"metaurl\" names"},
	{"unable to open database file", "cannot be opened: its directory must exist and be writable for the client's user"},
	{"attempt to write a readonly database", "cannot be written by the client's user"},
	{"readonly database", "cannot be written by the client's user"},
	{"file is not a database", "is not an SQLite database"},
	{"url parse", "has an address in Secret key \"metaurl\" that is not a URL"},
	{"redis parse", "has an address in Secret key \"metaurl\" that the driver does not understand"},
	{"invalid uri", "has an address in Secret key \"metaurl\" that the driver does not understand"},
	{"Invalid meta driver", "is of a kind that is not built in"},
	{"invalid DSN", "has an address in Secret key \"metaurl\" that the driver does not understand"},
	{"tls-cert-file", "has TLS files in Secret key \"metaurl\" that cannot be read"},
	{"get certificate error", "has TLS files in Secret key \"metaurl\" that cannot be read"},
	{"read ca cert file error", "has TLS files in Secret key \"metaurl\" that cannot be read"},
	{"x509:", "has a TLS certificate that is not trusted"},
	{"Unknown system variable 'transaction_isolation'", "is too old for JuiceFS, which needs MySQL 5.7.20, MariaDB 11.1 or newer"},
	{"check version:", "holds a volume that another version of JuiceFS must open"},
}

// classify turns a driver's error into one of ours.
func classify(a Address, err error) error {
	text := err.Error()
	for _, m := range misconfigured {
		if strings.Contains(text, m.part) {
			return fmt.Errorf("%w: metadata engine %s %s", mount.ErrConfig, a, m.meaning)
		}
	}
	return fmt.Errorf("%w: metadata engine %s: %s", mount.ErrUnavailable, a, reason(err))
}

// reason is the part of a driver's error that is safe to show: the innermost network or system error, else its kind only.
func reason(err error) string {
	var network *net.OpError
	if errors.As(err, &network) {
		return network.Err.Error()
	}
	text := err.Error()
	for _, known := range []string{"connection refused", "connection reset", "i/o timeout", "EOF", "database is locked", "no such host", "LOADING", "READONLY", "too many"} {
		if strings.Contains(text, known) {
			return known
		}
	}
	return "the driver reports an error; see the client's log"
}
