package ipamdrv

import (
	"context"
	"errors"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store/cluster"
)

// maintainMax bounds one round of Maintain.
const maintainMax = time.Minute

// Maintain does what no request does, until ctx ends: what this node owes to the shared ledger, the reserves, and ending leases
// that nobody has. It ends with an error that matches that of ctx.
func (d *Driver) Maintain(ctx context.Context) error {
	tick := time.NewTicker(d.every)
	defer tick.Stop()
	failed := false
	for {
		round, cancel := context.WithTimeout(ctx, maintainMax)
		err := d.forgotten(round, errors.Join(d.settle(round), d.sweep.run(round, d)))
		cancel()
		switch {
		case ctx.Err() != nil:
		case err != nil && !failed:
			d.log.Warn("what is left to do for addresses waits", zap.Error(err))
		case err == nil && failed:
			d.log.Info("what was left to do for addresses is done")
		}
		failed = err != nil
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), d.remember(context.WithoutCancel(ctx)))
		case <-tick.C:
		}
	}
}

// settle is one round of what concerns this node among others.
func (d *Driver) settle(ctx context.Context) error {
	if d.node == nil {
		return nil
	}
	err := d.payAll(ctx)
	if err == nil {
		err = d.fill(ctx)
	}
	return errors.Join(err, d.remember(ctx))
}

// remember writes down what this node has seen of the shared ledger, which tells later that an older state is put in its
// place.
func (d *Driver) remember(ctx context.Context) error {
	if d.node == nil {
		return nil
	}
	return cluster.SaveWatermark(ctx, d.node.own, d.ledger.store)
}

// payAll does what this node owes to any pool.
func (d *Driver) payAll(ctx context.Context) error {
	pools, err := d.node.owing(ctx)
	if err != nil {
		return err
	}
	for _, id := range pools {
		if err := d.payTo(ctx, id); err != nil {
			return err
		}
	}
	return nil
}

// payTo does what this node owes to one pool.
func (d *Driver) payTo(ctx context.Context, id string) error {
	p := d.entry(id)
	if err := p.lock(ctx); err != nil {
		return err
	}
	defer p.unlock()
	return d.pay(ctx, p)
}
