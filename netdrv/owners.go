package netdrv

import (
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"path"
	"regexp"
	"slices"
	"sort"
	"strings"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/internal/keylock"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/store"
)

// Attachments attaches devices for owners that are no engine, such as a CNI plugin. It makes the same endpoints in the same ledger. An owner
// has no call for networks: one is created with its first endpoint, and removed after its last. The methods may be called concurrently, and
// again.
type Attachments struct {
	locks     *keylock.Map
	allocs    *alloc.Table
	host      *hw.Host
	networks  *networks
	endpoints *endpoints
	leases    *leases
}

// An owner is for whom an endpoint is created.
type owner struct {
	ledger.Owner
	container string // name for people; "" if unknown
	leases    []ledger.Lease
}

// record returns what the ledger keeps of an owner, nil for an engine.
func (o *owner) record() *ledger.Owner {
	if o == nil {
		return nil
	}
	return &o.Owner
}

var (
	// ownerKind matches the kinds of owners: they begin the IDs of networks.
	ownerKind = regexp.MustCompile(`^[a-z]{1,16}$`)
	// ownerID matches the IDs that owners give to attachments. They are shown to people, and are no part of a key.
	ownerID = regexp.MustCompile(`^[[:graph:]]{1,256}$`)
)

// checkOwner refuses an owner that cannot be told from others.
func checkOwner(o admin.Owner) error {
	switch {
	case !ownerKind.MatchString(o.Kind):
		return fmt.Errorf("owner: kind %.40q: must be 1 to 16 lower case letters", o.Kind)
	case !ownerID.MatchString(o.ID):
		return fmt.Errorf("owner: id %.40q: must be 1 to 256 printable characters without spaces", o.ID)
	}
	return nil
}

// ownersLock is the name of the lock of an owner.
func ownersLock(o admin.Owner) string { return "owner/" + o.Kind + "/" + o.ID }

// hashed returns an ID for what has none.
func hashed(kind string, of ...any) (string, error) {
	text, err := json.Marshal(of)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(text)
	return fmt.Sprintf("%s-%x", kind, sum[:16]), nil
}

// networkOf returns the ID of the network that a request is about.
func networkOf(r *admin.AttachRequest) (string, error) {
	of := []any{r.Network, r.Options}
	if r.IPAM != nil {
		of = append(of, r.IPAM)
	}
	return hashed(r.Owner.Kind, of...)
}

// Attach gives an owner a device. For one that has its device already, in the host still, it answers the same again.
func (t *Attachments) Attach(ctx context.Context, r *admin.AttachRequest) (*admin.Attachment, error) {
	if err := errors.Join(checkOwner(r.Owner), t.checkRequest(r)); err != nil {
		return nil, err
	}
	nid, err := networkOf(r)
	if err != nil {
		return nil, err
	}
	unlock, err := t.locks.Lock(ctx, ownersLock(r.Owner))
	if err != nil {
		return nil, err
	}
	defer unlock()
	unlockNetwork, err := t.locks.RLock(ctx, usersLock(nid))
	if err != nil {
		return nil, err
	}
	j, err := t.attach(ctx, nid, r)
	unlockNetwork()
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
		defer cancel()
		defer t.leases.release(ctx)
		return nil, errors.Join(err, t.removeUnused(ctx, nid))
	}
	return j.attachment(), nil
}

// checkRequest refuses what an owner cannot have.
func (t *Attachments) checkRequest(r *admin.AttachRequest) error {
	switch {
	case r.Network == "" || len(r.Network) > 256:
		return fmt.Errorf("network %.40q: must have a name of up to 256 bytes", r.Network)
	case !path.IsAbs(r.Owner.Netns):
		return fmt.Errorf("network namespace %.80q: must be an absolute path", r.Owner.Netns)
	case r.Owner.Inode == 0:
		return fmt.Errorf("network namespace %s: its inode is missing", r.Owner.Netns)
	case r.IPAM != nil && t.leases.from == nil:
		return errors.New("ipam: there is no IPAM driver")
	}
	if option.Has(r.Options, "driver") {
		return errors.New("option driver: only for containers of an engine; here the device is moved, and it would have no netdev")
	}
	for _, options := range []map[string]string{r.Options, r.Own} {
		for _, name := range []string{"prefix", "ifname"} {
			if _, given := options[name]; given {
				return fmt.Errorf("option %s: the one who moves the device names it", name)
			}
		}
	}
	return nil
}

