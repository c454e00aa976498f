package engine

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/juicedata/juicefs/pkg/chunk"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/object"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/sidemount/sidemount/mount"
)

// Administration is a metadata client for commands on a file system as a whole, its root being the file system's own. It has
// no files, no session that others see, and leaves the periodic jobs of a file system to those who mount it.
type Administration struct {
	// Meta is the metadata client.
	Meta meta.Meta

	address Address
	blob    object.ObjectStorage // nil: the objects of what is removed are left to the clients
}

// Administer connects to a file system for commands. format lets it format one that is not there yet, as the first mount would; without
// it, and without the Secret's keys for that, such a file system is mount.ErrConfig. An object storage that does not answer is no
// error: what is removed then leaves its objects to the clients. It fails within about 10 s if the metadata engine does not answer.
func Administer(ctx context.Context, s *Spec, format bool) (a *Administration, err error) {
	own := *s
	own.ReadOnly = false
	conf := own.metaConfig(0)
	conf.Subdir, conf.MountPoint, conf.NoBGJob, conf.OpenCache = "", "sidemount-worker", true, 0
	client, setting, err := connect(ctx, &own, conf)
	if err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			_ = client.Shutdown()
		}
	}()
	if setting == nil && !format {
		return nil, fmt.Errorf("%w: metadata engine %s holds no file system yet; the first volume of a StorageClass makes it, or `juicefs format`",
			mount.ErrConfig, own.Address())
	}
	if setting, err = own.ensureOnce(ctx, client, setting); err != nil {
		return nil, err
	}
	a = &Administration{Meta: client, address: own.Address()}
	a.attachStorage(&own, *setting)
	if err := client.NewSession(false); err != nil {
		return nil, errors.Join(fmt.Errorf("open metadata session: %w", classify(a.address, err)), a.closeStorage())
	}
	return a, nil
}

// formatPause is how long one who was late waits for the other who formats.
const formatPause = 200 * time.Millisecond

// ensureOnce is ensure for several workers at once: one formats, and whoever finds its traces in the object storage waits for
// the metadata engine to have them as well.
func (s *Spec) ensureOnce(ctx context.Context, client meta.Meta, setting *meta.Format) (*meta.Format, error) {
	ctx, cancel := context.WithTimeout(ctx, connectTimeout)
	defer cancel()
	made := setting == nil
	setting, err := s.ensure(ctx, client, setting)
	if err == nil || !made {
		return setting, err
	}
	ticker := time.NewTicker(formatPause)
	defer ticker.Stop()
	for range 5 {
		if kept, loadErr := load(client); loadErr == nil && kept != nil {
			return s.ensure(ctx, client, kept)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, err
		}
	}
	return nil, err
}

// attachStorage lets removed data go from the object storage too, if its address is in order.
func (a *Administration) attachStorage(s *Spec, setting meta.Format) {
	effective, err := s.effective(setting)
	if err == nil {
		a.blob, err = newStorage(effective, s.Env["JFS_RSA_PASSPHRASE"])
	}
	if err != nil {
		logrus.WithError(err).Warn("object storage cannot be used; objects of removed volumes are left to the clients")
		a.Meta.OnMsg(meta.DeleteSlice, func(...any) error { return err })
		return
	}
	conf := s.chunkConfig(effective, Budget{Buffer: minBuffer})
	conf.CacheDir, conf.CacheSize, conf.Prefetch, conf.Writeback = "memory", 0, 0, false
	store := chunk.NewCachedStore(a.blob, *conf, prometheus.NewRegistry())
	a.Meta.OnMsg(meta.DeleteSlice, func(args ...any) error {
		return store.Remove(args[0].(uint64), int(args[1].(uint32)))
	})
	a.Meta.OnMsg(meta.CompactChunk, func(...any) error { return errors.ErrUnsupported })
}

// Reach tells within a few seconds whether the metadata engine's server can be connected to.
func (a *Administration) Reach(ctx context.Context) error { return reach(ctx, a.address) }

func (a *Administration) closeStorage() error {
	if a.blob != nil {
		object.Shutdown(a.blob)
	}
	return nil
}

// Close writes out what is counted and disconnects.
func (a *Administration) Close() error {
	return errors.Join(a.Meta.CloseSession(), a.closeStorage(), a.Meta.Shutdown())
}

// Subdir is the directory that the options confine the volume to, "" for the whole file system.
func (s *Spec) Subdir() string { return s.options.subdir }
