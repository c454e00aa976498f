package probe

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxRedirects is how many redirects within the same host are followed.
const maxRedirects = 10

// errElsewhere: the answer redirects to another host, which nobody has asked to be probed.
var errElsewhere = errors.New("redirect to another host")

// get asks by HTTP; an answer from 200 to 399 is success.
func get(ctx context.Context, action *corev1.HTTPGetAction, t Target, timeout time.Duration) (Result, string, error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := NewRequest(ctx, action, t, "kube-probe/1.36")
	if err != nil {
		return Failure, "", err
	}
	res, err := client(timeout).Do(req)
	if errors.Is(err, errElsewhere) {
		return Warning, "Probe terminated redirects", nil
	}
	if err != nil {
		return Failure, err.Error(), nil
	}
	defer res.Body.Close()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxOutput))
	if err != nil {
		return Failure, fmt.Sprintf("Get %q: %v", req.URL, err), nil
	}
	if res.StatusCode < http.StatusOK || res.StatusCode >= http.StatusBadRequest {
		return Failure, fmt.Sprintf("HTTP probe failed with statuscode: %d", res.StatusCode), nil
	}
	return Success, text(body), nil
}

// NewRequest builds the request of an HTTP handler of a probe or a lifecycle hook.
func NewRequest(ctx context.Context, action *corev1.HTTPGetAction, t Target, agent string) (*http.Request, error) {
	port, err := Port(action.Port, t.Container)
	if err != nil {
		return nil, err
	}
	host := action.Host
	if host == "" {
		host = t.Host
	}
	u, err := url.Parse(action.Path)
	if err != nil {
		u = &url.URL{Path: action.Path}
	}
	u.Scheme, u.Host = "http", net.JoinHostPort(host, port)
	if action.Scheme == corev1.URISchemeHTTPS {
		u.Scheme = "https"
	}
	if u.Path != "" && !strings.HasPrefix(u.Path, "/") {
		u.Path = "/" + u.Path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrHandler, err)
	}
	setHeaders(req, action.HTTPHeaders, agent)
	return req, nil
}

// setHeaders sets the handler's headers. A handler may replace the two defaults, and remove Accept by an empty value.
func setHeaders(req *http.Request, headers []corev1.HTTPHeader, agent string) {
	for _, h := range headers {
		req.Header.Add(h.Name, h.Value)
		if strings.EqualFold(h.Name, "Host") {
			req.Host = h.Value
		}
	}
	if _, set := req.Header["User-Agent"]; !set {
		req.Header.Set("User-Agent", agent)
	}
	if values, set := req.Header["Accept"]; !set {
		req.Header.Set("Accept", "*/*")
	} else if values[0] == "" {
		req.Header.Del("Accept")
	}
}

// Do performs the request of a lifecycle hook.
func Do(req *http.Request, timeout time.Duration) (*http.Response, error) {
	return client(timeout).Do(req)
}

// client returns a client for one request: no connection stays open, no proxy is used, and certificates are not checked because
// a container has no name that a certificate could bear.
func client(timeout time.Duration) *http.Client {
	return &http.Client{
		Timeout: timeout,
		Transport: &http.Transport{
			TLSClientConfig:    &tls.Config{InsecureSkipVerify: true},
			DisableKeepAlives:  true,
			DisableCompression: true,
			DialContext:        dialer().DialContext,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if req.URL.Hostname() != via[0].URL.Hostname() {
				return errElsewhere
			}
			if len(via) >= maxRedirects {
				return errors.New("stopped after 10 redirects")
			}
			return nil
		},
	}
}
