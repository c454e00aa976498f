package session

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/virtual-kubelet/virtual-kubelet/log"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sidemount/sidemount/mount"
	"github.com/sidemount/sidemount/mount/broker"
	"github.com/sidemount/sidemount/sidecar"
)

// UpgradeAnnotation on a pod asks for new clients of its volumes, made from what PersistentVolumes, Secrets and the node say now. Its value is any word that it has not
// had before; "VOLUME/WORD" is about one volume. It chooses no image: whoever may change a pod may not thereby choose what code gets a volume's Secret.
const UpgradeAnnotation = "sidemount.io/client-upgrade"

// Reasons of the events about an upgrade.
const (
	ReasonUpgraded      = "ClientUpgraded"
	ReasonUpgradeFailed = "ClientUpgradeFailed"
)

// outcome is what became of an upgrade.
type outcome struct {
	// Asked is the annotation that has asked for it, "" if a PersistentVolume has.
	Asked string `json:"asked,omitempty"`
	// Failed: the client before serves on.
	Failed bool `json:"failed,omitempty"`
	// Message is for people and names the volume.
	Message string    `json:"message"`
	At      time.Time `json:"at"`
}

// parallelUpgrades is how many clients of a node are replaced at a time: each of them takes the memory of two for a while.
const parallelUpgrades = 2

// asks returns the pod's request for a new client of a volume, "" if there is none.
func asks(pod *corev1.Pod, volume string) string {
	value := pod.Annotations[UpgradeAnnotation]
	if about, _, one := strings.Cut(value, "/"); one && about != volume {
		return ""
	}
	return value
}

// wanted tells whether somebody wants another client than the one that serves.
func (k *Keeper) wanted(pod *corev1.Pod, fresh sidecar.Mount, now prepared) bool {
	if asked := asks(pod, fresh.Volume.Name); asked != "" && asked != now.Asked {
		return true
	}
	return fresh.Wish != now.Wish && fresh.Wish != now.Refused
}

// plan makes fresh the next client of a volume.
func (k *Keeper) plan(pod *corev1.Pod, fresh sidecar.Mount, p *prepared) {
	asked := ""
	if now := asks(pod, fresh.Volume.Name); now != p.Asked {
		asked = now
	}
	if asked != "" {
		p.Asked = asked
	}
	p.Outcome = nil
	if err := fresh.Succeeds(p.Mount); err != nil {
		p.Refused = fresh.Wish
		p.Outcome = k.failed(pod, fresh.Volume.Name, asked, err)
		return
	}
	p.Highest = max(p.Highest, p.Generation) + 1
	fresh.Generation = p.Highest
	p.Next = &fresh
}

// cannot answers those who have asked for new clients of volumes that cannot be resolved.
func (k *Keeper) cannot(pod *corev1.Pod, known []prepared, cause error) {
	for i := range known {
		p := &known[i]
		asked := asks(pod, p.Volume.Name)
		if p.Next != nil || asked == "" || asked == p.Asked {
			continue
		}
		p.Asked, p.Outcome = asked, k.failed(pod, p.Volume.Name, asked, cause)
		k.remember(pod, p.Volume.Name, func(now *prepared) { now.Asked, now.Outcome = p.Asked, p.Outcome })
	}
}

// failed tells that an upgrade has failed.
func (k *Keeper) failed(pod *corev1.Pod, volume, asked string, cause error) *outcome {
	text := fmt.Sprintf("volume %q: %v", volume, cause)
	k.options.Recorder.Event(pod, corev1.EventTypeWarning, ReasonUpgradeFailed, text)
	return &outcome{Asked: asked, Failed: true, Message: text, At: time.Now()}
}

// begin has the session of a volume handed over. Those that are being handed over already are left alone.
func (k *Keeper) begin(pod *corev1.Pod, next sidecar.Mount) {
	id := sidecar.SessionID(pod.UID, next.Volume.Name)
	k.mu.Lock()
	defer k.mu.Unlock()
	h := k.held[id]
	if h.upgrading || sidecar.Clients[next.Volume.Client].Secret && len(next.Volume.Secret) == 0 {
		// Under way, or begun by an earlier process and the Secret cannot be read at the moment.
		return
	}
	h.next = &next
	k.held[id] = h
	k.kick()
}

// kick wakes who hands sessions over. Nobody needs to be woken twice.
func (k *Keeper) kick() {
	select {
	case k.planned <- struct{}{}:
	default:
	}
}

// upgradeAll hands sessions over until ctx ends.
func (k *Keeper) upgradeAll(ctx context.Context) {
	var running sync.WaitGroup
	defer running.Wait()
	room := make(chan struct{}, parallelUpgrades)
	for {
		select {
		case <-ctx.Done():
			return
		case <-k.planned:
		}
		for {
			id, ok := k.take()
			if !ok {
				break
			}
			select {
			case room <- struct{}{}:
			case <-ctx.Done():
				return
			}
			running.Go(func() {
				defer func() { <-room }()
				k.upgrade(ctx, id)
			})
		}
	}
}

