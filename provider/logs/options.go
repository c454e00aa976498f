package logs

import (
	"math"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// Options choose what of a log is read.
type Options struct {
	// Tail is the number of last lines to begin with; negative means all, 0 only what is yet to come.
	Tail int64
	// Since leaves out what is older; the zero time leaves out nothing.
	Since time.Time
	// LimitBytes ends the reading after so many bytes, timestamps included; negative means no limit.
	LimitBytes int64
	// Timestamps puts the time before each line.
	Timestamps bool
	// Follow waits for more until the container has ended.
	Follow bool
}

// FromPodOptions translates the API's options at the given time; the choice of the stream is the caller's.
func FromPodOptions(o *corev1.PodLogOptions, now time.Time) Options {
	out := Options{Tail: -1, LimitBytes: -1, Timestamps: o.Timestamps, Follow: o.Follow}
	if o.TailLines != nil {
		out.Tail = *o.TailLines
	}
	if o.LimitBytes != nil {
		out.LimitBytes = *o.LimitBytes
	}
	switch {
	case o.SinceTime != nil:
		out.Since = o.SinceTime.Time
	case o.SinceSeconds != nil:
		// More seconds than a Duration can hold are more than any log is old.
		if s := *o.SinceSeconds; s < math.MaxInt64/int64(time.Second) {
			out.Since = now.Add(-time.Duration(s) * time.Second)
		}
	}
	return out
}
