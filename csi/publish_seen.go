package csi

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"
	"time"

	spec "github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/protobuf/proto"
)

// fingerprint tells requests apart without keeping their secrets.
type fingerprint [sha256.Size]byte

// salt makes fingerprints worthless outside of this process.
var salt = rand.Text()

func digestOf(r *spec.NodePublishVolumeRequest) fingerprint {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(r)
	if err != nil {
		b = []byte(rand.Text()) // like no other
	}
	return sha256.Sum256(append([]byte(salt), b...))
}

// remembered is how long the warnings of a target are remembered that is not published: longer than the kubelet pauses between two attempts.
const remembered = time.Hour

// publications remember, for as long as this process runs, what was done for each target: what the kubelet repeats every minute
// costs no call to the API server then, and a warning is said once. All of it can be lost.
type publications struct {
	mu   sync.Mutex // guards done and warned
	done map[string]fingerprint
	// warned are the warnings that the users of a target have been told.
	warned map[string]told
}

// told are warnings, and when the last attempt brought some.
type told struct {
	words map[string]bool
	at    time.Time
}

// is tells whether the target was last published by the same request.
func (p *publications) is(target string, f fingerprint) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	known, ok := p.done[target]
	return ok && known == f
}

func (p *publications) add(target string, f fingerprint) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.done == nil {
		p.done = map[string]fingerprint{}
	}
	p.done[target] = f
}

// news returns the warnings that have not been told, and takes them for told.
func (p *publications) news(target string, warnings []string) []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(warnings) == 0 {
		return nil
	}
	p.prune()
	if p.warned == nil {
		p.warned = map[string]told{}
	}
	t := told{words: p.warned[target].words, at: time.Now()}
	if t.words == nil {
		t.words = map[string]bool{}
	}
	p.warned[target] = t
	var news []string
	for _, w := range warnings {
		if !t.words[w] {
			t.words[w] = true
			news = append(news, w)
		}
	}
	return news
}

// prune forgets what was told of targets that nobody tries to publish any more: after a publish that has failed for good the kubelet does not unpublish.
// The caller holds mu.
func (p *publications) prune() {
	for target, t := range p.warned {
		if _, done := p.done[target]; !done && time.Since(t.at) > remembered {
			delete(p.warned, target)
		}
	}
}

// failed takes note that a target is not published. What its users have been told stays told.
func (p *publications) failed(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.done, target)
}

// forget takes note that a target is unpublished.
func (p *publications) forget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.done, target)
	delete(p.warned, target)
}
