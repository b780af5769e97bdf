package hwtest

import (
	"context"
	"slices"
)

// Watch implements hw.Kernel.
func (k *Kernel) Watch(ctx context.Context) (<-chan struct{}, error) {
	changed := make(chan struct{}, 1)
	k.mu.Lock()
	defer k.mu.Unlock()
	k.watchers = append(k.watchers, changed)
	context.AfterFunc(ctx, func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		k.watchers = slices.DeleteFunc(k.watchers, func(c chan struct{}) bool { return c == changed })
		close(changed)
	})
	return changed, nil
}

// changedLocked tells those who watch that a link of the host has changed.
func (k *Kernel) changedLocked(l *link) {
	if l.ns != hostNS {
		return
	}
	for _, c := range k.watchers {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}
