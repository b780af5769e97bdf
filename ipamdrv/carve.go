package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/store"
)

// DefaultPool is a prefix that networks without a subnet of their own get one of: of Bits, the next that is free.
type DefaultPool struct {
	Prefix netip.Prefix
	Bits   int
}

// ParseDefaultPools reads a list such as "10.200.0.0/16:24,fd00:200::/48:64".
func ParseDefaultPools(text string) ([]DefaultPool, error) {
	var all []DefaultPool
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		colon := max(strings.LastIndexByte(item, ':'), 0)
		prefix, err := parsePrefix("default pool", item[:colon])
		if err != nil {
			return nil, err
		}
		bits, err := strconv.Atoi(item[colon+1:])
		if err != nil || bits < prefix.Bits() || bits > prefix.Addr().BitLen()-2 {
			return nil, refuse(ErrInvalid, "default pool %.64q: the length of its subnets must be %d to %d", item, prefix.Bits(),
				prefix.Addr().BitLen()-2)
		}
		all = append(all, DefaultPool{prefix, bits})
	}
	return all, nil
}

// carve finds a subnet for a network that has none: one that no pool has and the host has nothing to do with. It is the
// caller's under the condition that comes with it.
func (d *Driver) carve(ctx context.Context, v6 bool) (netip.Prefix, store.Cond, error) {
	family := map[bool]string{false: "IPv4", true: "IPv6"}[v6]
	from := slices.DeleteFunc(slices.Clone(d.defaults), func(p DefaultPool) bool { return p.Prefix.Addr().Is6() != v6 })
	if len(from) == 0 {
		return netip.Prefix{}, store.Cond{}, refuse(ErrInvalid, "no %s subnet; give the network one with --subnet, or the plugin "+
			"some to choose from (DEFAULT_POOLS)", family)
	}
	taken, err := d.taken(ctx)
	if err != nil {
		return netip.Prefix{}, store.Cond{}, err
	}
	for _, p := range from {
		subnet, ok := p.next(taken)
		if !ok {
			continue
		}
		cond, err := d.unclaimed(ctx, subnet)
		return subnet, cond, err
	}
	return netip.Prefix{}, store.Cond{}, refuse(ErrFull, "every %s subnet of the plugin's DEFAULT_POOLS is used by a network or "+
		"by the host; remove a network, give this one a --subnet, or the plugin more to choose from", family)
}

// unclaimed is the condition that nobody else carves subnet at this moment.
func (d *Driver) unclaimed(ctx context.Context, subnet netip.Prefix) (store.Cond, error) {
	kv, err := d.ledger.store.Get(ctx, carvedKey(subnet))
	if errors.Is(err, store.ErrNotFound) {
		return store.Absent(carvedKey(subnet)), nil
	}
	if err != nil {
		return store.Cond{}, err
	}
	if _, err = d.ledger.store.Get(ctx, poolKey(string(kv.Value))); err == nil {
		return store.Cond{}, errChanged // since the pools were listed
	} else if !errors.Is(err, store.ErrNotFound) {
		return store.Cond{}, err
	}
	return store.Unchanged(kv), nil // of a pool that could not be read when it was removed
}

// taken lists the subnets that a new one must not overlap, in order.
func (d *Driver) taken(ctx context.Context) ([]netip.Prefix, error) {
	var taken []netip.Prefix
	if d.host != nil {
		var err error
		if taken, err = d.host(); err != nil {
			return nil, fmt.Errorf("the host's subnets: %w", err)
		}
	}
	err := d.ledger.store.Range(ctx, poolPrefix, func(kv store.KV) error {
		rec, err := decodePool(kv)
		if err == nil {
			taken = append(taken, rec.Subnet)
		}
		return nil // a pool that cannot be read has no network that works
	})
	for i, p := range taken {
		taken[i] = p.Masked()
	}
	slices.SortFunc(taken, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return taken, err
}

// next is the first subnet that overlaps none of taken, which are in order.
func (p DefaultPool) next(taken []netip.Prefix) (netip.Prefix, bool) {
	candidate := netip.PrefixFrom(p.Prefix.Addr(), p.Bits)
	for _, t := range taken {
		if !t.Overlaps(candidate) {
			continue // before it, or after it
		}
		wider := candidate
		if t.Bits() < candidate.Bits() {
			wider = t
		}
		after := lastOf(wider).Next()
		if !after.IsValid() || !p.Prefix.Contains(after) {
			return netip.Prefix{}, false
		}
		candidate = netip.PrefixFrom(after, p.Bits)
	}
	return candidate, true
}

// onHost is a subnet of the host's that overlaps this one, not valid when there is none.
func (d *Driver) onHost(subnet netip.Prefix) (netip.Prefix, error) {
	if d.host == nil {
		return netip.Prefix{}, nil
	}
	all, err := d.host()
	if i := slices.IndexFunc(all, subnet.Overlaps); i >= 0 {
		return all[i], err
	}
	return netip.Prefix{}, err
}
