package ipamdrv

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// A lease can lose its container: the process is killed after the lease was written and before the engine heard of it, or
// the engine never asks for its release. The network driver on this node knows the addresses of its endpoints, so that a
// lease of one of its networks which no endpoint has is seen - but not at once: the engine asks for an address before it
// makes the endpoint, and for the release after it is gone.

// Use is what the network driver knows of one of its networks.
type Use struct {
	Subnets []netip.Prefix // of the network's pools
	Addrs   []netip.Addr   // of its endpoints
}

const (
	sweepEvery = time.Minute
	// sweepAge is how old a lease must be, and how long it must have been seen without an endpoint. Between the calls for
	// an address and for its endpoint lie milliseconds.
	sweepAge = 10 * time.Minute
)

// sweep ends leases that nobody has: those that two looks, far enough apart, find without an endpoint.
type sweep struct {
	last  time.Time
	first map[string]look // by the key of the lease
}

// look is when a lease was seen without an endpoint for the first time.
type look struct {
	rev int64
	at  time.Time
}

// suspect is a lease that no endpoint has.
type suspect struct {
	h    handle
	addr netip.Addr
	kv   store.KV
	rec  leaseRecord
}

// run looks, if it is time for that.
func (s *sweep) run(ctx context.Context, d *Driver) error {
	now := time.Now()
	if d.uses == nil || now.Sub(s.last) < sweepEvery {
		return nil
	}
	s.last = now
	suspects, err := d.suspects(ctx, now)
	if err != nil {
		return fmt.Errorf("look for leases that nobody has: %w", err)
	}
	seen := map[string]look{}
	for _, l := range suspects {
		before, ok := s.first[l.kv.Key]
		if !ok || before.rev != l.kv.Rev {
			before = look{l.kv.Rev, now}
		}
		seen[l.kv.Key] = before
		if now.Sub(before.at) < sweepAge {
			continue
		}
		d.log.Warn("address is released: nobody has it", zap.Stringer("address", l.addr), zap.String("container", l.rec.Name),
			zap.Time("since", l.rec.Since), zap.Stringer("id", l.h))
		err = errors.Join(err, d.endSuspect(ctx, l, now))
	}
	s.first = seen
	return err
}

// endSuspect ends a lease, if it still is the one that was seen.
func (d *Driver) endSuspect(ctx context.Context, l suspect, now time.Time) error {
	_, p, err := d.pool(ctx, l.h.String())
	if errors.Is(err, ErrUnknownPool) {
		return nil
	}
	if err != nil {
		return err
	}
	defer p.unlock()
	_, err = p.end(ctx, l.addr, ending{share: l.h.share, token: l.rec.Token, at: now})
	return err
}

// suspects lists the leases, of networks of the network driver on this node, that no endpoint has.
func (d *Driver) suspects(ctx context.Context, now time.Time) ([]suspect, error) {
	uses, err := d.uses(ctx)
	if err != nil || len(uses) == 0 {
		return nil, err
	}
	handles, err := d.handles(ctx)
	if err != nil {
		return nil, err
	}
	var found []suspect
	for subnet, all := range handles {
		networks := slices.DeleteFunc(slices.Clone(uses), func(u Use) bool { return !slices.Contains(u.Subnets, subnet) })
		if len(networks) < len(all) {
			continue // one of them may be another network driver's
		}
		for _, h := range all {
			some, err := d.without(ctx, h, networks, now)
			if err != nil {
				return nil, err
			}
			found = append(found, some...)
		}
	}
	return found, nil
}

// handles lists those of this node, by subnet.
func (d *Driver) handles(ctx context.Context) (map[netip.Prefix][]handle, error) {
	keys, err := d.ledger.keys(ctx, sharePrefix)
	if err != nil {
		return nil, err
	}
	shared := map[string][]handle{}
	for _, key := range keys {
		id, share, _ := strings.Cut(strings.TrimPrefix(key, sharePrefix), "/")
		shared[id] = append(shared[id], handle{id, share})
	}
	mine, err := d.node.mineOnly(ctx)
	if err != nil {
		return nil, err
	}
	all := map[netip.Prefix][]handle{}
	err = d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err != nil {
			return nil // nothing of it is ended that is not certain
		}
		id := strings.TrimPrefix(kv.Key, poolPrefix)
		some := shared[id]
		if len(some) == 0 {
			some = []handle{{id: id}}
		}
		all[rec.Subnet] = append(all[rec.Subnet], slices.DeleteFunc(some, func(h handle) bool { return !mine(h) })...)
		return nil
	})
	return all, err
}

// without lists the leases of h that are old enough and that no endpoint has. An address that somebody named may be an
// --aux-address, which has no endpoint.
func (d *Driver) without(ctx context.Context, h handle, networks []Use, now time.Time) ([]suspect, error) {
	var found []suspect
	err := d.ledger.leases(ctx, h.id, func(a netip.Addr, kv store.KV) error {
		l, err := decodeLease(kv)
		container := l.Kind == kindChosen || l.Kind == kindAsked && l.Name != ""
		ours := h.share == "" || slices.Contains(l.Holders, h.share)
		if err != nil || !container || !ours || now.Sub(l.Since) < sweepAge {
			return nil
		}
		if !slices.ContainsFunc(networks, func(u Use) bool { return slices.Contains(u.Addrs, a) }) {
			found = append(found, suspect{h, a, kv, l})
		}
		return nil
	})
	return found, err
}
