package provider_test

import (
	"fmt"
	"slices"
	"sync"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// eventLog keeps the events that were recorded.
type eventLog struct {
	mu     sync.Mutex
	events []string
}

func (l *eventLog) Event(object runtime.Object, kind, reason, message string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	name := ""
	if ref, ok := object.(*corev1.ObjectReference); ok {
		name = ref.Name
	}
	l.events = append(l.events, fmt.Sprintf("%s %s %s %s", name, kind, reason, message))
}

func (l *eventLog) Eventf(object runtime.Object, kind, reason, format string, args ...any) {
	l.Event(object, kind, reason, fmt.Sprintf(format, args...))
}

func (l *eventLog) AnnotatedEventf(object runtime.Object, _ map[string]string, kind, reason, format string, args ...any) {
	l.Eventf(object, kind, reason, format, args...)
}

// All returns the events in order, as "pod type reason message".
func (l *eventLog) All() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.events)
}