// take returns a session that is to be handed over and marks it.
func (k *Keeper) take() (mount.SessionID, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for id, h := range k.held {
		if h.next != nil && !h.upgrading {
			h.upgrading = true
			k.held[id] = h
			return id, true
		}
	}
	return "", false
}

// upgrade hands one session over.
func (k *Keeper) upgrade(ctx context.Context, id mount.SessionID) {
	h, ok := k.find(id)
	if !ok || h.next == nil {
		return
	}
	next := *h.next
	logger := log.G(ctx).WithField("pod", h.pod.Name).WithField("namespace", h.pod.Namespace).WithField("session", id)
	logger.WithField("generation", next.Generation).WithField("image", next.Image).Info("replacing the client of a volume")
	k.options.Wake(h.pod.UID)
	pause, err := k.handOver(ctx, id, h.pod.UID, next)
	if ctx.Err() != nil {
		return // the next process goes on
	}
	if _, held := k.find(id); !held {
		return // the pod has ended
	}
	known, readErr := k.memory.read(h.pod.UID)
	if p := find(known, next.Volume.Name); readErr == nil && p != nil && p.Next != nil {
		p.Next = &next
		k.conclude(h.pod, *p, upgradedText(p.Mount, next, pause), err)
	}
	k.options.Again(h.pod.UID)
}

// handOver ends early when the next sidecar does not even run.
func (k *Keeper) handOver(ctx context.Context, id mount.SessionID, pod types.UID, next sidecar.Mount) (time.Duration, error) {
	limited, cancel := context.WithTimeout(ctx, k.options.UpgradeTimeout)
	defer cancel()
	var watching sync.WaitGroup
	defer watching.Wait()
	limited, stop := context.WithCancelCause(limited)
	defer stop(nil)
	watching.Go(func() {
		k.watchContainer(limited, pod, sidecar.GenerationName(next.Volume.Name, next.Generation), stop)
	})
	pause, err := k.options.Broker.Upgrade(limited, id, broker.Successor{Generation: next.Generation, Volume: next.Volume})
	if cause := context.Cause(limited); err != nil && errors.Is(cause, errNotRunning) {
		return 0, cause
	}
	return pause, err
}

const (
	// lookPause is how often the container of the next client is looked at, and notRunning how long it may fail to run: an image that cannot be pulled now
	// can be upgraded to later.
	lookPause  = time.Second
	notRunning = 20 * time.Second
)

var errNotRunning = errors.New("the next client's container does not run")

// watchContainer gives up when a container cannot run for a while.
func (k *Keeper) watchContainer(ctx context.Context, pod types.UID, container string, giveUp context.CancelCauseFunc) {
	tick := time.NewTicker(lookPause)
	defer tick.Stop()
	var since time.Time
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		why := k.options.Waiting(pod, container)
		switch {
		case why == "":
			since = time.Time{}
		case since.IsZero():
			since = time.Now()
		case time.Since(since) > notRunning:
			giveUp(fmt.Errorf("%w: %s", errNotRunning, why))
			return
		}
	}
}

func upgradedText(from, to sidecar.Mount, pause time.Duration) string {
	what := fmt.Sprintf("the client was replaced (%s)", to.Image)
	if from.Image != to.Image {
		what = fmt.Sprintf("the client was upgraded from %s to %s", from.Image, to.Image)
	}
	if pause == 0 {
		return what
	}
	return fmt.Sprintf("%s; requests waited for %d ms", what, max(pause.Milliseconds(), 1))
}

// conclude notes what became of an upgrade: with an error the client before stays.
func (k *Keeper) conclude(pod *corev1.Pod, p prepared, text string, cause error) {
	volume, next := p.Volume.Name, *p.Next
	var o *outcome
	if cause != nil {
		o = k.failed(pod, volume, p.Asked, cause)
	} else {
		text = fmt.Sprintf("volume %q: %s", volume, text)
		k.options.Recorder.Event(pod, corev1.EventTypeNormal, ReasonUpgraded, text)
		o = &outcome{Asked: p.Asked, Message: text, At: time.Now()}
	}
	k.remember(pod, volume, func(now *prepared) {
		now.Next, now.Outcome, now.Refused = nil, o, ""
		if cause != nil {
			now.Refused = next.Wish
			return
		}
		now.Mount = next
	})
	id := sidecar.SessionID(pod.UID, volume)
	k.mu.Lock()
	defer k.mu.Unlock()
	h, ok := k.held[id]
	if !ok {
		return
	}
	h.next, h.upgrading, h.outcome = nil, false, o
	if cause == nil {
		h.generation = next.Generation
	}
	k.held[id] = h
}

func (k *Keeper) remember(pod *corev1.Pod, volume string, change func(*prepared)) {
	if err := k.memory.update(pod.UID, volume, change); err != nil {
		log.L.WithError(err).WithField("pod", pod.Name).WithField("namespace", pod.Namespace).Error("what became of an upgrade is not remembered")
	}
}
