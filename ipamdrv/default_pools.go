package ipamdrv

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/internal/number"
	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/pool"
	"github.com/mellanox/passthrough/store"
)

// A DefaultPool is a prefix from which networks without a subnet get one: the next free one with Bits as prefix length.
type DefaultPool struct {
	Prefix netip.Prefix
	Bits   int
}

// ParseDefaultPools parses a list such as "10.200.0.0/16:24,fd00:200::/48:64".
func ParseDefaultPools(text string) ([]DefaultPool, error) {
	var all []DefaultPool
	for item := range strings.SplitSeq(text, ",") {
		if item = strings.TrimSpace(item); item == "" {
			continue
		}
		colon := max(strings.LastIndexByte(item, ':'), 0)
		prefix, err := addr.ParseNew("default pool", item[:colon])
		if err != nil {
			return nil, pool.Invalid(err)
		}
		bits, ok := number.Parse(item[colon+1:], prefix.Bits(), prefix.Addr().BitLen()-2)
		if !ok {
			return nil, pool.Refuse(ErrInvalid, "default pool %.64q: the length of its subnets must be %d to %d", item, prefix.Bits(),
				prefix.Addr().BitLen()-2)
		}
		all = append(all, DefaultPool{prefix, bits})
	}
	return all, nil
}

// allocateSubnet finds a subnet that overlaps neither a pool nor a subnet of the host. It is the caller's under the condition that it returns.
func (c *creator) allocateSubnet(ctx context.Context, v6 bool) (netip.Prefix, store.Cond, error) {
	family := map[bool]string{false: "IPv4", true: "IPv6"}[v6]
	from := slices.DeleteFunc(slices.Clone(c.defaults), func(p DefaultPool) bool { return p.Prefix.Addr().Is6() != v6 })
	if len(from) == 0 {
		return netip.Prefix{}, store.Cond{}, pool.Refuse(ErrInvalid, "no %s subnet; give the network one with --subnet, or the plugin "+
			"some to choose from (DEFAULT_POOLS)", family)
	}
	taken, err := c.takenSubnets(ctx)
	if err != nil {
		return netip.Prefix{}, store.Cond{}, err
	}
	for _, p := range from {
		subnet, ok := p.next(taken)
		if !ok {
			continue
		}
		cond, err := c.ifSubnetFree(ctx, subnet)
		return subnet, cond, err
	}
	return netip.Prefix{}, store.Cond{}, pool.Refuse(ErrFull, "every %s subnet of the plugin's DEFAULT_POOLS is used by a network or "+
		"by the host; remove a network, give this one a --subnet, or the plugin more to choose from", family)
}

// ifSubnetFree returns the condition that no other request allocates subnet.
func (c *creator) ifSubnetFree(ctx context.Context, subnet netip.Prefix) (store.Cond, error) {
	s := c.pools.ledger.Store
	kv, err := s.Get(ctx, pool.CarvedKey(subnet))
	if errors.Is(err, store.ErrNotFound) {
		return store.Absent(pool.CarvedKey(subnet)), nil
	}
	if err != nil {
		return store.Cond{}, err
	}
	if _, err = s.Get(ctx, pool.Key(string(kv.Value))); err == nil {
		return store.Cond{}, pool.ErrChanged // since the pools were listed
	} else if !errors.Is(err, store.ErrNotFound) {
		return store.Cond{}, err
	}
	return store.Unchanged(kv), nil // left by a pool that could not be read when it was removed
}

// takenSubnets lists the subnets that a new one must not overlap, in order.
func (c *creator) takenSubnets(ctx context.Context) ([]netip.Prefix, error) {
	var taken []netip.Prefix
	if c.host != nil {
		var err error
		if taken, err = c.host(); err != nil {
			return nil, fmt.Errorf("the host's subnets: %w", err)
		}
	}
	err := c.pools.ledger.Store.Range(ctx, pool.Prefix, func(kv store.KV) error {
		rec, err := pool.DecodeRecord(kv)
		if err == nil {
			taken = append(taken, rec.Subnet)
		}
		return nil // a pool that cannot be read has no working network
	})
	for i, p := range taken {
		taken[i] = p.Masked()
	}
	slices.SortFunc(taken, func(a, b netip.Prefix) int {
		return cmp.Or(a.Addr().Compare(b.Addr()), cmp.Compare(a.Bits(), b.Bits()))
	})
	return taken, err
}

// next returns the first subnet that overlaps none of taken, which are in order.
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
		after := addr.LastOf(wider).Next()
		if !after.IsValid() || !p.Prefix.Contains(after) {
			return netip.Prefix{}, false
		}
		candidate = netip.PrefixFrom(after, p.Bits)
	}
	return candidate, true
}

// overlappingHostSubnet returns a subnet of the host that overlaps this one; not valid if there is none.
func (c *creator) overlappingHostSubnet(subnet netip.Prefix) (netip.Prefix, error) {
	if c.host == nil {
		return netip.Prefix{}, nil
	}
	all, err := c.host()
	if i := slices.IndexFunc(all, subnet.Overlaps); i >= 0 {
		return all[i], err
	}
	return netip.Prefix{}, err
}
