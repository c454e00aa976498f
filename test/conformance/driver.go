package main

import (
	"context"
	"errors"

	"github.com/sidemount/sidemount/test/lab"
)

func installDriver(ctx context.Context, l *lab.Lab, o options) ([]string, error) {
	return nil, errors.ErrUnsupported
}
