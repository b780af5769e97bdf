package dhcp

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"github.com/mellanox/passthrough/internal/retry"
)

// A Client leases addresses for any number of clients. Its methods may run concurrently.
type Client struct {
	mu     sync.Mutex // guards relays and their users
	relays map[relayKey]*relay
}

// New returns a client. It opens no socket before it needs one.
func New() *Client { return &Client{relays: map[relayKey]*relay{}} }

// A Segment is where a DHCP server is asked: on a device of the host, from its address in Subnet.
type Segment struct {
	Device string
	Subnet netip.Prefix // not valid: from any IPv4 address of the device
}

// An Offer is what a server offers to a client that leases nothing.
type Offer struct {
	Server netip.Addr
	Addr   netip.Prefix // with the subnet's prefix length
	Router netip.Addr   // not valid for none
}

const (
	// answerTime bounds an exchange whose context has no deadline. dnsmasq pings an address for three seconds before it offers it.
	answerTime = 8 * time.Second
	// margin is what is left of a deadline for the rest of the request.
	margin = 500 * time.Millisecond
	// resendFirst and resendMax are the times after which a message is sent again (RFC 2131 4.1 has 4 s first, which is long for a container
	// that waits).
	resendFirst, resendMax = time.Second, 4 * time.Second
)

// bound returns a context that ends in time for an answer to the caller.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if until, ok := ctx.Deadline(); ok {
		return context.WithDeadline(ctx, until.Add(-min(margin, time.Until(until)/2)))
	}
	return context.WithTimeout(ctx, answerTime)
}

// Discover asks for an offer and takes none. The error matches [ErrNoAnswer] or [ErrDevice].
func (c *Client) Discover(ctx context.Context, s Segment, who Identity) (Offer, error) {
	x, err := c.begin(ctx, s, who)
	if err != nil {
		return Offer{}, err
	}
	defer x.end()
	offer, err := x.discover(netip.Addr{})
	if err != nil {
		return Offer{}, err
	}
	return newOffer(offer)
}

// newOffer reads an offer.
func newOffer(offer *dhcpv4.DHCPv4) (Offer, error) {
	bits, _ := offer.SubnetMask().Size() // 0 for none, and for one that is no prefix
	a := addrOf(offer.YourIPAddr)
	if bits == 0 || !a.IsValid() {
		return Offer{}, fmt.Errorf("the offer of DHCP server %s has no address or no subnet mask", addrOf(offer.ServerIdentifier()))
	}
	o := Offer{Server: addrOf(offer.ServerIdentifier()), Addr: netip.PrefixFrom(a, bits)}
	if routers := offer.Router(); len(routers) > 0 {
		o.Router = addrOf(routers[0])
	}
	return o, nil
}

// Acquire leases an address: want, or any if want is not valid. The error matches [ErrNoAnswer], [ErrRefused] or [ErrDevice].
func (c *Client) Acquire(ctx context.Context, s Segment, who Identity, want netip.Addr) (netip.Addr, Lease, error) {
	x, err := c.begin(ctx, s, who)
	if err != nil {
		return netip.Addr{}, Lease{}, err
	}
	defer x.end()
	var a netip.Addr
	var l Lease
	// dnsmasq does not keep what it offers: of clients that ask at once several are offered one address, and one of them gets it.
	faster := func(err error) bool { return errors.Is(err, ErrRefused) && !want.IsValid() }
	err = retry.Do(x.ctx, retry.Backoff{First: 20 * time.Millisecond, Max: time.Second}, answerTime, faster, func() (err error) {
		a, l, err = x.acquire(want)
		return err
	})
	return a, l, err
}

// Renew asks the server of a lease to renew it or, if anyServer, any server (REBINDING). The error matches [ErrNoAnswer], [ErrRefused] or
// [ErrDevice].
func (c *Client) Renew(ctx context.Context, s Segment, a netip.Addr, l Lease, anyServer bool) (Lease, error) {
	x, err := c.begin(ctx, s, l.Identity())
	if err != nil {
		return Lease{}, err
	}
	defer x.end()
	to := l.Server
	if anyServer {
		to = broadcast
	}
	return x.request(a, to, dhcpv4.WithClientIP(a.AsSlice()))
}

// Release tells the server of a lease that it ends. There is no answer: an address whose release is lost is free when its lease expires.
func (c *Client) Release(ctx context.Context, s Segment, a netip.Addr, l Lease) error {
	return c.tell(ctx, s, l, l.Server, dhcpv4.MessageTypeRelease, dhcpv4.WithClientIP(a.AsSlice()))
}

// Decline tells the server of a lease that another host has the address.
func (c *Client) Decline(ctx context.Context, s Segment, a netip.Addr, l Lease) error {
	return c.tell(ctx, s, l, broadcast, dhcpv4.MessageTypeDecline, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())))
}

// tell sends a message that has no answer.
func (c *Client) tell(ctx context.Context, s Segment, l Lease, to netip.Addr, kind dhcpv4.MessageType, what dhcpv4.Modifier) error {
	x, err := c.begin(ctx, s, l.Identity())
	if err != nil {
		return err
	}
	defer x.end()
	m, err := x.message(kind, what, dhcpv4.WithOption(dhcpv4.OptServerIdentifier(l.Server.AsSlice())))
	if err != nil {
		return err
	}
	return x.relay.send(m, to)
}

