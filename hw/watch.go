package hw

import "context"

// WatchKernel is the part of rtnetlink that tells of changes.
type WatchKernel interface {
	// Watch returns a channel on which something is sent after links have changed: one has come, gone, moved, been renamed or
	// set. It holds one: changes that nobody has looked at yet are told of once. It is closed when ctx ends.
	Watch(ctx context.Context) (<-chan struct{}, error)
}

// Watch tells that network devices have changed, and not which: who is told looks. See [WatchKernel].
func (h *Host) Watch(ctx context.Context) (<-chan struct{}, error) { return h.watch.Watch(ctx) }
