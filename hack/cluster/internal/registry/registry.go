// Package registry serves container images from a directory, openly on one address and behind a password on another. It
// keeps the list of images in memory: a cluster that starts anew pushes its images anew.
package registry

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/google/go-containerregistry/pkg/registry"
	"golang.org/x/sync/errgroup"
)

// Options of the two registries, which share nothing.
type Options struct {
	// Dir holds the blobs.
	Dir string
	// Address and AuthAddress are host:port to listen on, without TLS.
	Address     string
	AuthAddress string
	// Username and Password are what AuthAddress asks for.
	Username string
	Password string
}

// Run serves until ctx ends.
func Run(ctx context.Context, o Options) error {
	open, closed := o.Dir+"/open", o.Dir+"/auth"
	if err := errors.Join(os.MkdirAll(open, 0o755), os.MkdirAll(closed, 0o755)); err != nil {
		return err
	}
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return serve(ctx, o.Address, handler(open)) })
	g.Go(func() error {
		return serve(ctx, o.AuthAddress, basicAuth(o.Username, o.Password, handler(closed)))
	})
	return g.Wait()
}

func handler(dir string) http.Handler {
	return registry.New(
		registry.WithBlobHandler(registry.NewDiskBlobHandler(dir)),
		registry.Logger(log.New(os.Stderr, "", log.LstdFlags)))
}

func serve(ctx context.Context, address string, h http.Handler) error {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return fmt.Errorf("listen for image pulls: %w", err)
	}
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stop()
	if err := server.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// basicAuth answers as distribution's registry does, with the challenge that makes a client send its password.
func basicAuth(username, password string, next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		u, p, _ := r.BasicAuth()
		userOK := subtle.ConstantTimeCompare([]byte(u), []byte(username)) == 1
		if passOK := subtle.ConstantTimeCompare([]byte(p), []byte(password)) == 1; userOK && passOK {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("WWW-Authenticate", `Basic realm="sidemount"`)
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		fmt.Fprintln(w, `{"errors":[{"code":"UNAUTHORIZED","message":"authentication required"}]}`)
	})
}
