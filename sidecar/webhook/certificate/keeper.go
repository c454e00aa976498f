package certificate

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
)

// Options of a Keeper.
type Options struct {
	// Client reads and writes the Secret, and the webhook's configuration. Required.
	Client kubernetes.Interface
	// Namespace and Secret name the Secret. It may be there and empty; it is made if it is not there, where Client may. Required.
	Namespace, Secret string
	// Configuration is the MutatingWebhookConfiguration that is told whom to trust; "" for none.
	Configuration string
	// Names are the DNS names and addresses of the certificate. Required.
	Names []string
	// Check is the pause between two looks at Secret and configuration. Default 30 s.
	Check time.Duration
	// Now is the clock. Default time.Now.
	Now func() time.Time
}

// Keeper keeps authority and certificate.
type Keeper struct {
	o Options

	mu      sync.Mutex // guards what follows
	serving *tls.Certificate
	ca      []byte
	err     error
}

// New checks the options.
func New(o Options) (*Keeper, error) {
	if o.Client == nil || o.Namespace == "" || o.Secret == "" || len(o.Names) == 0 {
		return nil, errors.New("the certificate needs a client, a Secret and names")
	}
	if o.Check == 0 {
		o.Check = 30 * time.Second
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Keeper{o: o, err: errors.New("the certificate has not been read yet")}, nil
}

// Run keeps Secret, certificate and configuration in order until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	ticker := time.NewTicker(k.o.Check)
	defer ticker.Stop()
	for {
		if err := k.Sync(ctx); err != nil && ctx.Err() == nil {
			log.G(ctx).WithError(err).Warn("webhook's certificate not in order, will retry")
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
	}
}

// Sync brings everything in order once.
func (k *Keeper) Sync(ctx context.Context) error {
	err := k.sync(ctx)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	return err
}

// Check tells whether the last Sync worked and a certificate is there.
func (k *Keeper) Check() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.serving == nil && k.err == nil {
		return errors.New("there is no certificate")
	}
	return k.err
}

// Certificate is for tls.Config.GetCertificate.
func (k *Keeper) Certificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.serving == nil {
		return nil, errors.New("there is no certificate yet")
	}
	return k.serving, nil
}

// CA returns the authorities in PEM, nil before the first Sync.
func (k *Keeper) CA() []byte {
	k.mu.Lock()
	defer k.mu.Unlock()
	return bytes.Clone(k.ca)
}

func (k *Keeper) sync(ctx context.Context) error {
	b, err := k.load(ctx)
	if err != nil {
		return err
	}
	c, err := tls.X509KeyPair(b[keyServe], b[keySecret])
	if err != nil {
		return fmt.Errorf("read the certificate: %w", err)
	}
	k.mu.Lock()
	k.serving, k.ca = &c, b[keyCA]
	k.mu.Unlock()
	return k.publish(ctx, b[keyCA])
}

// load returns a bundle that is in order, after writing it if it was not. When another replica writes at the same time, what it has
// written is read.
func (k *Keeper) load(ctx context.Context) (bundle, error) {
	const replicas = 5 // more than would ever write at once
	secrets := k.o.Client.CoreV1().Secrets(k.o.Namespace)
	for range replicas {
		s, err := secrets.Get(ctx, k.o.Secret, metav1.GetOptions{})
		absent := apierrors.IsNotFound(err)
		if err != nil && !absent {
			return nil, fmt.Errorf("read the certificate: %w", err)
		}
		if absent {
			s = &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Namespace: k.o.Namespace, Name: k.o.Secret}, Type: corev1.SecretTypeTLS}
		}
		b, changed, err := bundle(s.Data).renewed(k.o.Now(), k.o.Names)
		if err != nil || !changed {
			return b, err
		}
		s = s.DeepCopy()
		s.Data = b
		if absent {
			_, err = secrets.Create(ctx, s, metav1.CreateOptions{})
		} else {
			_, err = secrets.Update(ctx, s, metav1.UpdateOptions{})
		}
		if err == nil {
			log.G(ctx).WithField("secret", k.o.Secret).Info("certificate issued")
			return b, nil
		}
		if !apierrors.IsConflict(err) && !apierrors.IsAlreadyExists(err) {
			return nil, fmt.Errorf("write the certificate: %w", err)
		}
	}
	return nil, errors.New("write the certificate: others write it all the time")
}

// publish tells the API server whom to trust.
func (k *Keeper) publish(ctx context.Context, ca []byte) error {
	if k.o.Configuration == "" {
		return nil
	}
	configurations := k.o.Client.AdmissionregistrationV1().MutatingWebhookConfigurations()
	now, err := configurations.Get(ctx, k.o.Configuration, metav1.GetOptions{})
	if err != nil {
		return fmt.Errorf("read the webhook's configuration: %w", err)
	}
	type operation struct {
		Op    string `json:"op"`
		Path  string `json:"path"`
		Value any    `json:"value"`
	}
	// The version guards the indices.
	ops := []operation{{"test", "/metadata/resourceVersion", now.ResourceVersion}}
	for i, w := range now.Webhooks {
		if !bytes.Equal(w.ClientConfig.CABundle, ca) {
			ops = append(ops, operation{"add", fmt.Sprintf("/webhooks/%d/clientConfig/caBundle", i), ca})
		}
	}
	if len(ops) == 1 {
		return nil
	}
	patch, err := json.Marshal(ops)
	if err != nil {
		return fmt.Errorf("encode the authorities: %w", err)
	}
	if _, err := configurations.Patch(ctx, k.o.Configuration, types.JSONPatchType, patch, metav1.PatchOptions{}); err != nil {
		return fmt.Errorf("publish the authorities: %w", err)
	}
	log.G(ctx).WithField("configuration", k.o.Configuration).Info("authorities published")
	return nil
}
