package csi

import (
	"context"
	"path"
	"runtime/debug"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// interceptor surrounds every call: a panic becomes an Internal error, an error gets its code, and the call is logged.
func interceptor(log logrus.FieldLogger, observe func(method, code string, took time.Duration)) grpc.UnaryServerInterceptor {
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		began := time.Now()
		response, err := recovered(ctx, request, log, handler)
		err = scrub(translate(err), request)
		took, code := time.Since(began), status.Code(err).String()
		observe(path.Base(info.FullMethod), code, took)
		entry := log.WithFields(logrus.Fields{"method": info.FullMethod, "request": redacted{request}, "duration": took, "code": code})
		switch status.Code(err) {
		case codes.OK:
			entry.Debug("call answered")
		case codes.Internal, codes.Unknown:
			entry.WithError(err).Error("call broken")
		default:
			entry.WithError(err).Warn("call refused")
		}
		if err != nil {
			return nil, err
		}
		return response, nil
	}
}

// recovered keeps one bad request from ending the driver, and with it the mounts that it looks after. What was panicked with
// may hold a secret, so that only the place is logged.
func recovered(ctx context.Context, request any, log logrus.FieldLogger, handler grpc.UnaryHandler) (response any, err error) {
	defer func() {
		if p := recover(); p != nil {
			log.WithField("stack", string(debug.Stack())).Errorf("panic of type %T", p)
			err = status.Error(codes.Internal, "the driver met a bug; its log tells where")
		}
	}()
	return handler(ctx, request)
}
