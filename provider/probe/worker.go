package probe

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
)

// maxTries is how often an attempt that could not be made is repeated at once.
const maxTries = 3

// Worker runs one probe of one container at its period.
type Worker struct {
	// Prober makes the attempts.
	Prober *Prober
	// Spec is the probe; zero fields have the API's defaults.
	Spec *corev1.Probe
	// Target is the container.
	Target Target
	// Since is when the container was started; the initial delay counts from there.
	Since time.Time
	// Last ends the worker after the first verdict: a startup probe has then done its work.
	Last bool
	// LastFailure ends the worker after the first verdict that is a Failure: the container of a liveness probe is ended then.
	LastFailure bool
	// Verdict is told each verdict that differs from the one before. It must not block.
	Verdict func(Result)
	// Attempt is told each result that is not Success with what a user may see; err means that no attempt could be made. It must
	// not block. Nil tells nobody.
	Attempt func(r Result, output string, err error)
}

// Run probes until ctx ends or the worker's work is done.
func (w Worker) Run(ctx context.Context) {
	period := time.Duration(max(w.Spec.PeriodSeconds, 1)) * time.Second
	delay := time.Until(w.Since.Add(time.Duration(w.Spec.InitialDelaySeconds) * time.Second))
	timer := time.NewTimer(max(delay, 0))
	defer timer.Stop()
	var c counter
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		}
		began := time.Now()
		result, ok := w.attempt(ctx)
		if ctx.Err() != nil {
			return
		}
		if ok && c.count(result, w.Spec) && w.decided(&c) {
			return
		}
		timer.Reset(max(period-time.Since(began), 0))
	}
}

// attempt makes one attempt and reports whether it says anything about the container.
func (w Worker) attempt(ctx context.Context) (Result, bool) {
	var result Result
	var output string
	var err error
	for range maxTries {
		if result, output, err = w.Prober.Probe(ctx, w.Spec, w.Target); err == nil || ctx.Err() != nil {
			break
		}
	}
	if (err != nil || result != Success) && w.Attempt != nil && ctx.Err() == nil {
		w.Attempt(result, output, err)
	}
	if result == Warning {
		result = Success
	}
	return result, err == nil
}

// decided tells a new verdict and reports whether the worker's work is done.
func (w Worker) decided(c *counter) bool {
	if c.verdict != c.last {
		c.verdict = c.last
		w.Verdict(c.verdict)
	}
	return w.Last || (w.LastFailure && c.verdict == Failure)
}

// counter counts equal results in a row.
type counter struct {
	last    Result
	run     int32
	verdict Result
}

// count adds a result and reports whether the threshold has been reached.
func (c *counter) count(r Result, spec *corev1.Probe) bool {
	if r != c.last {
		c.last, c.run = r, 0
	}
	c.run++
	if r == Failure {
		return c.run >= max(spec.FailureThreshold, 1)
	}
	return c.run >= max(spec.SuccessThreshold, 1)
}
