package engine

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/juicedata/juicefs/pkg/meta"
	"github.com/juicedata/juicefs/pkg/object"

	"github.com/sidemount/sidemount/mount"
)

// effective is the setting as this client uses it: the Secret's keys and the mount options win for credentials; where the
// objects are is decided by the setting, because another place would lose them, unless a mount option says otherwise.
func (s *Spec) effective(setting meta.Format) (meta.Format, error) {
	own := s.AccessKey != "" && s.SecretKey != ""
	if err := setting.Decrypt(); err != nil && (!own || setting.EncryptKey != "") {
		return setting, fmt.Errorf("%w: the volume's stored keys cannot be read: %w", mount.ErrConfig, err)
	}
	override(&setting.Storage, s.options.storage)
	override(&setting.Bucket, s.options.bucket)
	override(&setting.StorageClass, s.options.storageClass)
	if own {
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

// overlooked are the Secret's keys about the place of the objects that differ from the setting and have no effect. JuiceFS's own CSI driver
// formats at every mount, and so brings them into the setting.
func (s *Spec) overlooked(setting meta.Format) (keys []string) {
	if s.Storage != "" && s.options.storage == "" && !strings.EqualFold(s.Storage, setting.Storage) {
		keys = append(keys, "storage")
	}
	if s.Bucket != "" && s.options.bucket == "" && strings.TrimRight(s.Bucket, "/") != strings.TrimRight(setting.Bucket, "/") {
		keys = append(keys, "bucket")
	}
	return keys
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
