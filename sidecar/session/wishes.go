package session

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
)

// watchWishes looks for PersistentVolumes whose annotations ask for another client than the one that serves. A node may get single volumes and watch none, so it
// asks from time to time.
func (k *Keeper) watchWishes(ctx context.Context) {
	for {
		pause := time.NewTimer(k.options.Poll*3/4 + rand.N(k.options.Poll/2+1))
		select {
		case <-ctx.Done():
			pause.Stop()
			return
		case <-pause.C:
		}
		for _, pod := range k.pods() {
			k.compareWishes(ctx, pod)
		}
	}
}

// compareWishes has a pod prepared anew if one of its volumes is to get another client.
func (k *Keeper) compareWishes(ctx context.Context, pod *corev1.Pod) {
	limited, cancel := context.WithTimeout(ctx, mendTimeout)
	defer cancel()
	mounts, err := k.options.Resolver.Resolve(limited, pod)
	if err != nil {
		log.G(ctx).WithError(err).WithField("pod", pod.Name).WithField("namespace", pod.Namespace).Debug("volumes of a running pod not compared")
		return
	}
	known, err := k.memory.read(pod.UID)
	if err != nil {
		return
	}
	for _, m := range mounts {
		p := find(known, m.Volume.Name)
		if p != nil && p.Next == nil && k.wanted(pod, m, *p) {
			k.options.Again(pod.UID)
			return
		}
	}
}

// pods returns those that have sessions.
func (k *Keeper) pods() []*corev1.Pod {
	k.mu.Lock()
	defer k.mu.Unlock()
	seen := map[types.UID]bool{}
	var pods []*corev1.Pod
	for _, h := range k.held {
		if !seen[h.pod.UID] {
			seen[h.pod.UID] = true
			pods = append(pods, h.pod)
		}
	}
	return pods
}
