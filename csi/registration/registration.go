package registration

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/sirupsen/logrus"
	"google.golang.org/grpc"
	api "k8s.io/kubelet/pkg/apis/pluginregistration/v1"

	"github.com/sidemount/sidemount/csi/endpoint"
)

// grace is how long a question of the kubelet may take when the registration ends.
const grace = time.Second

// Options configure a Registration.
type Options struct {
	// Directory is the kubelet's directory of plugins, <kubelet>/plugins_registry. Required.
	Directory string
	// Driver is the driver's name. Required.
	Driver string
	// Endpoint is the path of the driver's own socket as the kubelet sees it. Required.
	Endpoint string
	// Log receives what the kubelet says. Default: the standard logger.
	Log logrus.FieldLogger
}

// Registration answers the kubelet.
type Registration struct {
	options Options
	socket  string

	mu     sync.Mutex // guards answer
	answer error
}

var errNotAsked = errors.New("the kubelet has not registered the driver yet")

// New checks the options.
func New(o Options) (*Registration, error) {
	if !filepath.IsAbs(o.Directory) || !filepath.IsAbs(o.Endpoint) {
		return nil, fmt.Errorf("directory %q and endpoint %q of the registration must be absolute paths", o.Directory, o.Endpoint)
	}
	if o.Driver == "" {
		return nil, errors.New("registration needs the driver's name")
	}
	if o.Log == nil {
		o.Log = logrus.StandardLogger()
	}
	// The name is that of node-driver-registrar, so that a driver that is installed twice meets itself here.
	return &Registration{options: o, socket: filepath.Join(o.Directory, o.Driver+"-reg.sock"), answer: errNotAsked}, nil
}

// Check returns nil when the kubelet has registered the driver, else why not.
func (r *Registration) Check(context.Context) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.answer
}

// Run serves until ctx ends. The error is endpoint.ErrInUse if another driver of this name is there.
func (r *Registration) Run(ctx context.Context) error {
	for ctx.Err() == nil {
		if err := r.serve(ctx); err != nil {
			return fmt.Errorf("register driver %s at %s: %w", r.options.Driver, r.socket, err)
		}
	}
	return nil
}

// serve serves until the socket is gone or ctx ends.
func (r *Registration) serve(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	listener, err := endpoint.Listen(ctx, r.socket)
	if err != nil {
		return err
	}
	watched := make(chan error, 1)
	go func() {
		defer cancel()
		watched <- whilePresent(ctx, r.socket)
	}()
	server := grpc.NewServer()
	api.RegisterRegistrationServer(server, answers{r: r})
	err = endpoint.Serve(ctx, server, listener, grace)
	cancel()
	return errors.Join(err, <-watched)
}

// record keeps the kubelet's answer and logs it when it is new: the kubelet repeats a refusal every second.
func (r *Registration) record(answer error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	known := r.answer != nil && answer != nil && r.answer.Error() == answer.Error()
	r.answer = answer
	log := r.options.Log.WithField("driver", r.options.Driver)
	switch {
	case answer == nil:
		log.Info("driver registered with the kubelet")
	case !known:
		log.WithError(answer).Error("driver not registered")
	}
}

// answers is what the kubelet asks.
type answers struct {
	api.UnimplementedRegistrationServer
	r *Registration
}

// GetInfo tells the driver's name and where it is.
func (a answers) GetInfo(context.Context, *api.InfoRequest) (*api.PluginInfo, error) {
	return &api.PluginInfo{
		Type: api.CSIPlugin, Name: a.r.options.Driver, Endpoint: a.r.options.Endpoint,
		// The kubelet compares this with the versions of the CSI specification that it speaks.
		SupportedVersions: []string{"1.0.0"},
	}, nil
}

// NotifyRegistrationStatus takes the kubelet's verdict. A refusal is not final: the kubelet asks again.
func (a answers) NotifyRegistrationStatus(_ context.Context, s *api.RegistrationStatus) (*api.RegistrationStatusResponse, error) {
	var answer error
	if !s.GetPluginRegistered() {
		answer = fmt.Errorf("the kubelet refuses driver %s: %s", a.r.options.Driver, s.GetError())
	}
	a.r.record(answer)
	return &api.RegistrationStatusResponse{}, nil
}
