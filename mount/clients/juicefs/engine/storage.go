package engine

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/object"

	"github.com/sidemount/sidemount/mount"
)

// storageTimeout bounds the trial of an object store before the first format.
const storageTimeout = 20 * time.Second

// effective is the setting as this client uses it: the Secret's keys and the mount options win for credentials; where the
// objects are is decided by the setting, because another place would lose them, unless a mount option says otherwise.
func (s *Spec) effective(setting meta.Format) (meta.Format, error) {
	if err := setting.Decrypt(); err != nil {
		return setting, fmt.Errorf("%w: the volume's stored keys cannot be read: %w", mount.ErrConfig, err)
	}
	override(&setting.Storage, s.options.storage)
	override(&setting.Bucket, s.options.bucket)
	override(&setting.StorageClass, s.options.storageClass)
	if s.AccessKey != "" && s.SecretKey != "" {
		setting.AccessKey, setting.SecretKey, setting.SessionToken = s.AccessKey, s.SecretKey, s.SessionToken
	}
	if s.options.uploadLimit > 0 {
		setting.UploadLimit = s.options.uploadLimit
	}
	if s.options.downloadLimit > 0 {
		setting.DownloadLimit = s.options.downloadLimit
	}
	return setting, nil
}

func override(field *string, value string) {
	if value != "" {
		*field = value
	}
}

// newStorage builds the object storage that a setting describes. It asks nobody.
func newStorage(f meta.Format, passphrase string) (object.ObjectStorage, error) {
	kind := strings.ToLower(f.Storage)
	bucket, err := applyTLS(f.Bucket)
	if err != nil {
		return nil, err
	}
	var store object.ObjectStorage
	if f.Shards > 1 {
		store, err = object.NewSharded(kind, bucket, f.AccessKey, f.SecretKey, f.SessionToken, f.Shards)
	} else {
		store, err = object.CreateStorage(kind, bucket, f.AccessKey, f.SecretKey, f.SessionToken)
	}
	if err != nil {
		return nil, fmt.Errorf("%w: object storage %q: %w", mount.ErrConfig, kind, err)
	}
	store = object.WithPrefix(store, f.Name+"/")
	if class, ok := store.(object.SupportStorageClass); ok && f.StorageClass != "" {
		if err := class.SetStorageClass(f.StorageClass); err != nil {
			return nil, fmt.Errorf("%w: storage class %q: %w", mount.ErrConfig, f.StorageClass, err)
		}
	}
	if f.EncryptKey == "" {
		return store, nil
	}
	key, err := object.ParseRsaPrivateKeyFromPem([]byte(f.EncryptKey), []byte(passphrase))
	if err != nil {
		return nil, fmt.Errorf("%w: the volume's encryption key cannot be opened; Secret key \"envs\" must give JFS_RSA_PASSPHRASE: %w",
			mount.ErrConfig, err)
	}
	encryptor, err := object.NewDataEncryptor(object.NewRSAEncryptor(key), f.EncryptAlgo)
	if err != nil {
		return nil, fmt.Errorf("%w: encryption algorithm: %w", mount.ErrConfig, err)
	}
	return object.NewEncrypted(store, encryptor), nil
}

