package csi

import (
	"context"
	"errors"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/admin"
)

// table gives each error of the inner packages its gRPC code, the first match wins. The meanings are those of the CSI
// specification, "Error Scheme": Unavailable and Aborted are retried soon, InvalidArgument and FailedPrecondition only help
// after somebody has changed something.
var table = []struct {
	err  error
	code codes.Code
}{
	{admin.ErrNotFound, codes.NotFound},
	{admin.ErrExists, codes.AlreadyExists},
	{admin.ErrInvalid, codes.InvalidArgument},
	{admin.ErrBusy, codes.Aborted},
	{admin.ErrInUse, codes.FailedPrecondition},
	{admin.ErrFull, codes.ResourceExhausted},
	{mount.ErrNotFound, codes.NotFound},
	{mount.ErrClosed, codes.FailedPrecondition},
	{mount.ErrRefused, codes.PermissionDenied},
	{mount.ErrConfig, codes.InvalidArgument},
	{context.Canceled, codes.Canceled},
	{context.DeadlineExceeded, codes.DeadlineExceeded},
	{mount.ErrUnavailable, codes.Unavailable},
}

// translate returns the gRPC status for an error. A status that a service chose itself stays; what is in no row is Internal.
func translate(err error) error {
	if err == nil {
		return nil
	}
	if _, ok := status.FromError(err); ok {
		return err
	}
	for _, row := range table {
		if errors.Is(err, row.err) {
			return status.Error(row.code, err.Error())
		}
	}
	return status.Error(codes.Internal, err.Error())
}
