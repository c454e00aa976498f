package node

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
)

// Streams opens streams into pods. The URL that a method returns is the runtime's streaming server, good for one connection;
// it may wrap ErrNotFound, ErrBadRequest or ErrBusy.
type Streams interface {
	Exec(ctx context.Context, pod *corev1.Pod, container string, command []string, o StreamOptions) (*url.URL, error)
	Attach(ctx context.Context, pod *corev1.Pod, container string, o StreamOptions) (*url.URL, error)
	PortForward(ctx context.Context, pod *corev1.Pod, ports []int32) (*url.URL, error)
}

// Runner runs a command in a container and waits for it.
type Runner interface {
	// Run returns what the command wrote to both of its outputs. An exit code other than 0 is an error.
	Run(ctx context.Context, pod *corev1.Pod, container string, command []string) ([]byte, error)
}

// StreamOptions say which streams a caller wants.
type StreamOptions struct {
	Stdin, Stdout, Stderr, TTY bool
}

func (s *Server) serveExec(w http.ResponseWriter, r *http.Request) {
	s.serveStream(w, r, func(pod *corev1.Pod, container string, o StreamOptions) (*url.URL, error) {
		return s.options.Streams.Exec(r.Context(), pod, container, r.URL.Query()["command"], o)
	})
}

func (s *Server) serveAttach(w http.ResponseWriter, r *http.Request) {
	s.serveStream(w, r, func(pod *corev1.Pod, container string, o StreamOptions) (*url.URL, error) {
		return s.options.Streams.Attach(r.Context(), pod, container, o)
	})
}

func (s *Server) serveStream(w http.ResponseWriter, r *http.Request, open func(*corev1.Pod, string, StreamOptions) (*url.URL, error)) {
	if s.options.Streams == nil {
		unserved(w)
		return
	}
	options, err := parseStreamOptions(r.URL.Query())
	if err != nil {
		writeText(w, http.StatusBadRequest, err.Error())
		return
	}
	pod, container, err := s.containerOf(r)
	if err != nil {
		writeText(w, statusOf(err), err.Error())
		return
	}
	location, err := open(pod, container, options)
	if err != nil {
		writeText(w, statusOf(err), err.Error())
		return
	}
	s.splice(w, r, location)
}

func (s *Server) splice(w http.ResponseWriter, r *http.Request, location *url.URL) {
	(&spliceProxy{location: location, idle: s.options.StreamTimeout}).ServeHTTP(w, r)
}

func (s *Server) servePortForward(w http.ResponseWriter, r *http.Request) {
	if s.options.Streams == nil {
		unserved(w)
		return
	}
	var ports []int32
	if isWebsocket(r) {
		// Only plain websockets name their ports beforehand; a SPDY stream names its port in its own header.
		var err error
		if ports, err = parsePorts(r.URL.Query()["port"]); err != nil {
			writeText(w, http.StatusBadRequest, err.Error())
			return
		}
	}
	pod, err := s.podOf(r)
	if err != nil {
		writeText(w, statusOf(err), err.Error())
		return
	}
	location, err := s.options.Streams.PortForward(r.Context(), pod, ports)
	if err != nil {
		writeText(w, statusOf(err), err.Error())
		return
	}
	s.splice(w, r, location)
}

func (s *Server) serveRun(w http.ResponseWriter, r *http.Request) {
	if s.options.Runner == nil {
		unserved(w)
		return
	}
	pod, container, err := s.containerOf(r)
	if err != nil {
		writeText(w, statusOf(err), err.Error())
		return
	}
	// The kubelet's /run has always split its one parameter at blanks.
	output, err := s.options.Runner.Run(r.Context(), pod, container, strings.Split(r.URL.Query().Get("cmd"), " "))
	if err != nil {
		writeText(w, statusOf(err), err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	if _, err := w.Write(output); err != nil {
		log.G(r.Context()).WithError(err).Debug("caller left before the answer was written")
	}
}

func parseStreamOptions(query url.Values) (StreamOptions, error) {
	o := StreamOptions{
		Stdin:  query.Get("input") == "1",
		Stdout: query.Get("output") == "1",
		Stderr: query.Get("error") == "1",
		TTY:    query.Get("tty") == "1",
	}
	if o.TTY {
		// A terminal has one output.
		o.Stderr = false
	}
	if !o.Stdin && !o.Stdout && !o.Stderr {
		return o, errors.New("you must specify at least 1 of stdin, stdout, stderr")
	}
	return o, nil
}

func parsePorts(values []string) ([]int32, error) {
	if len(values) == 0 {
		return nil, errors.New(`query parameter "port" is required`)
	}
	var ports []int32
	for _, value := range values {
		for text := range strings.SplitSeq(value, ",") {
			port, err := strconv.ParseUint(text, 10, 16)
			if err != nil || port == 0 {
				return nil, fmt.Errorf("unable to parse %q as a port", value)
			}
			ports = append(ports, int32(port))
		}
	}
	return ports, nil
}
