package node

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	vknode "github.com/virtual-kubelet/virtual-kubelet/node"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
)

// Options of a Node.
type Options struct {
	// Object describes the Node object. Required.
	Object Object
	// Host is the machine, see ReadHost. Required.
	Host Host
	// Client writes the Node, its lease and its CSINode. It should be a client of its own, so that a burst of pod statuses
	// cannot delay a heartbeat, and should have a timeout of less than the lease duration. Required.
	Client kubernetes.Interface
	// Health is the container runtime. Required.
	Health Health
	// Dir is the directory whose file system is watched for disk pressure. Required.
	Dir string
	// CSIDrivers are announced in the CSINode object, so that provisioners and the scheduler know that volumes of these
	// drivers can be used here. Default none; the CSINode object is made in any case.
	CSIDrivers []storagev1.CSINodeDriver
	// Thresholds for the pressure conditions. Default the kubelet's.
	Thresholds Thresholds
	// CheckInterval is the time between two rounds of checks. Default 10 s. A failing runtime is seen after at most this time.
	CheckInterval time.Duration
	// CheckTimeout bounds the runtime's answer to a check. Default 5 s.
	CheckTimeout time.Duration
	// StatusInterval is the time after which an unchanged status is sent again. Default 1 minute.
	StatusInterval time.Duration
	// LeaseDuration is how long the node counts as alive without a renewal; it is renewed every quarter of it. Default 40 s, the
	// kubelet's value. Whole seconds.
	LeaseDuration time.Duration
}

func (o *Options) applyDefaults() {
	o.CheckInterval = orDefault(o.CheckInterval, 10*time.Second)
	o.CheckTimeout = orDefault(o.CheckTimeout, 5*time.Second)
	o.StatusInterval = orDefault(o.StatusInterval, time.Minute)
	o.LeaseDuration = orDefault(o.LeaseDuration, 40*time.Second)
	o.Thresholds = o.Thresholds.withDefaults()
}

// Node keeps the Node object, its lease and its CSINode in the API.
type Node struct {
	options Options
	checker *checker
	// changed has a token when the object has changed, or when it has vanished from the API.
	changed chan struct{}
	// registered has the Node object each time that the API shows a new one.
	registered chan *corev1.Node
	ready      chan struct{}
	readyOnce  sync.Once

	// mu guards what follows.
	mu         sync.Mutex
	conditions []corev1.NodeCondition
	checked    time.Time
	notify     func(*corev1.Node)
}

var _ vknode.NodeProvider = (*Node)(nil)

// New checks the options; errors wrap ErrInvalid.
func New(o Options) (*Node, error) {
	if err := o.Object.Validate(); err != nil {
		return nil, err
	}
	if o.Client == nil || o.Health == nil || o.Dir == "" {
		return nil, fmt.Errorf("%w: node %s needs a client, a health check and a directory", ErrInvalid, o.Object.Name)
	}
	o.applyDefaults()
	return &Node{
		options: o,
		checker: &checker{
			root:       "/",
			dir:        o.Dir,
			health:     o.Health,
			timeout:    o.CheckTimeout,
			thresholds: o.Thresholds,
			held:       map[string]shortage{},
		},
		changed:    make(chan struct{}, 1),
		registered: make(chan *corev1.Node, 1),
		ready:      make(chan struct{}),
	}, nil
}

// Run registers the node and keeps it alive until ctx ends; it returns nil then. It leaves the Node object as it is: pods go
// on, and the node becomes NotReady only when its lease runs out before a successor renews it.
func (n *Node) Run(ctx context.Context) error {
	n.recall(ctx)
	n.check(ctx)
	var group wait.Group
	group.StartWithContext(ctx, n.checkLoop)
	group.StartWithContext(ctx, n.watch)
	group.StartWithContext(ctx, n.keepCSINode)
	defer group.Wait()

	backoff := wait.Backoff{Duration: time.Second, Factor: 2, Jitter: 0.2, Steps: 6, Cap: 30 * time.Second}
	delay := backoff
	for ctx.Err() == nil {
		served, err := n.serve(ctx)
		if served {
			delay = backoff
		}
		if ctx.Err() != nil {
			break
		}
		pause := delay.Step()
		log.G(ctx).WithError(err).WithField("node", n.options.Object.Name).WithField("retry", pause).Error("cannot keep the node registered")
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
	return nil
}

// recall takes over the conditions of the process before this one, so that a restart is no transition. It is worth one attempt:
// times are for people.
func (n *Node) recall(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, n.options.CheckTimeout)
	defer cancel()
	object, err := n.options.Client.CoreV1().Nodes().Get(ctx, n.options.Object.Name, metav1.GetOptions{})
	if err != nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.conditions = object.Status.Conditions
}

