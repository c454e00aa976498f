package node

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
)

const (
	// dialTimeout bounds the connection to the runtime's streaming server and its answer to the upgrade.
	dialTimeout = 30 * time.Second
	// errorBody is how much of a refusal of the streaming server is passed on, in bytes.
	errorBody = 64 << 10
)

// spliceProxy joins a caller's connection, which asks for an upgrade to SPDY or websockets, with the runtime's streaming
// server at location: after the upgrade it only copies bytes, so that resizing, exit codes and whatever a protocol brings
// later pass through. The stream ends when either side ends, or when nothing has moved for idle.
type spliceProxy struct {
	location *url.URL
	idle     time.Duration
}

func (p *spliceProxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if !isUpgrade(r) {
		writeText(w, http.StatusBadRequest, "Upgrade request required")
		return
	}
	backend, answer, buffered, err := p.dial(r)
	if err != nil {
		log.G(r.Context()).WithError(err).Warn("cannot open a stream")
		writeText(w, http.StatusInternalServerError, err.Error())
		return
	}
	defer backend.Close()
	if answer.StatusCode != http.StatusSwitchingProtocols {
		passOn(w, answer)
		return
	}
	client, clientBuffer, err := http.NewResponseController(w).Hijack()
	if err != nil {
		writeText(w, http.StatusInternalServerError, fmt.Sprintf("take over the connection: %v", err))
		return
	}
	defer client.Close()
	if err := writeSwitch(client, answer); err != nil {
		return
	}
	splice(pair{client, clientBuffer.Reader}, pair{backend, buffered}, p.idle)
}

func isUpgrade(r *http.Request) bool {
	for _, value := range r.Header.Values("Connection") {
		if strings.Contains(strings.ToLower(value), "upgrade") {
			return r.Header.Get("Upgrade") != ""
		}
	}
	return false
}

func isWebsocket(r *http.Request) bool {
	return isUpgrade(r) && strings.EqualFold(r.Header.Get("Upgrade"), "websocket")
}

// dial repeats the request at the streaming server. The reader has what the server has sent after its answer.
func (p *spliceProxy) dial(r *http.Request) (_ net.Conn, _ *http.Response, _ *bufio.Reader, err error) {
	if p.location.Scheme != "http" {
		return nil, nil, nil, fmt.Errorf("open stream: the runtime's streaming server speaks %q, want http", p.location.Scheme)
	}
	ctx, cancel := context.WithTimeout(r.Context(), dialTimeout)
	defer cancel()
	conn, err := new(net.Dialer).DialContext(ctx, "tcp", p.location.Host)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("open stream: %w", err)
	}
	defer func() {
		if err != nil {
			conn.Close()
		}
	}()
	if err := conn.SetDeadline(time.Now().Add(dialTimeout)); err != nil {
		return nil, nil, nil, fmt.Errorf("open stream: %w", err)
	}
	request := &http.Request{
		Method: r.Method, URL: p.location, Host: p.location.Host,
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: r.Header.Clone(),
	}
	// The caller's credentials were for this server.
	request.Header.Del("Authorization")
	if err := request.Write(conn); err != nil {
		return nil, nil, nil, fmt.Errorf("ask for stream: %w", err)
	}
	reader := bufio.NewReader(conn)
	answer, err := http.ReadResponse(reader, request)
	if err != nil {
		return nil, nil, nil, fmt.Errorf("read answer to stream: %w", err)
	}
	if answer.StatusCode == http.StatusSwitchingProtocols {
		err = conn.SetDeadline(time.Time{})
	}
	return conn, answer, reader, err
}

// passOn gives the caller the server's refusal.
func passOn(w http.ResponseWriter, answer *http.Response) {
	defer answer.Body.Close()
	status := answer.StatusCode
	if status < http.StatusBadRequest {
		writeText(w, http.StatusInternalServerError, fmt.Sprintf("invalid upgrade response: status code %d", status))
		return
	}
	text, err := io.ReadAll(io.LimitReader(answer.Body, errorBody))
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		text = []byte(answer.Status)
	}
	writeText(w, status, string(text))
}

func writeSwitch(w io.Writer, answer *http.Response) error {
	var head strings.Builder
	head.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if err := answer.Header.Write(&head); err != nil {
		return err
	}
	head.WriteString("\r\n")
	_, err := io.WriteString(w, head.String())
	return err
}

// pair is a connection with what was read ahead from it.
type pair struct {
	conn   net.Conn
	reader io.Reader
}

// splice copies both ways until one side ends or both are silent for idle, then closes both and waits for the copiers.
func splice(a, b pair, idle time.Duration) {
	closeBoth := func() { a.conn.Close(); b.conn.Close() }
	timer := time.AfterFunc(idle, closeBoth)
	defer timer.Stop()
	done := make(chan struct{}, 2)
	relay := func(to net.Conn, from io.Reader) {
		defer func() { done <- struct{}{} }()
		// An error means that a side has gone, which is how streams end.
		_, _ = io.Copy(to, touchReader{from, func() { timer.Reset(idle) }})
	}
	go relay(b.conn, a.reader)
	go relay(a.conn, b.reader)
	<-done
	closeBoth()
	<-done
}

// touchReader tells of each piece that passes.
type touchReader struct {
	io.Reader
	touch func()
}

func (t touchReader) Read(p []byte) (int, error) {
	n, err := t.Reader.Read(p)
	t.touch()
	return n, err
}
