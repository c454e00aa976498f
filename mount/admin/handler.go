package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"
)

// MaxBody bounds a request's and an answer's body in bytes. A Secret has at most 1 MiB.
const MaxBody = 4 << 20

// deadlineHeader carries how many milliseconds the caller will wait.
const deadlineHeader = "Sidemount-Timeout-Ms"

// Log takes one line about a command; *logrus.Entry and *logrus.Logger have it. It never gets a body.
type Log interface {
	Infof(format string, args ...any)
	Warnf(format string, args ...any)
}

// NewHandler serves a Service: POST /v1/<command> with the command as JSON. Commands end within MaxDuration.
func NewHandler(s Service, log Log) http.Handler {
	mux := http.NewServeMux()
	handle(mux, log, "CreateVolume", s.CreateVolume)
	handle(mux, log, "DeleteVolume", silent(s.DeleteVolume))
	handle(mux, log, "Volume", s.Volume)
	handle(mux, log, "ExpandVolume", s.ExpandVolume)
	handle(mux, log, "CreateSnapshot", s.CreateSnapshot)
	handle(mux, log, "DeleteSnapshot", silent(s.DeleteSnapshot))
	handle(mux, log, "Snapshots", s.Snapshots)
	handle(mux, log, "Capacity", s.Capacity)
	return mux
}

// nothing is the answer of a command that has none.
type nothing struct{}

func silent[In any](run func(context.Context, In) error) func(context.Context, In) (nothing, error) {
	return func(ctx context.Context, in In) (nothing, error) { return nothing{}, run(ctx, in) }
}

// handle serves one command.
func handle[In, Out any](mux *http.ServeMux, log Log, name string, run func(context.Context, In) (Out, error)) {
	mux.HandleFunc("POST /v1/"+name, func(w http.ResponseWriter, r *http.Request) {
		began := time.Now()
		ctx, cancel := context.WithTimeout(r.Context(), patience(r.Header.Get(deadlineHeader)))
		defer cancel()
		var in In
		if err := decode(w, r, &in); err != nil {
			refuse(w, log, name, began, err)
			return
		}
		out, err := run(ctx, in)
		if err != nil {
			refuse(w, log, name, began, err)
			return
		}
		answer(w, http.StatusOK, out)
		log.Infof("command %s done in %s", name, time.Since(began).Round(time.Millisecond))
	})
}

// decode reads a command. The reader's own errors are not shown: they may quote the body, which holds secrets.
func decode(w http.ResponseWriter, r *http.Request, in any) error {
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, MaxBody))
	d.DisallowUnknownFields()
	err := d.Decode(in)
	var large *http.MaxBytesError
	switch {
	case errors.As(err, &large):
		return fmt.Errorf("%w: more than %d bytes", ErrInvalid, large.Limit)
	case err != nil:
		return fmt.Errorf("%w: the body is not the JSON of this command", ErrInvalid)
	}
	return nil
}

func patience(header string) time.Duration {
	var ms int64
	if _, err := fmt.Sscanf(header, "%d", &ms); err != nil || ms <= 0 || ms > MaxDuration.Milliseconds() {
		return MaxDuration
	}
	return time.Duration(ms) * time.Millisecond
}

func refuse(w http.ResponseWriter, log Log, name string, began time.Time, err error) {
	f, status := describe(err)
	log.Warnf("command %s refused after %s: %s", name, time.Since(began).Round(time.Millisecond), f.Message)
	answer(w, status, f)
}

func answer(w http.ResponseWriter, status int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	// The only way to fail is a caller that has gone, and nobody is left to be told.
	_ = json.NewEncoder(w).Encode(body)
}
