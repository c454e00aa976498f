package agent

import "time"

// The pauses between two clients. A client that has served and died is followed at once, a few times in a row; whatever dies again and again, or cannot
// start, is given more time, so that a broken volume costs no processor.
const (
	freeRestarts = 3
	firstPause   = 100 * time.Millisecond
	longestPause = 10 * time.Second
	// healthy is how long a client must have served for its predecessors' failures to be forgotten.
	healthy = time.Minute
)

// backoff counts failures in a row.
type backoff struct {
	deaths, failures int
}

// next returns the pause before the next client, after one that served for a time; zero means that it never came to serve.
func (b *backoff) next(served time.Duration) time.Duration {
	if served >= healthy {
		*b = backoff{}
	}
	if served > 0 && b.deaths < freeRestarts {
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
