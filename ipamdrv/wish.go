package ipamdrv

import (
	"context"
	"crypto/rand"
	"net/netip"
	"time"

	"github.com/docker/go-plugins-helpers/ipam"
	"github.com/docker/libnetwork/netlabel"
)

// wish is a request for an address.
type wish struct {
	addr  netip.Addr // not valid: any
	lease leaseRecord
	share string // the share of a shared pool that it is for
}

// any says whether any address would do.
func (w wish) any() bool { return w.lease.Kind == kindChosen }

// of is the wish of the network that has handle h.
func (w wish) of(h handle) wish {
	if w.share = h.share; h.share != "" {
		w.lease.Holders = []string{h.share}
	}
	return w
}

// newWish checks a request.
func newWish(r *ipam.RequestAddressRequest) (wish, error) {
	if r.PoolID == "" {
		return wish{}, refuse(ErrInvalid, "the request names no pool")
	}
	name := r.Options[optEndpointName]
	mac := r.Options[netlabel.MacAddress]
	w := wish{lease: leaseRecord{V: recordVersion, Kind: kindChosen, Name: name[:min(len(name), maxName)],
		MAC: mac[:min(len(mac), maxMAC)], Since: time.Now().UTC(), Token: rand.Text()}}
	if r.Address != "" {
		var err error
		if w.addr, err = parseAddr(r.Address); err != nil {
			return wish{}, err
		}
		w.lease.Kind = kindAsked
	}
	if r.Options[optAddressType] == typeGateway {
		w.lease.Kind = kindGateway
	}
	return w, nil
}

// String names the wish in errors.
func (w wish) String() string {
	what := "address"
	if w.lease.Kind == kindGateway {
		what = "gateway"
	}
	if w.addr.IsValid() {
		what += " " + w.addr.String()
	}
	return what
}

// grant gives what is wished for from p; given is false when the asker had it already.
func (w wish) grant(ctx context.Context, p *pool, ask prober) (a netip.Addr, given bool, err error) {
	switch w.lease.Kind {
	case kindGateway:
		return p.gateway(ctx, w.addr, w.lease)
	case kindAsked:
		w.lease.Container = p.state.bound(w.share)
		return w.addr, true, p.giveAsked(ctx, w.addr, w.lease, ask)
	}
	a, err = p.choose(ctx, w.lease, ask)
	return a, true, err
}
