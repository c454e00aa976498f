package passthrough

import (
	"context"

	"github.com/sidemount/sidemount/mount/client"
)

// Serve serves a session until ctx ends or the mount does.
func Serve(ctx context.Context, s *client.Session) error {
	fs, err := New(s.Volume(), s)
	if err != nil {
		return err
	}
	return s.Serve(ctx, fs, client.Options{Flush: fs.flush})
}

// flush has nothing to write: what was acknowledged is in the host's page cache, where no end of this process can lose it.
func (f *FS) flush(context.Context) error {
	f.hidden.tidy()
	return nil
}
