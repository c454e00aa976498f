package main

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	nodelisters "k8s.io/client-go/listers/node/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/sidemount/sidemount/provider/cri"
)

// listers follow the two kinds of objects that every node sees as a whole.
type listers struct {
	factory  informers.SharedInformerFactory
	synced   []cache.InformerSynced
	services corelisters.ServiceLister
	classes  nodelisters.RuntimeClassLister
}

func newListers(client kubernetes.Interface) *listers {
	factory := informers.NewSharedInformerFactory(client, 0)
	services, classes := factory.Core().V1().Services(), factory.Node().V1().RuntimeClasses()
	return &listers{
		factory:  factory,
		synced:   []cache.InformerSynced{services.Informer().HasSynced, classes.Informer().HasSynced},
		services: services.Lister(),
		classes:  classes.Lister(),
	}
}

// Run follows until ctx ends.
func (l *listers) Run(ctx context.Context) error {
	l.factory.StartWithContext(ctx)
	<-ctx.Done()
	l.factory.Shutdown()
	return nil
}

// Wait waits until everything has been listed once.
func (l *listers) Wait(ctx context.Context) error {
	if !cache.WaitForCacheSync(ctx.Done(), l.synced...) {
		return errors.New("services and runtime classes were not listed")
	}
	return nil
}

// runtimeHandler finds the handler of a RuntimeClass.
func (l *listers) runtimeHandler(_ context.Context, class string) (string, error) {
	object, err := l.classes.Get(class)
	if err != nil {
		return "", fmt.Errorf("get RuntimeClass %q: %w", class, err)
	}
	return object.Handler, nil
}

// recursiveReadOnly tells whether the handler of a pod can make mounts below a volume read-only too.
func (n *virtualNode) recursiveReadOnly(ctx context.Context) func(*corev1.Pod) bool {
	able := map[string]bool{}
	if status, err := n.runtime.Status(ctx); err == nil {
		able = recursiveHandlers(status)
	}
	return func(pod *corev1.Pod) bool {
		if pod.Spec.RuntimeClassName == nil {
			return able[""]
		}
		handler, err := n.listers.runtimeHandler(ctx, *pod.Spec.RuntimeClassName)
		return err == nil && able[handler]
	}
}

func recursiveHandlers(status cri.Status) map[string]bool {
	able := map[string]bool{}
	for _, h := range status.Handlers {
		able[h.Name] = h.RecursiveReadOnlyMounts
	}
	return able
}