// attach gives an owner a device of a network, which is created if it is missing. The caller holds the lock of the owner, and the network's
// as one of its users.
func (t *Attachments) attach(ctx context.Context, nid string, r *admin.AttachRequest) (*joined, error) {
	eid, err := hashed(r.Owner.Kind, r.Owner.ID)
	if err != nil {
		return nil, err
	}
	if err := t.endOther(ctx, nid, r); err != nil {
		return nil, err
	}
	if err := t.createNetwork(ctx, nid, r); err != nil {
		return nil, err
	}
	if err := t.createEndpoint(ctx, nid, eid, r); err != nil {
		return nil, err
	}
	j, err := t.endpoints.join(ctx, nid, eid, "")
	if err != nil {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
		defer cancel()
		return nil, errors.Join(err, t.endpoints.delete(ctx, nid, eid, 0))
	}
	return j, nil
}

// createNetwork creates the network of a request, with its pools, if it is missing. The caller holds the network's lock as one of its users.
func (t *Attachments) createNetwork(ctx context.Context, nid string, r *admin.AttachRequest) error {
	create := &plugin.CreateNetworkRequest{NetworkID: nid, Options: map[string]any{netlabel.GenericData: anyOf(r.Options)}}
	owned := ledger.Network{Owner: r.Owner.Kind, Name: r.Network}
	if r.IPAM == nil {
		return t.networks.create(ctx, create, owned)
	}
	if _, err := option.Parse(r.Options); err != nil { // before pools are requested for a typo
		return err
	}
	unlock, err := t.locks.Lock(ctx, "pools/"+nid) // another call may want the same network
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := ledger.Get[ledger.Network](ctx, t.endpoints.store, ledger.NetworkKey(nid)); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	err = t.requestPools(ctx, nid, r.IPAM, create, &owned)
	if err == nil {
		err = t.networks.create(ctx, create, owned)
	}
	if err != nil {
		return errors.Join(err, t.releasePools(ctx, nid, owned.PoolIDs))
	}
	return nil
}

// releasePools releases the pools that were requested for a network that was not created. If the network has a record nevertheless, because the
// answer of its transaction was lost, they are released with it.
func (t *Attachments) releasePools(ctx context.Context, nid string, ids []string) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	if _, err := ledger.Get[ledger.Network](ctx, t.endpoints.store, ledger.NetworkKey(nid)); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var errs []error
	for _, id := range ids {
		errs = append(errs, t.leases.from.ReleasePool(ctx, id))
	}
	return errors.Join(errs...)
}

// requestPools requests the pools of a network, one of each family at most. owned has those that it got, also if there is an error.
func (t *Attachments) requestPools(ctx context.Context, nid string, want *admin.IPAM, create *plugin.CreateNetworkRequest, owned *ledger.Network) error {
	subnets := want.Subnets
	if len(subnets) == 0 {
		subnets = []admin.Subnet{{}}
	}
	for _, s := range subnets {
		id, data, err := t.leases.from.RequestPool(ctx, nid, s, want.Options)
		if err != nil {
			return err
		}
		to, at := &create.IPv4Data, 0 // the record's pools are in this order, too
		if p, err := netip.ParsePrefix(data.Pool); err == nil && p.Addr().Is6() {
			to, at = &create.IPv6Data, len(owned.PoolIDs)
		}
		owned.PoolIDs = slices.Insert(owned.PoolIDs, at, id)
		if len(*to) > 0 {
			return fmt.Errorf("ipam: subnet %s: %s is there already; one of each family is possible", data.Pool, (*to)[0].Pool)
		}
		*to = append(*to, data)
	}
	return nil
}

// createEndpoint creates the endpoint of a request, with its addresses, if it is missing.
func (t *Attachments) createEndpoint(ctx context.Context, nid, eid string, r *admin.AttachRequest) error {
	seen := hw.Namespace{Device: r.Owner.Device, Inode: r.Owner.Inode}
	now, err := hw.NamespaceAt(r.Owner.Netns)
	own := &owner{container: cmp.Or(r.Container, r.Owner.ID), Owner: ledger.Owner{Kind: r.Owner.Kind, ID: r.Owner.ID, Netns: r.Owner.Netns,
		Device: seen.Device, Inode: seen.Inode, Seen: err == nil && now == seen}}
	addresses := r.Addresses
	if r.IPAM != nil {
		_, err := ledger.Get[ledger.Endpoint](ctx, t.endpoints.store, ledger.EndpointKey(nid, eid))
		switch {
		case errors.Is(err, store.ErrNotFound):
			addresses, err = t.lease(ctx, nid, r, own)
		case err == nil: // it is answered again, with the addresses that it has
			addresses = nil
		}
		if err != nil {
			return errors.Join(err, t.giveBack(ctx, nid, eid, own))
		}
	}
	req := &plugin.CreateEndpointRequest{NetworkID: nid, EndpointID: eid, Options: anyOf(r.Own), Interface: &plugin.EndpointInterface{}}
	if err = setAddresses(req.Interface, addresses); err == nil {
		_, err = t.endpoints.create(ctx, req, own)
	}
	if err != nil {
		return errors.Join(err, t.giveBack(ctx, nid, eid, own))
	}
	return nil
}