// applyTLS takes the TLS settings that JuiceFS allows in a bucket's query (tls-insecure-skip-verify; ca-certs, ssl-cert and
// ssl-key together) and returns the bucket without the first. They hold for the process's one HTTP client.
func applyTLS(bucket string) (string, error) {
	u, err := url.Parse(bucket)
	if err != nil || u.RawQuery == "" {
		return bucket, nil
	}
	values := u.Query()
	transport, ok := object.GetHttpClient().Transport.(*http.Transport)
	if !ok {
		return bucket, nil
	}
	if transport.TLSClientConfig == nil {
		transport.TLSClientConfig = &tls.Config{MinVersion: tls.VersionTLS12}
	}
	if skip := values.Get("tls-insecure-skip-verify"); skip != "" {
		v, err := strconv.ParseBool(skip)
		if err != nil {
			return "", fmt.Errorf("%w: bucket: tls-insecure-skip-verify is %q", mount.ErrConfig, skip)
		}
		transport.TLSClientConfig.InsecureSkipVerify = v
		values.Del("tls-insecure-skip-verify")
		u.RawQuery = values.Encode()
		bucket = u.String()
	}
	ca, cert, key := values.Get("ca-certs"), values.Get("ssl-cert"), values.Get("ssl-key")
	if ca == "" || cert == "" || key == "" {
		return bucket, nil
	}
	pair, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		return "", fmt.Errorf("%w: bucket: client certificate: %w", mount.ErrConfig, err)
	}
	roots, err := os.ReadFile(ca)
	if err != nil {
		return "", fmt.Errorf("%w: bucket: certificate authority: %w", mount.ErrConfig, err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(roots) {
		return "", fmt.Errorf("%w: bucket: %s holds no certificate", mount.ErrConfig, ca)
	}
	transport.TLSClientConfig.RootCAs = pool
	transport.TLSClientConfig.Certificates = []tls.Certificate{pair}
	return bucket, nil
}

// checkEncryptKey tells early whether a key can be used for a new volume.
func checkEncryptKey(key, passphrase string) error {
	if key == "" {
		return nil
	}
	if block, _ := pem.Decode([]byte(key)); block == nil {
		return fmt.Errorf("%w: Secret key \"encrypt_rsa_key\" is not PEM", mount.ErrConfig)
	}
	if _, err := object.ParseRsaPrivateKeyFromPem([]byte(key), []byte(passphrase)); err != nil {
		return fmt.Errorf("%w: Secret key \"encrypt_rsa_key\" cannot be opened; an encrypted key needs JFS_RSA_PASSPHRASE in \"envs\": %w",
			mount.ErrConfig, err)
	}
	return nil
}

// tryStorage writes, reads and deletes a small object, creating the bucket if need be, and makes sure that nothing of the
// volume's name is there yet.
func tryStorage(ctx context.Context, store object.ObjectStorage) error {
	ctx, cancel := context.WithTimeout(ctx, storageTimeout)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- trial(store) }()
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
	if err != nil {
		return storageError(store, "list", err)
	}
	for _, o := range objects {
		if k := o.Key(); k != "" && !strings.HasPrefix(k, "testing") {
			return fmt.Errorf("%w: object storage %s already holds objects of a volume of this name", mount.ErrConfig, store)
		}
	}
	return nil
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

// localBucket makes the path of a storage on the file system what JuiceFS wants: absolute, ending with a slash.
func localBucket(storage, bucket string) (string, error) {
	if storage != "file" {
		return bucket, nil
	}
	if !filepath.IsAbs(bucket) {
		return "", fmt.Errorf("%w: Secret key \"bucket\" must be an absolute path for storage \"file\"", mount.ErrConfig)
	}
	return filepath.Clean(bucket) + "/", nil
}

// storage is an object storage whose credentials may be replaced while it is in use.
type storage struct {
	current atomic.Pointer[object.ObjectStorage]
}

var _ object.ObjectStorage = (*storage)(nil)

func newReplaceable(s object.ObjectStorage) *storage {
	r := &storage{}
	r.current.Store(&s)
	return r
}

func (s *storage) now() object.ObjectStorage         { return *s.current.Load() }
func (s *storage) replace(with object.ObjectStorage) { s.current.Store(&with) }

// Shutdown implements object.Shutdownable.
func (s *storage) Shutdown() { object.Shutdown(s.now()) }

func (s *storage) String() string        { return s.now().String() }
func (s *storage) Limits() object.Limits { return s.now().Limits() }
func (s *storage) Create() error         { return s.now().Create() }

func (s *storage) Get(key string, off, limit int64, g ...object.AttrGetter) (io.ReadCloser, error) {
	return s.now().Get(key, off, limit, g...)
}

func (s *storage) Put(key string, in io.Reader, g ...object.AttrGetter) error {
	return s.now().Put(key, in, g...)
}

func (s *storage) Copy(dst, src string) error { return s.now().Copy(dst, src) }

func (s *storage) Delete(key string, g ...object.AttrGetter) error { return s.now().Delete(key, g...) }

func (s *storage) Head(key string) (object.Object, error) { return s.now().Head(key) }

func (s *storage) List(prefix, after, token, delimiter string, limit int64, follow bool) ([]object.Object, bool, string, error) {
	return s.now().List(prefix, after, token, delimiter, limit, follow)
}

func (s *storage) ListAll(prefix, marker string, follow bool) (<-chan object.Object, error) {
	return s.now().ListAll(prefix, marker, follow)
}

func (s *storage) CreateMultipartUpload(key string) (*object.MultipartUpload, error) {
	return s.now().CreateMultipartUpload(key)
}

func (s *storage) UploadPart(key, id string, num int, body []byte) (*object.Part, error) {
	return s.now().UploadPart(key, id, num, body)
}

func (s *storage) UploadPartCopy(key, id string, num int, src string, off, size int64) (*object.Part, error) {
	return s.now().UploadPartCopy(key, id, num, src, off, size)
}

func (s *storage) AbortUpload(key, id string) { s.now().AbortUpload(key, id) }

func (s *storage) CompleteUpload(key, id string, parts []*object.Part) error {
	return s.now().CompleteUpload(key, id, parts)
}

func (s *storage) ListUploads(marker string) ([]*object.PendingPart, string, error) {
	return s.now().ListUploads(marker)
}
