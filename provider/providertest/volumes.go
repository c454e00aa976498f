package providertest

import (
	"context"
	"maps"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/provider"
)

var _ provider.Volumes = (*Volumes)(nil)

// Volumes keeps a record of whose volumes are set up.
type Volumes struct {
	// mu guards the fields below.
	mu    sync.Mutex
	setUp map[types.UID]int
	fail  error
}

// NewVolumes returns volumes of no pod.
func NewVolumes() *Volumes { return &Volumes{setUp: make(map[types.UID]int)} }

// Fail makes SetUp and TearDown fail with err until it is called with nil.
func (v *Volumes) Fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.fail = err
}

// SetUp implements provider.Volumes.
func (v *Volumes) SetUp(_ context.Context, pod *corev1.Pod) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail == nil {
		v.setUp[pod.UID]++
	}
	return v.fail
}

// Unbind implements provider.Volumes.
func (v *Volumes) Unbind(context.Context, types.UID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.fail
}

// TearDown implements provider.Volumes.
func (v *Volumes) TearDown(_ context.Context, uid types.UID) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fail == nil {
		delete(v.setUp, uid)
	}
	return v.fail
}

// Holders implements provider.Volumes.
func (v *Volumes) Holders(context.Context) ([]types.UID, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Collect(maps.Keys(v.setUp)), nil
}

// Count returns how many pods have volumes.
func (v *Volumes) Count() int {
	v.mu.Lock()
	defer v.mu.Unlock()
	return len(v.setUp)
}
