package admin

import (
	"context"
	"errors"
	"net/http"

	"github.com/sidemount/sidemount/mount"
)

// Errors that callers tell apart, besides mount.ErrConfig and mount.ErrUnavailable. They survive the wire.
var (
	// ErrNotFound: there is no such volume or snapshot.
	ErrNotFound = errors.New("not found")
	// ErrExists: it is there already, and differs from what was asked for.
	ErrExists = errors.New("exists already with other attributes")
	// ErrInvalid: the command itself is wrong; the same command will never succeed.
	ErrInvalid = errors.New("invalid command")
	// ErrBusy: an operation is under way that must end first; ask again.
	ErrBusy = errors.New("operation under way")
	// ErrInUse: something else depends on it, which must go first.
	ErrInUse = errors.New("in use")
	// ErrFull: the file system has no room for it.
	ErrFull = errors.New("no room left")
)

// codes are the errors' names on the wire, the first match wins.
var codes = []struct {
	err    error
	code   string
	status int
}{
	{ErrNotFound, "notFound", http.StatusNotFound},
	{ErrExists, "exists", http.StatusConflict},
	{ErrInvalid, "invalid", http.StatusBadRequest},
	{ErrBusy, "busy", http.StatusConflict},
	{ErrInUse, "inUse", http.StatusConflict},
	{ErrFull, "full", http.StatusInsufficientStorage},
	{mount.ErrConfig, "config", http.StatusUnprocessableEntity},
	{mount.ErrUnavailable, "unavailable", http.StatusServiceUnavailable},
	{context.DeadlineExceeded, "deadline", http.StatusGatewayTimeout},
	{context.Canceled, "canceled", http.StatusGatewayTimeout},
}

// failure is an error on the wire. An unknown or empty code is an internal error.
type failure struct {
	Code    string `json:"code,omitempty"`
	Message string `json:"message"`
}

func describe(err error) (failure, int) {
	for _, row := range codes {
		if errors.Is(err, row.err) {
			return failure{Code: row.code, Message: err.Error()}, row.status
		}
	}
	return failure{Message: err.Error()}, http.StatusInternalServerError
}

// told is an error that the worker has told.
type told struct {
	message string
	kind    error
}

func (e *told) Error() string { return e.message }
func (e *told) Unwrap() error { return e.kind }

// Answered tells whether an error of a client is what the worker has said, and not that the worker could not be asked.
func Answered(err error) bool {
	var said *told
	return errors.As(err, &said)
}

func (f failure) error() error {
	for _, row := range codes {
		if f.Code == row.code {
			return &told{message: f.Message, kind: row.err}
		}
	}
	return &told{message: f.Message}
}
