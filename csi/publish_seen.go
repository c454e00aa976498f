package csi

import (
	"crypto/rand"
	"crypto/sha256"
	"sync"

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

// publications remember, for as long as this process runs, what was done for each target: what the kubelet repeats every minute
// costs no call to the API server then, and a warning is said once. All of it can be lost.
type publications struct {
	mu   sync.Mutex // guards done and warned
	done map[string]fingerprint
	// warned are the warnings that the users of a target have been told.
	warned map[string]map[string]bool
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
	if p.warned == nil {
		p.warned = map[string]map[string]bool{}
	}
	told := p.warned[target]
	if told == nil {
		told = map[string]bool{}
		p.warned[target] = told
	}
	var news []string
	for _, w := range warnings {
		if !told[w] {
			told[w] = true
			news = append(news, w)
		}
	}
	return news
}

func (p *publications) forget(target string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.done, target)
	delete(p.warned, target)
}