// lease leases an address of each of a network's pools: the one that is asked for, or any. own has what it got, also if there is an error.
func (t *Attachments) lease(ctx context.Context, nid string, r *admin.AttachRequest, own *owner) (addresses []string, _ error) {
	n, err := ledger.Get[ledger.Network](ctx, t.endpoints.store, ledger.NetworkKey(nid))
	if err != nil {
		return nil, err
	}
	wanted, err := askedFor(r.Addresses, n.Rec.Pools)
	if err != nil {
		return nil, err
	}
	for i, pool := range n.Rec.PoolIDs {
		got, lease, err := t.leases.from.Lease(ctx, pool, wanted[i], own.container, r.Own["mac"])
		if err != nil {
			return nil, err
		}
		addresses, own.leases = append(addresses, got), append(own.leases, lease)
	}
	return addresses, nil
}

// giveBack releases what was leased for an endpoint that was not created. If the endpoint has a record nevertheless, the reconciler removes it.
func (t *Attachments) giveBack(ctx context.Context, nid, eid string, own *owner) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	if len(own.leases) == 0 {
		return nil
	}
	if _, err := ledger.Get[ledger.Endpoint](ctx, t.endpoints.store, ledger.EndpointKey(nid, eid)); !errors.Is(err, store.ErrNotFound) {
		return err
	}
	var errs []error
	for _, l := range own.leases {
		errs = append(errs, t.leases.from.Release(ctx, l))
	}
	return errors.Join(errs...)
}

// askedFor returns which address a container asks for of each subnet, "" for any.
func askedFor(addresses, subnets []string) ([]string, error) {
	wanted := make([]string, len(subnets))
	for _, text := range addresses {
		bare, _, _ := strings.Cut(text, "/")
		a, err := netip.ParseAddr(bare)
		if err != nil {
			return nil, fmt.Errorf("address %.60q: %w", text, err)
		}
		i := slices.IndexFunc(subnets, func(s string) bool { p, err := netip.ParsePrefix(s); return err == nil && p.Addr().Is4() == a.Is4() })
		switch {
		case i < 0:
			return nil, fmt.Errorf("address %s: the network has no subnet of its family", a)
		case wanted[i] != "":
			return nil, fmt.Errorf("address %s: %s is asked for already; one of each family is possible", a, wanted[i])
		}
		wanted[i] = a.String()
	}
	return wanted, nil
}

// endOther ends what an owner has already, unless a repeated request may have it. It refuses a request for another namespace while the one of
// before may be there.
func (t *Attachments) endOther(ctx context.Context, nid string, r *admin.AttachRequest) error {
	a, err := t.find(ctx, r.Owner)
	if err != nil || a == nil {
		return err
	}
	of := a.Owner
	same := of.Device == r.Owner.Device && of.Inode == r.Owner.Inode && of.Netns == r.Owner.Netns
	_, err = t.host.Find(a.Device)
	switch {
	case err != nil && !errors.Is(err, hw.ErrAway):
		return err
	case same && err == nil && a.Network == nid:
		return nil
	case err != nil && (same || of.Netns != r.Owner.Netns):
		return fmt.Errorf("%s has a device already: %s, for network namespace %s; it has to be detached first", of, a.Label, of.Netns)
	}
	// The device is in the host, or another namespace has taken the place of the one that it was for.
	err = t.endpoints.delete(ctx, a.Network, a.Endpoint, returnTimeout)
	t.leases.release(ctx)
	return err
}

// find returns the allocation of what an owner has; nil for none, or if it is ending.
func (t *Attachments) find(ctx context.Context, o admin.Owner) (*alloc.Allocation, error) {
	held, err := t.allocs.List(ctx)
	if err != nil {
		return nil, err
	}
	for _, a := range held {
		if a.Owner.Is(o.Kind, o.ID) && a.PartOf == "" && !a.Ending() {
			return a, nil
		}
	}
	return nil, nil
}

