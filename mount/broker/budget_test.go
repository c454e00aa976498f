package broker

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestBudget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := budget{burst: 3, every: time.Second}
		took := func(n int) time.Duration {
			start := time.Now()
			for range n {
				if err := b.wait(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			return time.Since(start)
		}
		for _, step := range []struct {
			n    int
			rest time.Duration
			want time.Duration
		}{{3, 0, 0}, {2, 2 * time.Second, 2 * time.Second}, {2, 0, 0}, {1, time.Hour, time.Second}, {4, 0, time.Second}} {
			if got := took(step.n); got != step.want {
				t.Errorf("%d took %s, want %s", step.n, got, step.want)
			}
			<-time.After(step.rest)
		}
		if b.allows() {
			t.Error("more is allowed than there is")
		}
		<-time.After(2 * time.Second)
		for i, want := range []bool{true, true, false} {
			if got := b.allows(); got != want {
				t.Errorf("two are there: number %d is allowed: %v", i+1, got)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if err := b.wait(ctx); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v, want the context's error", err)
		}
	})
}
