package ipamdrv

import (
	"net/netip"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
)

// poolWish is a request for a pool.
type poolWish struct {
	rec poolRecord // its subnet is not valid before one is found, when the request names none
	config
	v6 bool
}

// newPoolWish checks a request for a pool.
func newPoolWish(r *ipam.RequestPoolRequest) (*poolWish, error) {
	w := &poolWish{rec: poolRecord{V: recordVersion, Created: time.Now().UTC()}, v6: r.V6}
	var err error
	if w.rec.Options, err = userOptions(r.Options); err != nil {
		return nil, err
	}
	if w.config, err = parseOptions(w.rec.Options); err != nil {
		return nil, err
	}
	if r.Pool == "" {
		switch {
		case r.SubPool != "":
			return nil, refuse(ErrInvalid, "ip-range %.64q: needs a --subnet", r.SubPool)
		case w.slaac && w.v6:
			return nil, refuse(ErrInvalid, "ipam option slaac: needs --subnet %s", linkLocal)
		}
		return w, nil
	}
	if w.rec.Subnet, err = parsePrefix("subnet", r.Pool); err != nil {
		return nil, err
	}
	w.v6 = w.rec.Subnet.Addr().Is6()
	if r.SubPool != "" {
		if w.rec.Range, err = parsePrefix("ip-range", r.SubPool); err != nil {
			return nil, err
		}
	}
	return w, w.check()
}

// linkLocal is the subnet of IPv6 addresses that mean something on one segment only (RFC 4291 2.5.6).
var linkLocal = netip.PrefixFrom(netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80}), 64)

// check refuses a subnet that does not go with what else is asked for.
func (w *poolWish) check() error {
	rec := w.rec
	if rec.Range.IsValid() {
		if err := checkInside(rec.Range, rec.Subnet); err != nil {
			return err
		}
	}
	s := newSubnet(rec.Subnet, rec.Range, nil)
	if s.lo > s.hi {
		return refuse(ErrInvalid, "ip-range %s: its one address is %s of %s", rec.Range, s.reserved(rec.Range.Addr()), rec.Subnet)
	}
	if w.slaac && w.v6 && rec.Subnet != linkLocal {
		return refuse(ErrInvalid, "ipam option slaac: the IPv6 subnet must be %s", linkLocal)
	}
	if gw := w.config.gateway.of(rec.Subnet); rec.Subnet.Contains(gw) && s.reserved(gw) != "" {
		return refuse(ErrInvalid, "ipam option gateway: %s is %s", gw, s.reserved(gw))
	}
	return nil
}

// checkInside refuses an ip-range that is not inside the subnet.
func checkInside(within, subnet netip.Prefix) error {
	if !subnet.Contains(within.Addr()) || within.Bits() < subnet.Bits() {
		return refuse(ErrInvalid, "ip-range %s: must be inside subnet %s", within, subnet)
	}
	return nil
}

// String names the wish in errors.
func (w *poolWish) String() string {
	if w.rec.Subnet.IsValid() {
		return "pool " + w.rec.Subnet.String() + ": request"
	}
	return "request pool"
}

// gateway is the one that the options name, with a prefix length as the engine wants it; not valid for none.
func (w *poolWish) gateway() netip.Prefix {
	gw := w.config.gateway.of(w.rec.Subnet)
	if w.rec.Subnet.Contains(gw) {
		return netip.PrefixFrom(gw, w.rec.Subnet.Bits())
	}
	return netip.PrefixFrom(gw, gw.BitLen())
}