// broadcast reaches every server of the segment.
var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// An exchange is messages of one transaction, and the answers to them.
type exchange struct {
	ctx     context.Context
	cancel  context.CancelFunc
	client  *Client
	relay   *relay
	who     Identity
	id      dhcpv4.TransactionID
	answers chan *dhcpv4.DHCPv4
	begun   time.Time
}

// begin begins an exchange. The caller ends it.
func (c *Client) begin(ctx context.Context, s Segment, who Identity) (*exchange, error) {
	r, err := c.open(ctx, s)
	if err != nil {
		return nil, err
	}
	x := &exchange{client: c, relay: r, who: who, answers: make(chan *dhcpv4.DHCPv4, 8), begun: time.Now()}
	if x.id, err = dhcpv4.GenerateTransactionID(); err != nil {
		c.close(r)
		return nil, err
	}
	x.ctx, x.cancel = bound(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.waiting[x.id] = x.answers
	return x, nil
}

// end ends an exchange.
func (x *exchange) end() {
	x.cancel()
	x.relay.mu.Lock()
	delete(x.relay.waiting, x.id)
	x.relay.mu.Unlock()
	x.client.close(x.relay)
}

// message returns a message of the client, as relayed. A relay agent counts its hop.
func (x *exchange) message(kind dhcpv4.MessageType, more ...dhcpv4.Modifier) (*dhcpv4.DHCPv4, error) {
	all, err := x.who.modifiers()
	if err != nil {
		return nil, err
	}
	all = append(all, dhcpv4.WithTransactionID(x.id), dhcpv4.WithMessageType(kind), dhcpv4.WithRelay(x.relay.from.AsSlice()))
	return dhcpv4.New(append(all, more...)...)
}

// parameters are what a server is asked for.
var parameters = dhcpv4.WithRequestedOptions(dhcpv4.OptionSubnetMask, dhcpv4.OptionRouter, dhcpv4.OptionRenewTimeValue,
	dhcpv4.OptionRebindingTimeValue)

// acquire leases an address: DISCOVER, OFFER, REQUEST, ACK.
func (x *exchange) acquire(want netip.Addr) (netip.Addr, Lease, error) {
	offer, err := x.discover(want)
	if err != nil {
		return netip.Addr{}, Lease{}, err
	}
	a := addrOf(offer.YourIPAddr)
	if want.IsValid() && a != want {
		return netip.Addr{}, Lease{}, fmt.Errorf("%w: %s offers %s to this container, and not %s", ErrRefused, addrOf(offer.ServerIdentifier()), a, want)
	}
	l, err := x.request(a, broadcast, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(a.AsSlice())),
		dhcpv4.WithOption(dhcpv4.OptServerIdentifier(offer.ServerIdentifier())))
	return a, l, err
}

// discover returns the first offer, or that of want if it comes at once.
func (x *exchange) discover(want netip.Addr) (*dhcpv4.DHCPv4, error) {
	more := []dhcpv4.Modifier{parameters}
	if want.IsValid() {
		more = append(more, dhcpv4.WithOption(dhcpv4.OptRequestedIPAddress(want.AsSlice())))
	}
	m, err := x.message(dhcpv4.MessageTypeDiscover, more...)
	if err != nil {
		return nil, err
	}
	return x.ask(m, broadcast, func(answer *dhcpv4.DHCPv4) bool { return answer.MessageType() == dhcpv4.MessageTypeOffer })
}

// request asks for the address a, and returns its lease.
func (x *exchange) request(a, to netip.Addr, more ...dhcpv4.Modifier) (Lease, error) {
	m, err := x.message(dhcpv4.MessageTypeRequest, append(more, parameters)...)
	if err != nil {
		return Lease{}, err
	}
	answer, err := x.ask(m, to, func(answer *dhcpv4.DHCPv4) bool {
		return answer.MessageType() == dhcpv4.MessageTypeAck || answer.MessageType() == dhcpv4.MessageTypeNak
	})
	if err != nil {
		return Lease{}, err
	}
	server := addrOf(answer.ServerIdentifier())
	if answer.MessageType() == dhcpv4.MessageTypeNak {
		why := answer.Message()
		if why == "" {
			why = "it gives no reason"
		}
		return Lease{}, fmt.Errorf("%w: %s refuses %s: %s", ErrRefused, server, a, why)
	}
	got, l, err := newLease(answer, x.who, x.begun)
	if err == nil && got != a {
		err = fmt.Errorf("%w: %s gives %s in place of %s", ErrRefused, server, got, a)
	}
	return l, err
}

// ask sends a message until an answer is wanted, or the exchange's time is over.
func (x *exchange) ask(m *dhcpv4.DHCPv4, to netip.Addr, wanted func(*dhcpv4.DHCPv4) bool) (*dhcpv4.DHCPv4, error) {
	start := time.Now()
	for wait := resendFirst; ; wait = min(2*wait, resendMax) {
		if err := x.relay.send(m, to); err != nil {
			return nil, err
		}
		resend := time.NewTimer(wait)
		for waiting := true; waiting; {
			select {
			case answer := <-x.answers:
				if wanted(answer) {
					resend.Stop()
					return answer, nil
				}
			case <-resend.C:
				waiting = false
			case <-x.ctx.Done():
				resend.Stop()
				if errors.Is(x.ctx.Err(), context.Canceled) {
					return nil, x.ctx.Err()
				}
				return nil, fmt.Errorf("%w on %s within %.0f s; is there one that has a free address, and does the firewall let UDP port %d in?",
					ErrNoAnswer, x.relay.device, time.Since(start).Seconds(), port)
			}
		}
	}
}