// serve runs virtual-kubelet's controller once. served tells that the node was registered.
//
// The controller takes changes from a channel that nobody drains once it has ended, so its context outlives ours until the
// feeding has stopped; and it is fed only when it is ready, because an unregistered controller may end at any time.
func (n *Node) serve(ctx context.Context) (served bool, err error) {
	controller, err := n.controller()
	if err != nil {
		return false, err
	}
	controlled, stop := context.WithCancel(context.WithoutCancel(ctx))
	defer stop()
	done := make(chan error, 1)
	go func() { done <- controller.Run(controlled) }()

	select {
	case err := <-done:
		return false, err
	case <-ctx.Done():
		stop()
		return false, <-done
	case <-controller.Ready():
	}
	n.readyOnce.Do(func() { close(n.ready) })
	n.feed(ctx)
	stop()
	return true, <-done
}

func (n *Node) controller() (*vknode.NodeController, error) {
	o := n.options
	seconds := int32(o.LeaseDuration / time.Second)
	return vknode.NewNodeController(n, n.Object(), o.Client.CoreV1().Nodes(),
		vknode.WithNodeEnableLeaseV1WithRenewInterval(o.Client.CoordinationV1().Leases(corev1.NamespaceNodeLease), seconds, o.LeaseDuration/4),
		vknode.WithNodePingInterval(o.CheckInterval),
		vknode.WithNodePingTimeout(o.CheckTimeout),
		vknode.WithNodeStatusUpdateInterval(o.StatusInterval),
		vknode.WithNodeStatusUpdateErrorHandler(n.recreate),
	)
}

// feed hands each change to the controller until ctx ends.
func (n *Node) feed(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-n.changed:
			n.mu.Lock()
			notify := n.notify
			n.mu.Unlock()
			notify(n.Object())
		}
	}
}

// recreate registers the node again after somebody has deleted it: virtual-kubelet's controller would only repeat
// "not found" for ever.
func (n *Node) recreate(ctx context.Context, err error) error {
	if !apierrors.IsNotFound(err) {
		return err
	}
	log.G(ctx).WithField("node", n.options.Object.Name).Warn("node was deleted from the api, registering it again")
	_, err = n.options.Client.CoreV1().Nodes().Create(ctx, n.Object(), metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// checkLoop repeats the checks until ctx ends.
func (n *Node) checkLoop(ctx context.Context) {
	ticker := time.NewTicker(n.options.CheckInterval)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
			n.check(ctx)
		}
	}
}

func (n *Node) check(ctx context.Context) {
	facts := n.checker.facts(ctx, time.Now())
	if ctx.Err() != nil {
		return // the process ends; what was found out is due to that
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.checked = time.Now()
	conditions := ConditionsOf(n.conditions, facts, n.checked)
	if sameConditions(n.conditions, conditions) {
		return
	}
	n.conditions = conditions
	n.poke()
}

func (n *Node) poke() {
	select {
	case n.changed <- struct{}{}:
	default: // a token is waiting already
	}
}

// Object returns the Node object as it should be now.
func (n *Node) Object() *corev1.Node {
	n.mu.Lock()
	defer n.mu.Unlock()
	conditions := make([]corev1.NodeCondition, len(n.conditions))
	copy(conditions, n.conditions)
	return Build(n.options.Object, n.options.Host, conditions)
}

// Ready is closed when the node has been registered for the first time.
func (n *Node) Ready() <-chan struct{} { return n.ready }

// Ping implements virtual-kubelet's NodeProvider. A runtime that is down is reported in the Ready condition, with its words;
// Ping fails, and with it the lease, only when the checks themselves no longer end, for then the conditions are not to be
// believed.
func (n *Node) Ping(context.Context) error {
	n.mu.Lock()
	defer n.mu.Unlock()
	if age := time.Since(n.checked); age > 3*n.options.CheckInterval+n.options.CheckTimeout {
		return fmt.Errorf("%w: the last one ended %s ago", ErrStale, age.Round(time.Second))
	}
	return nil
}

// NotifyNodeStatus implements virtual-kubelet's NodeProvider.
func (n *Node) NotifyNodeStatus(_ context.Context, notify func(*corev1.Node)) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notify = notify
}
