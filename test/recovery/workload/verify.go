package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"
)

// worker is a part of the verifier: a way of using files, with a model of what it must find. finish checks everything once more and
// tells which files stay.
type worker interface {
	start() error
	round() error
	finish() error
}

// verify runs all workers at once, each in a directory of its own.
func verify(ctx context.Context, s *scene) {
	workers := map[string]func(base) worker{
		"blocks":     func(b base) worker { return &blocks{base: b, mode: 0o644, later: 0o644} },
		"read-only":  func(b base) worker { return &blocks{base: b, mode: 0o444, later: 0o444} },
		"locked-out": func(b base) worker { return &blocks{base: b, mode: 0o644, later: 0} },
		"names":      func(b base) worker { return &names{base: b} },
		"names2":     func(b base) worker { return &names{base: b} },
		"removed":    func(b base) worker { return &removed{base: b} },
		"appends":    func(b base) worker { return &appends{base: b} },
		"locks":      func(b base) worker { return &locks{base: b} },
		"mapping":    func(b base) worker { return &mapping{base: b} },
		"listing":    func(b base) worker { return &listing{base: b} },
	}
	var running sync.WaitGroup
	for name, create := range workers {
		w := create(base{scene: s, dir: filepath.Join(s.dir, name), rand: rand.New(rand.NewPCG(s.seed, hash(name)))})
		running.Go(func() { s.work(ctx, name, w) })
	}
	running.Wait()
}

func (s *scene) work(ctx context.Context, name string, w worker) {
	err := s.mkdir(filepath.Join(s.dir, name))
	if err == nil {
		err = w.start()
	}
	if err == nil {
		err = s.repeat(ctx, w.round)
	}
	// A worker whose view of its files was proven wrong has nothing more to say about them.
	if err == nil {
		err = w.finish()
	}
	if err != nil {
		s.fail(fmt.Errorf("%s: %w", name, err))
	}
}

// base is what every worker has.
type base struct {
	*scene
	dir  string
	rand *rand.Rand
}

func (b *base) path(name string) string { return filepath.Join(b.dir, name) }

// fill makes content that is different each time.
func (b *base) fill(p []byte) {
	for i := 0; i+8 <= len(p); i += 8 {
		v := b.rand.Uint64()
		for j := range 8 {
			p[i+j] = byte(v >> (8 * j))
		}
	}
	for i := len(p) &^ 7; i < len(p); i++ {
		p[i] = byte(b.rand.Uint32())
	}
}

func (s *scene) mkdir(dir string) error {
	if err := s.do("mkdir", func() error { return unix.Mkdir(dir, 0o755) }); err != nil {
		return fmt.Errorf("mkdir %s: %w", dir, err)
	}
	return nil
}

// hash gives each worker its own numbers (FNV-1a).
func hash(s string) uint64 {
	h := uint64(14695981039346656037)
	for _, c := range []byte(s) {
		h = (h ^ uint64(c)) * 1099511628211
	}
	return h
}
