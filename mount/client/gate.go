package client

import (
	"context"
	"sync"
)

// gate lets requests that change something through until it is shut. A request that meets a shut gate waits for ever: it has not been answered, so the
// kernel gives it to the next client or fails it when the mount ends.
type gate struct {
	mu     sync.Mutex // guards what follows
	inside int
	idle   chan struct{} // not nil once shut; closed when nobody is inside
}

func (g *gate) enter() {
	g.mu.Lock()
	if g.idle != nil {
		g.mu.Unlock()
		select {}
	}
	g.inside++
	g.mu.Unlock()
}

func (g *gate) leave() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.inside--
	if g.idle != nil && g.inside == 0 {
		close(g.idle)
	}
}

// shut stops newcomers and waits until those inside have left, or until ctx ends.
func (g *gate) shut(ctx context.Context) error {
	g.mu.Lock()
	if g.idle == nil {
		g.idle = make(chan struct{})
		if g.inside == 0 {
			close(g.idle)
		}
	}
	idle := g.idle
	g.mu.Unlock()
	select {
	case <-idle:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
