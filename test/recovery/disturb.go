package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sidemount/sidemount/test/recovery/report"
)

// kill is what became of one strike.
type kill struct {
	Kind   string `json:"kind"`
	Pod    string `json:"pod"`
	Client string `json:"client"`
	// At is when it struck; Until when everything was as before and the workloads had gone on.
	At    time.Time `json:"at"`
	Until time.Time `json:"until"`
	// Pause is how long requests waited, by the node's log; zero for kinds that the client outlives.
	Pause time.Duration `json:"pauseNs"`
	// Start is how long the new client took from its start to serving, by the agent's log.
	Start time.Duration `json:"startNs"`
	// Stall is the longest operation of the workloads that it met.
	Stall time.Duration `json:"stallNs"`

	client int // the process before
}

// disturb carries the plan out, all subjects at the same time.
func (t *trial) disturb(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for s, strikes := range t.deal() {
		group.Go(func() error {
			for n, strike := range strikes {
				if err := t.one(ctx, s, strike); err != nil {
					s.keepEvidence()
					return fmt.Errorf("pod %s, kill %d of %d (%s): %w", s.name, n+1, len(strikes), strike.kind.name, err)
				}
			}
			return nil
		})
	}
	err := group.Wait()
	t.quiet = time.Now()
	return err
}

// one strikes once and waits until everything is as before.
func (t *trial) one(ctx context.Context, s *subject, what strike) error {
	wait := time.NewTimer(what.wait)
	defer wait.Stop()
	select {
	case <-wait.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	switch what.kind.alone {
	case takesAgent:
		t.holders.RLock()
		defer t.holders.RUnlock()
	case takesEveryonesBroker:
		t.holders.Lock()
		defer t.holders.Unlock()
	}
	client, err := t.serving(ctx, s)
	if err != nil {
		return err
	}
	agent, err := s.agent()
	if err != nil {
		return err
	}
	mark := t.log.mark()
	k := kill{Kind: what.kind.name, Pod: s.name, Client: s.kind, At: time.Now(), client: client}
	if err := what.kind.strike(ctx, t, s); err != nil {
		return fmt.Errorf("strike: %w", err)
	}
	if err := t.recovers(ctx, s, what.kind, mark, &k); err != nil {
		return fmt.Errorf("%s after the kill: %w", time.Since(k.At).Round(time.Millisecond), err)
	}
	if now, err := s.agent(); err != nil || what.kind.agentLives && now != agent {
		return errors.Join(fmt.Errorf("the agent was process %d and is %d", agent, now), err)
	}
	k.Until = time.Now()
	s.kills = append(s.kills, k)
	t.say("%-7s %-20s requests waited %6d ms, all well after %6d ms", k.Kind, k.Pod, k.Pause.Milliseconds(), k.Until.Sub(k.At).Milliseconds())
	return nil
}

// serving waits until the subject has a client: a kill of the node's process may have met the end of the last one.
func (t *trial) serving(ctx context.Context, s *subject) (pid int, err error) {
	err = t.until(ctx, "the client of pod "+s.name, func() (bool, error) {
		var failed error
		pid, failed = s.client()
		return failed == nil, nil
	})
	return pid, err
}

// recovers waits for what must follow a kill.
func (t *trial) recovers(ctx context.Context, s *subject, what kind, mark int, k *kill) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if s.kind == onMountPod {
		if err := t.servedAgain(ctx, s, what, k); err != nil {
			return err
		}
	} else if what.alone == takesEveryonesBroker {
		for _, each := range t.on(sidecars) {
			if _, err := t.log.await(ctx, mark, func(r record) bool {
				return r["session"] == each.session() && r["msg"] == "client serves"
			}); err != nil {
				return fmt.Errorf("wait for the session of pod %s: %w", each.name, err)
			}
		}
	} else if what.handsOver {
		if err := t.handedOver(ctx, s, mark, k); err != nil {
			return err
		}
	} else if err := t.replaced(ctx, s, what, mark, k); err != nil {
		return err
	}
	return t.goOn(ctx, s)
}

// replaced waits for the next client of a subject. If the node's process was away when the old one died, it tells only that somebody serves.
func (t *trial) replaced(ctx context.Context, s *subject, what kind, mark int, k *kill) error {
	unnoticed := false
	r, err := t.log.await(ctx, mark, func(r record) bool {
		if r["session"] != s.session() {
			return false
		}
		if r["reason"] == "SessionRestored" {
			now, err := s.client()
			unnoticed = err == nil && now != k.client
		}
		return unnoticed || r["reason"] == "ClientRestarted" || r["msg"] == "session lost"
	})
	switch {
	case err != nil:
		return fmt.Errorf("wait for the next client: %w", err)
	case unnoticed:
	case r["reason"] != "ClientRestarted":
		return fmt.Errorf("the node says %v", r)
	case r["cause"] != what.cause:
		return fmt.Errorf("the node says that the cause was %q, want %q", r["cause"], what.cause)
	}
	said, err := t.started(ctx, s, k.At)
	if err != nil {
		return err
	}
	k.Start, k.Pause = said.after(), r.pause()
	if unnoticed {
		k.Pause = said.pause()
	}
	return nil
}

// started waits until the agent's log tells of a client that has begun to serve since a time. It is written by others, so it may come late.
func (t *trial) started(ctx context.Context, s *subject, since time.Time) (said record, err error) {
	err = t.until(ctx, "the log of the sidecar of pod "+s.name, func() (bool, error) {
		said, err = s.started(since)
		return said != nil, err
	})
	return said, err
}

// goOn waits until each of a subject's workloads has done something since now.
func (t *trial) goOn(ctx context.Context, s *subject) error {
	since, err := s.progress()
	if err != nil {
		return err
	}
	return t.until(ctx, "the workloads of pod "+s.name+" to go on", func() (bool, error) {
		w, err := s.behind(since)
		return w == "", err
	})
}

// stallOf is the longest operation of a pod's workloads that was under way between two times. One that was begun before since belongs to
// the kill before.
func stallOf(reports []*report.Report, since, from, to time.Time) time.Duration {
	var longest time.Duration
	for _, r := range reports {
		for _, s := range r.Stalls {
			if !s.Start.Before(since) && s.Start.Before(to) && s.Start.Add(s.Took).After(from) {
				longest = max(longest, s.Took)
			}
		}
	}
	return longest
}
