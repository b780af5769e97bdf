package pool

import (
	"context"
	"net/netip"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// An Op is something that a node has to do in a shared store later. JSON names are those of its records.
type Op struct {
	record.Extra
	V  int    `json:"v"`
	Do OpKind `json:"do"`
	// Share is the network's share of a shared pool.
	Share string     `json:"share,omitempty"`
	Addr  netip.Addr `json:"addr,omitzero"`
	// Token is that of the lease to release or assign; "" means any lease of the share.
	Token string `json:"token,omitempty"`
	// Fence is the token of a transaction that must not be applied any more before the op is done.
	Fence string `json:"settle,omitempty"`
	// At is when the address was released; the zero time means without cooldown.
	At time.Time `json:"at,omitzero"`
	// Lease is what a prefetched lease becomes.
	Lease *Lease `json:"lease,omitempty"`
}

// OpKind is what an op does.
type OpKind string

// The kinds of ops.
const (
	ReleaseAddress OpKind = "release" // release a lease
	ReleaseHandle  OpKind = "leave"   // release a handle: a pool, or a share of one
	AssignLease    OpKind = "give"    // record who has a prefetched address
)

// A LocalHandle is a handle of this node's engine, with what the node needs of it without the store.
type LocalHandle struct {
	Handle
	Subnet   netip.Prefix
	Prefetch int // addresses to lease ahead
	Created  time.Time
	Group    string // of pools that help each other out, option overflow
	Network  string // that a new handle was requested for; "" if that is found out later
	// Named is the network that the store names for the handle, which is no evidence that this node's network driver has it; "" for none.
	Named string
	// Adopted: another ID owned the handle until now.
	Adopted bool
}

// An Outbox makes writes to a shared store of which nothing may be left behind if the process is killed before the answer.
type Outbox interface {
	// WithUndo calls write after it has written down undo as an intent: if the outcome of the write stays unknown, or the process ends
	// before it is known, undo is done later. If the write was made, the created handles are this node's. The context of write carries the
	// transaction's token. certain is false if the outcome is unknown.
	WithUndo(ctx context.Context, pool string, undo Op, write func(context.Context) (store.Result, error), created ...LocalHandle) (
		r store.Result, certain bool, err error)
}

// withUndo makes a write that undo takes back. In a store of this node alone it is the write itself: its outcome is always known.
func (p *Pool) withUndo(ctx context.Context, undo Op, write func(context.Context) (store.Result, error), created ...LocalHandle) (
	store.Result, error) {
	if p.outbox == nil {
		return write(ctx)
	}
	r, certain, err := p.outbox.WithUndo(ctx, p.id, undo, write, created...)
	if !certain {
		p.Invalidate()
	}
	return r, err
}
