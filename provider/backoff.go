package provider

import "time"

// pauses are the parameters of a back-off: the first pause, the longest, and how long without a new failure resets it.
type pauses struct {
	first, longest, reset time.Duration
}

var (
	// crashPauses are those of a crashing container, as of the kubelet: 10 s doubling to 5 min, reset after 10 min.
	crashPauses = pauses{10 * time.Second, 5 * time.Minute, 10 * time.Minute}
	// sidecarPauses are those of an injected sidecar, for which the whole application waits. What fails again and again in it, its client, has
	// pauses of its own there.
	sidecarPauses = pauses{250 * time.Millisecond, 30 * time.Second, time.Minute}
	// pullPauses are those of a failing pull, as of the kubelet.
	pullPauses = pauses{10 * time.Second, 5 * time.Minute, 10 * time.Minute}
	// retryPauses are those of everything else that is tried again: preparation, volumes, sandboxes, configurations.
	retryPauses = pauses{time.Second, 30 * time.Second, 5 * time.Minute}
)

// backoff counts the pauses of one thing that fails repeatedly. The zero value has not failed.
type backoff struct {
	pause time.Duration
	since time.Time
}

// until returns the time before which no new attempt is due.
func (b backoff) until() time.Time { return b.since.Add(b.pause) }

// waiting reports whether an attempt at now would be too early.
func (b backoff) waiting(now time.Time) bool { return b.pause > 0 && now.Before(b.until()) }

// failed counts a failure at now.
func (b *backoff) failed(now time.Time, p pauses) {
	switch {
	case b.pause == 0 || now.Sub(b.since) > b.pause+p.reset:
		b.pause = p.first
	default:
		b.pause = min(2*b.pause, p.longest)
	}
	b.since = now
}

// crashBackoff counts the restarts of a container. Its first restart is immediate; before the n-th one the container must have
// been dead for the pause that the restart before has set.
type crashBackoff struct {
	of       pauses
	pause    time.Duration
	restarts time.Time
}

// until returns the time before which a container that ended at finished is not to be started; zero means now.
func (b crashBackoff) until(finished time.Time) time.Time {
	if b.pause == 0 || finished.Sub(b.restarts) > b.of.reset {
		return time.Time{}
	}
	return finished.Add(b.pause)
}

// adopt takes over a container that another process has restarted that many times, lastly at started. The pauses that it had are
// those of a container that has crashed each time.
func (b *crashBackoff) adopt(restarts uint32, started time.Time) {
	if restarts == 0 {
		return
	}
	b.pause, b.restarts = b.of.first, started
	for range min(restarts-1, 16) { // by then every pause is the longest
		b.pause = min(2*b.pause, b.of.longest)
	}
}

// restarted counts a restart at now of a container that ended at finished.
func (b *crashBackoff) restarted(now, finished time.Time) {
	if b.pause == 0 || finished.Sub(b.restarts) > b.of.reset {
		b.pause = b.of.first
	} else {
		b.pause = min(2*b.pause, b.of.longest)
	}
	b.restarts = now
}
