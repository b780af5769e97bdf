package ipamdrv

import (
	"crypto/rand"
	"net/netip"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/ipamdrv/addr"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/ipamdrv/pool"
)

const (
	maxName = 128 // bytes of a container's name that are kept
	maxMAC  = 59  // bytes of a MAC that are kept: an InfiniBand one has 20 octets
)

// An addressRequest is a request for an address.
type addressRequest struct {
	addr   netip.Addr // not valid: any
	lease  pool.Lease
	share  string      // of a shared pool
	choice pool.Choice // of any address
}

// newAddressRequest checks a request.
func newAddressRequest(r *ipam.RequestAddressRequest) (addressRequest, error) {
	if r.PoolID == "" {
		return addressRequest{}, pool.Refuse(ErrInvalid, "the request names no pool")
	}
	name := r.Options[optEndpointName]
	mac := r.Options[netlabel.MacAddress]
	q := addressRequest{choice: pool.AnyAddress, lease: pool.Lease{V: pool.RecordVersion, Kind: pool.Any, Name: name[:min(len(name), maxName)],
		MAC: mac[:min(len(mac), maxMAC)], Since: time.Now().UTC(), Token: rand.Text()}}
	if r.Address != "" {
		var err error
		if q.addr, err = addr.Parse(r.Address); err != nil {
			return addressRequest{}, pool.Invalid(err)
		}
		q.lease.Kind = pool.Exact
	}
	if r.Options[optAddressType] == typeGateway {
		q.lease.Kind = pool.Gateway
	}
	return q, nil
}

// any returns true if any address will do.
func (q addressRequest) any() bool { return q.lease.Kind == pool.Any }

// from returns the request of the network that has handle h.
func (q addressRequest) from(h pool.Handle) addressRequest {
	if q.share = h.Share; h.Share != "" {
		q.lease.Holders = []string{h.Share}
	}
	return q
}

// String names the request in errors.
func (q addressRequest) String() string {
	what := "address"
	if q.lease.Kind == pool.Gateway {
		what = "gateway"
	}
	if q.addr.IsValid() {
		what += " " + q.addr.String()
	}
	return what
}

// A poolRequest is a request for a pool.
type poolRequest struct {
	rec    pool.Record // its subnet is not valid until one is found, if the request names none
	config option.Config
	v6     bool
}

// setGateway makes a gateway that a server has told, if it is valid, that of the pool, unless the user gave another or none. The pool's record has
// it as its option, so that the network has it also if the server cannot be reached when the engine asks for it.
func (q *poolRequest) setGateway(told netip.Addr) error {
	if gw := q.rec.Options["gateway"]; gw == "" || gw == "auto" {
		q.rec.Options["gateway"] = "none"
		if told.IsValid() {
			q.rec.Options["gateway"] = told.String()
		}
	}
	var err error
	if q.config, err = option.Parse(q.rec.Options); err != nil {
		return pool.Invalid(err)
	}
	return nil
}

// newPoolRequest checks a request.
func newPoolRequest(r *ipam.RequestPoolRequest) (*poolRequest, error) {
	q := &poolRequest{rec: pool.Record{V: pool.RecordVersion, Created: time.Now().UTC()}, v6: r.V6}
	var err error
	if q.rec.Options, err = option.OfUser(r.Options); err != nil {
		return nil, pool.Invalid(err)
	}
	if q.config, err = option.Parse(q.rec.Options); err != nil {
		return nil, pool.Invalid(err)
	}
	if err := checkUsable(q.config); err != nil {
		return nil, pool.Invalid(err)
	}
	if r.Pool == "" {
		switch {
		case r.SubPool != "":
			return nil, pool.Refuse(ErrInvalid, "ip-range %.64q: needs a --subnet", r.SubPool)
		case q.config.SLAAC && q.v6:
			return nil, pool.Refuse(ErrInvalid, "ipam option slaac: needs --subnet %s", linkLocal)
		}
		return q, nil
	}
	if q.rec.Subnet, err = addr.ParseNew("subnet", r.Pool); err != nil {
		return nil, pool.Invalid(err)
	}
	q.v6 = q.rec.Subnet.Addr().Is6()
	if r.SubPool != "" {
		if q.rec.Range, err = addr.ParseNew("ip-range", r.SubPool); err != nil {
			return nil, pool.Invalid(err)
		}
	}
	return q, q.check()
}

// checkUsable refuses options with addresses that no host can have.
func checkUsable(c option.Config) error {
	for _, gw := range c.Gateway.Addrs() {
		if err := addr.CheckUsable("ipam option gateway", addr.Range{First: gw, Last: gw}); err != nil {
			return err
		}
	}
	for _, r := range c.Exclude {
		if err := addr.CheckUsable("ipam option exclude", r); err != nil {
			return err
		}
	}
	return nil
}

// linkLocal is the subnet of IPv6 addresses that are valid on one segment only (RFC 4291 2.5.6).
var linkLocal = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80}), 64)

// check refuses a subnet that does not fit the rest of the request.
func (q *poolRequest) check() error {
	rec := q.rec
	if rec.Range.IsValid() {
		if err := addr.CheckInside(rec.Range, rec.Subnet); err != nil {
			return pool.Invalid(err)
		}
	}
	s := addr.NewSubnet(rec.Subnet, rec.Range, nil)
	if s.Lo > s.Hi {
		return pool.Refuse(ErrInvalid, "ip-range %s: its one address is %s of %s", rec.Range, s.Reserved(rec.Range.Addr()), rec.Subnet)
	}
	if q.config.SLAAC && q.v6 && rec.Subnet != linkLocal {
		return pool.Refuse(ErrInvalid, "ipam option slaac: the IPv6 subnet must be %s", linkLocal)
	}
	if gw := q.config.Gateway.For(rec.Subnet); rec.Subnet.Contains(gw) && s.Reserved(gw) != "" {
		return pool.Refuse(ErrInvalid, "ipam option gateway: %s is %s", gw, s.Reserved(gw))
	}
	return nil
}

// String names the request in errors.
func (q *poolRequest) String() string {
	if q.rec.Subnet.IsValid() {
		return "pool " + q.rec.Subnet.String() + ": request"
	}
	return "request pool"
}

// gateway returns the gateway that the options name, with a prefix length as the engine expects it; not valid for none.
func (q *poolRequest) gateway() netip.Prefix {
	gw := q.config.Gateway.For(q.rec.Subnet)
	if q.rec.Subnet.Contains(gw) {
		return netip.PrefixFrom(gw, q.rec.Subnet.Bits())
	}
	return netip.PrefixFrom(gw, gw.BitLen())
}