// anyOf returns options in the form of the engine's requests.
func anyOf(options map[string]string) map[string]any {
	all := make(map[string]any, len(options))
	for name, value := range options {
		all[name] = value
	}
	return all
}

// Detach releases the device of an owner, if it has one. It waits a moment for a device that is coming home; what is not home by then is
// released later. The call is finished even if its caller gives up.
func (t *Attachments) Detach(ctx context.Context, o *admin.Owner) (*Empty, error) {
	if err := checkOwner(*o); err != nil {
		return nil, err
	}
	until, bounded := ctx.Deadline()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	if err := t.detach(ctx, o); err != nil {
		return nil, err
	}
	if bounded { // a store of addresses that is away has the rest of the caller's time: they are released later then
		ctx, cancel = context.WithDeadline(ctx, until)
		defer cancel()
	}
	t.leases.release(ctx)
	return &Empty{}, nil
}

// detach releases the device of an owner, and its network if that was its last one. What that had of the IPAM driver is left to be released.
func (t *Attachments) detach(ctx context.Context, o *admin.Owner) error {
	unlock, err := t.locks.Lock(ctx, ownersLock(*o))
	if err != nil {
		return err
	}
	defer unlock()
	a, err := t.find(ctx, *o)
	if err != nil || a == nil {
		return err
	}
	if err := t.endpoints.delete(ctx, a.Network, a.Endpoint, returnTimeout); err != nil {
		return err
	}
	return t.removeUnused(ctx, a.Network)
}

// removeUnused removes a network that has no endpoints left. If another call needs the network, it stays.
func (t *Attachments) removeUnused(ctx context.Context, nid string) error {
	unlock, err := t.locks.Lock(ctx, networksLock)
	if err != nil {
		return err
	}
	defer unlock()
	return t.networks.removeUnused(ctx, nid)
}

// Check answers what an owner has, the zero value if that is nothing.
func (t *Attachments) Check(ctx context.Context, o *admin.Owner) (*admin.Attachment, error) {
	if err := checkOwner(*o); err != nil {
		return nil, err
	}
	a, err := t.find(ctx, *o)
	if err != nil {
		return nil, err
	}
	if a == nil {
		return &admin.Attachment{}, nil
	}
	e, err := ledger.Get[ledger.Endpoint](ctx, t.endpoints.store, ledger.EndpointKey(a.Network, a.Endpoint))
	if err != nil {
		return nil, err
	}
	n, opts, err := readNetwork(ctx, t.endpoints.store, a.Network)
	if err != nil {
		return nil, err
	}
	j := &joined{Endpoint: e.Rec, alloc: a}
	j.netdev, err = t.host.Find(a.Device)
	if err != nil && !errors.Is(err, hw.ErrAway) {
		return nil, err
	}
	gateways(n, opts, e.Rec, &j.routes)
	routes(e.Rec, &j.routes)
	return j.attachment(), nil
}

// attachment returns a joined endpoint as its owner sees it.
func (j *joined) attachment() *admin.Attachment {
	at := &admin.Attachment{ID: string(j.Device), Label: j.alloc.Label, State: string(j.alloc.State), Owner: ownerStatus(j.alloc), Network: j.Network,
		Name: j.netdev.Name, Index: j.netdev.Index, MAC: string(cmp.Or(j.netdev.MAC, j.MAC)), MTU: j.netdev.MTU, Addresses: j.Addrs}
	if len(j.Leases) > 0 {
		at.Gateways = slices.DeleteFunc([]string{j.routes.Gateway, j.routes.GatewayIPv6}, func(gw string) bool { return gw == "" })
	}
	for _, s := range j.routes.StaticRoutes {
		at.Routes = append(at.Routes, admin.Route{Dst: s.Destination, Via: s.NextHop})
	}
	sort.SliceStable(at.Routes, func(i, j int) bool { return at.Routes[i].Via == "" && at.Routes[j].Via != "" })
	return at
}

// setAddresses gives an endpoint its addresses, one of each family at most.
func setAddresses(i *plugin.EndpointInterface, addresses []string) error {
	for _, text := range addresses {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return fmt.Errorf("address %.60q: %w", text, err)
		}
		to := &i.Address
		if p.Addr().Is6() {
			to = &i.AddressIPv6
		}
		if *to != "" {
			return fmt.Errorf("address %s: %s is there already; one of each family is possible", text, *to)
		}
		*to = text
	}
	return nil
}
