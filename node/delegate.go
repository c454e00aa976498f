package node

import (
	"context"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
	"k8s.io/client-go/kubernetes"
)

// DelegatedAuth asks the API server who a caller is and what it may do.
type DelegatedAuth struct {
	Auth
	ca *dynamiccertificates.DynamicFileCAContent
}

// Delegate makes the kubelet's usual authentication and authorization: client certificates of the authorities in
// clientCAFile (PEM; empty means that no client certificate is accepted), bearer tokens by TokenReview, everything else by
// SubjectAccessReview. Answers are cached as long as the kubelet's defaults say: tokens 2 min, allowed 5 min, denied 30 s.
func Delegate(client kubernetes.Interface, clientCAFile string) (*DelegatedAuth, error) {
	d := &DelegatedAuth{}
	if clientCAFile != "" {
		ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", clientCAFile)
		if err != nil {
			return nil, fmt.Errorf("read client certificate authorities: %w", err)
		}
		d.ca, d.ClientCA = ca, ca
	}
	backoff := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Jitter: 0.2, Steps: 5}
	authn := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient:  client.AuthenticationV1(),
		TokenAccessReviewTimeout: 10 * time.Second,
		WebhookRetryBackoff:      &backoff,
		CacheTTL:                 2 * time.Minute,
		// The field is an interface: a nil pointer in it would not be nil.
		ClientCertificateCAContentProvider: d.ClientCA,
	}
	var err error
	if d.Authenticator, _, err = authn.New(); err != nil {
		return nil, fmt.Errorf("build the authenticator: %w", err)
	}
	authz := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: client.AuthorizationV1(),
		AllowCacheTTL:             5 * time.Minute,
		DenyCacheTTL:              30 * time.Second,
		WebhookRetryBackoff:       &backoff,
	}
	if d.Authorizer, err = authz.New(); err != nil {
		return nil, fmt.Errorf("build the authorizer: %w", err)
	}
	return d, nil
}

// Run follows changes of the file of authorities until ctx ends.
func (d *DelegatedAuth) Run(ctx context.Context) error {
	if d.ca == nil {
		<-ctx.Done()
		return nil
	}
	d.ca.Run(ctx, 1)
	return nil
}
