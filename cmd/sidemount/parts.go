package main

import (
	"context"
	"fmt"

	"golang.org/x/sync/errgroup"
)

// part is something that runs as long as the process.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// parts run at the same time, and end together.
type parts []part

func (p *parts) add(name string, run func(ctx context.Context) error) {
	*p = append(*p, part{name, run})
}

// runAll runs them until ctx ends or one fails; its error names it.
func (p parts) runAll(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	for _, part := range p {
		group.Go(func() error {
			if err := part.run(ctx); err != nil && ctx.Err() == nil {
				return fmt.Errorf("%s: %w", part.name, err)
			}
			return nil
		})
	}
	return group.Wait()
}
