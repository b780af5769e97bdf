package netdrv

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

// loanState is how far a device is on its way to a container and back. On disk it means:
//
//	claimed      chosen, snapshot and wish stored; perhaps half set up. After a crash: put it back.
//	ready        set up and verified, in the host
//	lent         Join was answered; it may be in a container
//	freeing      the endpoint is gone; the device is being awaited and put back
//	quarantined  could not be put back, for the reason given; tried again, never handed out
type loanState string

const (
	claimed     loanState = "claimed"
	ready       loanState = "ready"
	lent        loanState = "lent"
	freeing     loanState = "freeing"
	quarantined loanState = "quarantined"
)

// next says which states may follow which. A loan ends only from freeing or quarantined.
var next = map[loanState][]loanState{
	claimed:     {claimed, ready, freeing}, // claimed again: the snapshot is completed once the VF has a netdev
	ready:       {lent, freeing},
	lent:        {freeing},
	freeing:     {quarantined},
	quarantined: {quarantined},
}

// loan is a loan record that this process has read, to be moved on.
type loan struct {
	loanRecord
	rev  int64
	past bool // the machine was started anew since: the device is in no container, and as the new boot has made it

	parts  []*loan // while it is being made: the loans that are part of it
	broken bool    // the device itself is why it could not be lent
}

// all is the loan and its parts.
func (l *loan) all() []*loan { return append([]*loan{l}, l.parts...) }

func (l *loan) unchanged() store.Cond { return store.Cond{Key: loanKey(l.Device), Rev: l.rev} }

// on is the device that nobody can have whole meanwhile: the loan's own, or the one that a child was made on.
func (l *loan) on() hw.ID { return cmp.Or(l.Parent, l.Device) }

// returning tells whether the device will be free soon.
func (l *loan) returning() bool { return l.State == freeing || l.past }

// start writes down a new loan and its parts together with its endpoint. taken is true, and nothing written, when one of
// the devices or the endpoint has a record already.
func (d *Driver) start(ctx context.Context, l *loan, e endpointRecord) (taken bool, err error) {
	conds := []store.Cond{store.Absent(endpointKey(e.Network, e.ID))}
	writes := []write{put(endpointKey(e.Network, e.ID), e)}
	for _, x := range l.all() {
		x.Network, x.Endpoint = e.Network, e.ID
		x.Version, x.State, x.Since, x.Boot = recordVersion, claimed, time.Now(), d.host.Boot()
		conds = append(conds, store.Absent(loanKey(x.Device)))
		writes = append(writes, put(loanKey(x.Device), x.loanRecord))
	}
	res, err := transact(ctx, d.store, conds, writes)
	for _, x := range l.all() {
		x.rev = res.Rev
	}
	return err == nil && !res.OK, err
}

// advance writes a loan's next state, and whatever else belongs to that step, durably. It is the one place where states
// are written.
func (d *Driver) advance(ctx context.Context, l *loan, to loanState, also ...write) error {
	if !slices.Contains(next[l.State], to) {
		return fmt.Errorf("%s: cannot go from %s to %s", l.Label, l.State, to)
	}
	rec := l.loanRecord
	if rec.State != to {
		rec.State, rec.Since = to, time.Now()
	}
	res, err := commit(ctx, d.store, l.unchanged(), append(also, put(loanKey(l.Device), rec))...)
	if err != nil {
		return err
	}
	l.loanRecord, l.rev = rec, res.Rev
	d.tell(l, to)
	return nil
}

// end forgets a loan whose device is back as it was.
func (d *Driver) end(ctx context.Context, l *loan) error {
	if l.State != freeing && l.State != quarantined {
		return fmt.Errorf("%s: cannot be free while %s", l.Label, l.State)
	}
	if _, err := commit(ctx, d.store, l.unchanged(), remove(loanKey(l.Device))); err != nil {
		return err
	}
	d.tell(l, "free")
	return nil
}

// tell notes that a device got into a state, and why it is quarantined.
func (d *Driver) tell(l *loan, to loanState) {
	d.count("devices_" + string(to))
	fields := append(l.fields(), stateField(to))
	if to != quarantined {
		d.log.Info("device", fields...)
		return
	}
	d.log.Error("device", append(fields, zap.String("reason", l.Reason))...)
}

// loans reads all loans.
func (d *Driver) loans(ctx context.Context) (map[hw.ID]*loan, error) {
	all, err := list[loanRecord](ctx, d.store, loanPrefix)
	if err != nil {
		return nil, err
	}
	byDevice := make(map[hw.ID]*loan, len(all))
	for _, r := range all {
		byDevice[r.rec.Device] = d.loanOf(r)
	}
	return byDevice, nil
}

// loan reads one loan; the error matches store.ErrNotFound when the device is free.
func (d *Driver) loan(ctx context.Context, id hw.ID) (*loan, error) {
	r, err := read[loanRecord](ctx, d.store, loanKey(id))
	if err != nil {
		return nil, err
	}
	return d.loanOf(r), nil
}

func (d *Driver) loanOf(r rev[loanRecord]) *loan {
	return &loan{loanRecord: r.rec, rev: r.kv.Rev, past: r.rec.Boot != d.host.Boot()}
}

// holder says in an error who has the device, or why nobody can have it.
func (l *loan) holder() string {
	switch l.State {
	case freeing:
		return fmt.Sprintf("%s is on its way back from endpoint %s", l.Label, short(l.Endpoint))
	case quarantined:
		return fmt.Sprintf("%s is quarantined: %s", l.Label, l.Reason)
	}
	return fmt.Sprintf("%s is held by endpoint %s of network %s", l.Label, short(l.Endpoint), short(l.Network))
}

// short is an ID as docker prints it.
func short(id string) string {
	if len(id) > 12 {
		return id[:12]
	}
	return id
}
