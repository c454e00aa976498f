package engine

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/juicedata/juicefs/pkg/object"
	"github.com/juicedata/juicefs/pkg/utils"

	"github.com/sidemount/sidemount/mount"
)

// storageTimeout bounds the first words with an object store.
const storageTimeout = 20 * time.Second

// tryStorage writes, reads and deletes a small object, creating the bucket if need be, and makes sure that nothing of the
// volume's name is there yet.
func tryStorage(ctx context.Context, store object.ObjectStorage) error {
	return bounded(ctx, store, func() error { return trial(store) })
}

// probeStorage reads an object that formatting has left, so that wrong keys show when the volume is mounted and not as EIO in an
// application. Whether the object is there does not matter, nor does a lack of rights that this client may never need.
func probeStorage(ctx context.Context, store object.ObjectStorage) error {
	return bounded(ctx, store, func() error {
		in, err := store.Get("juicefs_uuid", 0, 1)
		if err == nil {
			return in.Close()
		}
		if missing(err) {
			return nil
		}
		return storageError(store, "read", err)
	})
}

// bounded runs what cannot be interrupted and gives up waiting for it. The process ends after that.
func bounded(ctx context.Context, store object.ObjectStorage, run func() error) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- run() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: object storage %s does not answer", mount.ErrUnavailable, store)
	}
}

func trial(store object.ObjectStorage) error {
	const key, text = "testing/sidemount", "sidemount was here"
	if err := store.Put(key, strings.NewReader(text)); err != nil {
		if created := store.Create(); created != nil {
			return storageError(store, "write", err)
		}
		if err := store.Put(key, strings.NewReader(text)); err != nil {
			return storageError(store, "write", err)
		}
	}
	in, err := store.Get(key, 0, -1)
	if err != nil {
		return storageError(store, "read", err)
	}
	got, err := io.ReadAll(in)
	_ = in.Close()
	if err != nil || string(got) != text {
		return storageError(store, "read", fmt.Errorf("%d bytes came back, %d were written", len(got), len(text)))
	}
	// Lacking the right to delete is a choice that some make; it shows in the object store's own bills.
	_ = store.Delete(key)
	_ = store.Delete("testing/")
	return checkEmpty(store)
}

// checkEmpty refuses a place where another volume of the same name has left objects.
func checkEmpty(store object.ObjectStorage) error {
	objects, _, _, err := store.List("", "", "", "/", 100, true)
	if errors.Is(err, utils.ENOTSUP) {
		return checkEmptyAll(store)
	}
	if err != nil {
		return storageError(store, "list", err)
	}
	if slices.ContainsFunc(objects, foreign) {
		return occupied(store)
	}
	return nil
}

// checkEmptyAll is for stores without pages, Redis for one. The channel is read to its end: its sender has no other.
func checkEmptyAll(store object.ObjectStorage) error {
	objects, err := store.ListAll("", "", true)
	if errors.Is(err, utils.ENOTSUP) {
		return nil // it cannot tell
	}
	if err != nil {
		return storageError(store, "list", err)
	}
	found := false
	for o := range objects {
		found = found || o != nil && foreign(o)
	}
	if found {
		return occupied(store)
	}
	return nil
}

func foreign(o object.Object) bool { return o.Key() != "" && !strings.HasPrefix(o.Key(), "testing") }

func occupied(store object.ObjectStorage) error {
	return fmt.Errorf("%w: object storage %s already holds objects of a volume of this name", mount.ErrConfig, store)
}

// missing tells that the object is not there, or that this client may not know; everything else of the answer was in order.
func missing(err error) bool {
	text := err.Error()
	return errors.Is(err, os.ErrNotExist) || strings.Contains(text, "NoSuchKey") || strings.Contains(text, "StatusCode: 404, ") && !strings.Contains(text, "NoSuchBucket") ||
		strings.Contains(text, "AccessDenied") || strings.Contains(text, "Access Denied")
}

// storageError tells refused (somebody must act) from unreachable (retrying may help).
func storageError(store object.ObjectStorage, action string, err error) error {
	text := err.Error()
	for _, part := range []string{
		"AccessDenied", "Access Denied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "NoSuchBucket", "permission denied", "read-only file system", "Forbidden",
	} {
		if strings.Contains(text, part) {
			return fmt.Errorf("%w: object storage %s: %s: %s; see Secret keys \"bucket\", \"access-key\", \"secret-key\"",
				mount.ErrConfig, store, action, part)
		}
	}
	return fmt.Errorf("%w: object storage %s: %s: %w", mount.ErrUnavailable, store, action, err)
}
