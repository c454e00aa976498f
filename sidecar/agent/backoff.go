package agent

import "time"

// The pauses between two clients. A client that has served for a while and dies is followed at once, and so are a few that die soon after they came to
// serve. Whatever dies again and again, or cannot start, is given more time, so that a broken volume costs no processor.
const (
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	// settled is how long a client must have served for its death not to count.
	settled = time.Second
	// healthy is how long a client must have served for its predecessors' failures to be forgotten.
	healthy = time.Minute
)

// backoff counts failures in a row.
type backoff struct {
	// burst is how many early deaths are free.
	burst            int
	deaths, failures int
}

// next returns the pause before the next client, after one that served for a time; zero means that it never came to serve.
func (b *backoff) next(served time.Duration) time.Duration {
	if served >= healthy {
		b.reset()
	}
	if served >= settled {
		return 0
	}
	if served > 0 && b.deaths < b.burst {
		b.deaths++
		return 0
	}
	b.failures++
	pause := firstPause
	for range b.failures - 1 {
		pause = min(2*pause, longestPause)
	}
	return pause
}

func (b *backoff) reset() { b.deaths, b.failures = 0, 0 }
