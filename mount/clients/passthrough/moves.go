package passthrough

import "encoding/binary"

// A rename changes a directory and the table, which cannot be done at once. So the new name is written to the table first, as one that is intended. A client that dies in
// between leaves a node with two names, and the next one looks which of them it has before it serves.

// move is a name that a node is about to get.
type move struct {
	node, parent uint64
	name         string
	slot         int
	written      bool
}

const intendedAt = 30

func (t *table) intended(i int) bool { return binary.NativeEndian.Uint16(t.slot(i)[intendedAt:]) != 0 }

func (t *table) intend(i int, intended bool) {
	var flag uint16
	if intended {
		flag = 1
	}
	binary.NativeEndian.PutUint16(t.slot(i)[intendedAt:], flag)
}

// prepare writes down what names nodes are about to get. Those that the kernel does not know, or that are known by their hidden names, need none. One of commit and drop must follow,
// unless it fails.
func (t *table) prepare(moves []move) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for n := range moves {
		m := &moves[n]
		i, ok := t.index[m.node]
		if !ok || t.isHidden(i) || t.names(i, m.parent, m.name) {
			continue
		}
		slot, err := t.write(m.node, m.parent, m.name, t.use(i), true)
		if err != nil {
			t.dropLocked(moves)
			return err
		}
		m.slot, m.written = slot, true
	}
	return nil
}

// commit makes the prepared names those of the nodes. What is known of them besides may have changed since.
func (t *table) commit(moves []move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, m := range moves {
		if !m.written {
			continue
		}
		old, ok := t.index[m.node]
		if !ok {
			t.release(m.slot)
			continue
		}
		t.adopt(m.node, m.slot, t.use(old))
		t.release(old)
	}
}

// drop takes prepared names back that the nodes have not got.
func (t *table) drop(moves []move) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.dropLocked(moves)
}

func (t *table) dropLocked(moves []move) {
	for _, m := range moves {
		if m.written {
			t.release(m.slot)
		}
	}
}

// adopt makes a slot the one of its node.
func (t *table) adopt(node uint64, i int, u use) {
	s := t.slot(i)
	binary.NativeEndian.PutUint32(s[24:], u.opens)
	word(s, backingAt).Store(uint64(u.backing))
	word(s, 16).Store(u.lookups)
	t.intend(i, false)
	t.index[node] = i
}

// dropOrphans releases names that were intended for nodes which the kernel has forgotten meanwhile, and prefers what is not only intended.
func (t *table) dropOrphans() {
	for node, i := range t.index {
		if !t.intended(i) {
			continue
		}
		if slots := t.twice[node]; slots != nil {
			t.index[node] = t.certain(slots)
			continue
		}
		t.release(i)
		delete(t.index, node)
	}
}

// certain returns a slot that is not only intended. If there are several, the client died in the middle of a change of name, and the one that counts more includes a request
// that has not been answered, which is too much and never too little.
func (t *table) certain(slots []int) int {
	best := slots[0]
	for _, i := range slots[1:] {
		if t.intended(best) && !t.intended(i) || t.intended(best) == t.intended(i) && t.use(i).lookups > t.use(best).lookups {
			best = i
		}
	}
	return best
}

// settle leaves every node one slot, whose name is the one that it has. It is called before anything else looks at the table, as nothing changes then.
func (t *table) settle(isAt func(node, parent uint64, name string) bool) {
	for node, slots := range t.twice {
		if _, ok := t.index[node]; !ok {
			continue
		}
		known := t.use(t.certain(slots))
		keep := t.right(node, slots, isAt)
		t.mu.Lock()
		t.adopt(node, keep, known)
		for _, i := range slots {
			if i != keep {
				t.release(i)
			}
		}
		t.mu.Unlock()
	}
	t.twice = nil
}

// right returns the slot whose name the node has; the hidden name if it has that.
func (t *table) right(node uint64, slots []int, isAt func(node, parent uint64, name string) bool) int {
	keep := -1
	for _, i := range slots {
		s := t.slot(i)
		if !isAt(node, word(s, 8).Load(), string(t.name(s))) {
			continue
		}
		if keep < 0 || t.isHidden(i) {
			keep = i
		}
	}
	if keep < 0 {
		return t.certain(slots)
	}
	return keep
}

// hide tells which directory the hidden one is.
func (t *table) hide(node uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.hidden = node
}

// isHidden tells whether a slot has a hidden name: one in that directory, which is the node's number. The number of a directory that was removed may be given to the next one, so
// that what was in the old one seems to be in the new one.
func (t *table) isHidden(i int) bool {
	s := t.slot(i)
	return t.hidden != 0 && word(s, 8).Load() == t.hidden && string(t.name(s)) == hiddenAs(word(s, 0).Load())
}

// isSaved tells whether a node is known by its hidden name.
func (t *table) isSaved(node uint64) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	i, ok := t.index[node]
	return ok && t.isHidden(i)
}
