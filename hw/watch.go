package hw

import "context"

// Watch tells that network devices have changed, and not which: who is told looks. See [Kernel].
func (h *Host) Watch(ctx context.Context) (<-chan struct{}, error) { return h.kernel.Watch(ctx) }
