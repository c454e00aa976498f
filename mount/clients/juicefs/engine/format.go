package engine

import (
	"context"
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"github.com/google/uuid"
	"github.com/juicedata/juicefs/pkg/compress"
	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/object"

	"github.com/sidemount/sidemount/mount"
)

// validName is JuiceFS's own rule for a file system's name.
var validName = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{1,61}[a-z0-9]$`)

// formatOptions describe a volume that is still to be formatted, with JuiceFS's defaults.
type formatOptions struct {
	blockSize    int    // KiB, a power of two from 64 to 16384. Default 4096
	compression  string // none, lz4 or zstd. Default none
	trashDays    int    // Default 1
	capacity     uint64 // bytes; default 0, no limit
	inodes       uint64 // default 0, no limit
	shards       int
	hashPrefix   bool
	enableACL    bool
	encryptAlgo  string
	storageClass string
}

// Format formats the volume if its metadata engine holds none, and does nothing otherwise.
func Format(ctx context.Context, s *Spec) error {
	client, setting, err := connect(ctx, s, s.metaConfig(0))
	if err != nil {
		return err
	}
	defer func() { _ = client.Shutdown() }()
	_, err = s.ensure(ctx, client, setting)
	return err
}

// ensure returns the setting of a volume that is there, or formats it.
func (s *Spec) ensure(ctx context.Context, client meta.Meta, setting *meta.Format) (*meta.Format, error) {
	if setting == nil {
		return s.create(ctx, client)
	}
	if setting.Name != s.Name {
		return nil, fmt.Errorf("%w: metadata engine %s holds the file system %q, but Secret key \"name\" is %q",
			mount.ErrConfig, s.Address(), setting.Name, s.Name)
	}
	return setting, nil
}

// create formats: the object storage is tried first, so that a volume which cannot store anything never comes to be.
func (s *Spec) create(ctx context.Context, client meta.Meta) (*meta.Format, error) {
	if s.Storage == "" || s.Bucket == "" {
		return nil, fmt.Errorf("%w: metadata engine %s holds no file system, and the Secret lacks \"storage\" and \"bucket\" to format one",
			mount.ErrConfig, s.Address())
	}
	if s.ReadOnly {
		return nil, fmt.Errorf("%w: metadata engine %s holds no file system, and a read-only mount does not format one",
			mount.ErrConfig, s.Address())
	}
	passphrase := s.Env["JFS_RSA_PASSPHRASE"]
	if err := checkEncryptKey(s.EncryptKey, passphrase); err != nil {
		return nil, err
	}
	setting, err := s.newSetting()
	if err != nil {
		return nil, err
	}
	store, err := newStorage(*setting, passphrase)
	if err != nil {
		return nil, err
	}
	defer object.Shutdown(store)
	if err := tryStorage(ctx, store); err != nil {
		return nil, err
	}
	return s.store(client, store, setting)
}

// store writes the setting into the metadata engine. Two clients may come here at once: the engine keeps one setting, and both
// go on with what it kept.
func (s *Spec) store(client meta.Meta, store object.ObjectStorage, setting *meta.Format) (*meta.Format, error) {
	if err := store.Put("juicefs_uuid", strings.NewReader(setting.UUID)); err != nil {
		return nil, storageError(store, "write", err)
	}
	if err := setting.Encrypt(); err != nil {
		return nil, fmt.Errorf("encrypt the volume's keys: %w", err)
	}
	failed := client.Init(setting, false)
	kept, err := load(client)
	if err == nil && kept != nil && kept.Name == s.Name {
		return kept, nil
	}
	if failed != nil {
		_ = store.Delete("juicefs_uuid")
		return nil, fmt.Errorf("format: %w", classify(s.Address(), failed))
	}
	if err != nil {
		return nil, classify(s.Address(), err)
	}
	return nil, fmt.Errorf("format: metadata engine %s did not keep the setting", s.Address())
}

func (s *Spec) newSetting() (*meta.Format, error) {
	bucket, err := localBucket(s.Storage, s.Bucket)
	if err != nil {
		return nil, err
	}
	f := &meta.Format{
		Name: s.Name, UUID: uuid.NewString(), Storage: s.Storage, Bucket: bucket, StorageClass: s.format.storageClass,
		AccessKey: s.AccessKey, SecretKey: s.SecretKey, SessionToken: s.SessionToken,
		EncryptKey: s.EncryptKey, EncryptAlgo: s.format.encryptAlgo,
		Shards: s.format.shards, HashPrefix: s.format.hashPrefix, Capacity: s.format.capacity, Inodes: s.format.inodes,
		BlockSize: s.format.blockSize, Compression: s.format.compression, TrashDays: s.format.trashDays,
		DirStats: true, MetaVersion: meta.MaxVersion, MinClientVersion: "1.1.0-A", EnableACL: s.format.enableACL,
	}
	if f.EnableACL {
		f.MinClientVersion = "1.2.0-A"
	}
	return f, nil
}

// parseFormat reads the Secret's keys for formatting. "format-options" ("a=b,c") wins over the keys of their own.
func parseFormat(s *Spec, secret mount.Secret) (formatOptions, error) {
	f := formatOptions{blockSize: 4096, compression: "none", trashDays: 1, encryptAlgo: object.AES256GCM_RSA}
	values := make(map[string]string)
	for _, key := range secretKeys {
		if v, ok := secret[key]; ok && v != "" {
			values[key] = v
		}
	}
	for _, item := range strings.Split(secret["format-options"], ",") {
		key, value, _ := strings.Cut(strings.TrimSpace(item), "=")
		if key != "" {
			values[key] = value
		}
	}
	for key, value := range values {
		if err := f.set(s, key, value); err != nil {
			return f, fmt.Errorf("%w: Secret key %q (or its format option): %w", mount.ErrConfig, key, err)
		}
	}
	return f, nil
}

func (f *formatOptions) set(s *Spec, key, value string) (err error) {
	switch key {
	case "storage":
		s.Storage = value
	case "bucket":
		s.Bucket = value
	case "access-key":
		s.AccessKey = value
	case "secret-key":
		s.SecretKey = value
	case "session-token":
		s.SessionToken = value
	case "storage-class":
		f.storageClass = value
	case "encrypt-algo":
		f.encryptAlgo = value
	case "block-size":
		f.blockSize, err = parseBlockSize(value)
	case "compress":
		if f.compression = value; compress.NewCompressor(value) == nil {
			err = fmt.Errorf("%q is none of none, lz4, zstd", value)
		}
	case "trash-days":
		f.trashDays, err = parseCount(value, 1<<20)
	case "shards":
		f.shards, err = parseCount(value, 256)
	case "inodes":
		f.inodes, err = strconv.ParseUint(value, 10, 63)
	case "capacity":
		f.capacity, err = parseSize(value, 'G')
	case "hash-prefix":
		f.hashPrefix, err = parseFlag(value)
	case "enable-acl":
		f.enableACL, err = parseFlag(value)
	}
	return err
}

func parseFlag(value string) (bool, error) {
	if value == "" {
		return true, nil
	}
	return strconv.ParseBool(value)
}

func parseCount(value string, limit int) (int, error) {
	n, err := strconv.Atoi(value)
	if err != nil || n < 0 || n > limit {
		return 0, fmt.Errorf("%q is not a number from 0 to %d", value, limit)
	}
	return n, nil
}

// parseBlockSize reads a size in KiB and rounds it down to a power of two within JuiceFS's limits, as JuiceFS does.
func parseBlockSize(value string) (int, error) {
	n, err := parseSize(value, 'K')
	if err != nil {
		return 0, err
	}
	kib := 64
	for kib*2 <= int(n>>10) && kib < 16<<10 {
		kib *= 2
	}
	return kib, nil
}
