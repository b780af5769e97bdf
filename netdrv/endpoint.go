package netdrv

import (
	"context"
	"errors"
	"fmt"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/store"
)

const (
	// waitForDevice bounds the wait for a device that is on its way back: a container that is restarted gives its VF back
	// and wants one at once, and the engine does not try a failed start again.
	waitForDevice = 6 * time.Second
	// waitForHome bounds the wait of DeleteEndpoint for the kernel to bring the device home. It is there already unless
	// the engine was killed; the reconciler waits for the rest.
	waitForHome = 3 * time.Second
	// undoBound bounds what is done after the caller's own time is up.
	undoBound = 8 * time.Second
	// insist is for how long a device that cannot be put back is tried again at short intervals.
	insist = 10 * time.Second
	// tries is how many devices are tried before broken hardware is the answer.
	tries = 3
)

// createEndpoint claims a device for an endpoint and makes it ready, or answers from the ledger that it has been done.
func (d *Driver) createEndpoint(ctx context.Context, r *plugin.CreateEndpointRequest) (endpointRecord, error) {
	e := endpointRecord{Version: recordVersion, Network: r.NetworkID, ID: r.EndpointID}
	if e.Network == "" || e.ID == "" {
		return e, errNoID
	}
	unlock, err := d.locks.lock(ctx, endpointKey(e.Network, e.ID))
	if err != nil {
		return e, err
	}
	defer unlock()
	have, err := read[endpointRecord](ctx, d.store, endpointKey(e.Network, e.ID))
	if err == nil {
		return d.answerAgain(ctx, have.rec)
	}
	if !errors.Is(err, store.ErrNotFound) {
		return e, err
	}
	n, err := d.network(ctx, e.Network)
	if err != nil {
		return e, err
	}
	if n.config, err = d.containerConfig(ctx, n, r); err != nil {
		return e, err
	}
	n.container = d.nameOf(ctx, n, r)
	if n.prefer, err = d.preferred(ctx, n); err != nil {
		return e, err
	}
	n.endpoint = e.ID
	if i := r.Interface; i != nil {
		e.IPv4, e.IPv6 = i.Address != "", i.AddressIPv6 != ""
	}
	e.Prefix = n.prefix
	return d.lend(ctx, n, e)
}

// answerAgain answers a repeated request from the record, if the endpoint has a device that is ready.
func (d *Driver) answerAgain(ctx context.Context, e endpointRecord) (endpointRecord, error) {
	l, err := d.loan(ctx, e.Device)
	if err == nil && l.State != ready && l.State != lent {
		err = fmt.Errorf("endpoint %s: its device is being put back after a crash; try again", short(e.ID))
	}
	return e, err
}

// containerConfig is the network's config with what the user said for this container: --mac-address and driver-opt.
func (d *Driver) containerConfig(ctx context.Context, n *network, r *plugin.CreateEndpointRequest) (*config, error) {
	own, err := containerRaw(r.Options)
	if err != nil {
		return nil, err
	}
	c, err := parseContainerOptions(n.Options, own)
	if err != nil {
		return nil, err
	}
	if r.Interface != nil && r.Interface.MacAddress != "" {
		mac, err := parseMAC(r.Interface.MacAddress)
		if err == nil && c.mac != "" && c.mac != mac {
			err = fmt.Errorf("option mac: %s is not the --mac-address %s", c.mac, mac)
		}
		if err != nil {
			return nil, err
		}
		c.mac = mac
	}
	if c.vlan == nil || n.vlan != nil && *n.vlan == *c.vlan {
		return c, nil
	}
	_, others, err := d.networks(ctx, n.ID)
	if err != nil {
		return nil, err
	}
	return c, vlanFree(c.vlan, n.Devices, others)
}

// lend tries devices until one is ready.
func (d *Driver) lend(ctx context.Context, n *network, e endpointRecord) (endpointRecord, error) {
	var err error
	for range tries {
		var done bool
		if e, done, err = d.lendOne(ctx, n, e); done {
			return e, err
		}
		d.log.Warn("device is broken, trying another", zap.NamedError("err", err))
	}
	return e, err
}

// lendOne claims one device and makes it ready. done is false when the device is broken and another may be tried.
func (d *Driver) lendOne(ctx context.Context, n *network, e endpointRecord) (_ endpointRecord, done bool, _ error) {
	l, unlock, err := d.claim(ctx, n, e)
	if err != nil {
		return e, true, err
	}
	defer unlock()
	dev, err := d.mode(l.Mode).prepare(ctx, l, func() error { return d.advance(ctx, l, claimed) })
	if err == nil {
		e.Device, e.MAC = l.Device, ""
		if dev.Type == "ether" && dev.Kind != hw.IPVlan { // an ipvlan's is its parent's, and cannot be set
			e.MAC = dev.MAC
		}
		err = d.markReady(ctx, n, l, e)
	}
	if err == nil {
		err = ctx.Err() // the engine has given up: it would never delete what it does not know
	}
	if err == nil {
		return e, true, nil
	}
	undo, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	broken := notReady(err) && ctx.Err() == nil
	if len(l.parts) == 0 {
		l.broken = broken
	}
	return e, !broken, errors.Join(err, d.giveUp(undo, l, err))
}

// markReady writes down that an endpoint has its device, and that its container has had it. Parts come first: they end
// with what they are part of, if a crash comes in between.
func (d *Driver) markReady(ctx context.Context, n *network, l *loan, e endpointRecord) error {
	also, err := d.remember(ctx, n, l.Device)
	if err != nil {
		return err
	}
	for _, p := range l.parts {
		if err := d.advance(ctx, p, ready); err != nil {
			return err
		}
	}
	return d.advance(ctx, l, ready, append(also, put(endpointKey(e.Network, e.ID), e))...)
}

// giveUp takes back a loan that came to nothing, and then its parts.
func (d *Driver) giveUp(ctx context.Context, l *loan, why error) error {
	errs := []error{d.giveUpOne(ctx, l, why, remove(endpointKey(l.Network, l.Endpoint)))}
	for _, p := range l.parts {
		errs = append(errs, d.giveUpOne(ctx, p, why))
	}
	return errors.Join(errs...)
}

// giveUpOne takes back one device. A broken one is put back as well as it goes and kept out of use.
func (d *Driver) giveUpOne(ctx context.Context, l *loan, why error, also ...write) error {
	if err := d.advance(ctx, l, freeing, also...); err != nil {
		return err
	}
	if l.broken {
		return d.quarantine(ctx, l, errors.Join(why, d.mode(l.Mode).release(ctx, l)))
	}
	if err := d.putBack(ctx, l); err != nil { // its driver may still be making the netdev
		d.log.Warn("device not put back yet", append(l.fields(), zap.NamedError("err", err))...)
		d.nudge()
	}
	return nil
}

// claim chooses a device and writes the loan down; unlock ends its exclusive use by this call. If all are in use but one
// is on its way back, it waits for that.
func (d *Driver) claim(ctx context.Context, n *network, e endpointRecord) (_ *loan, unlock func(), _ error) {
	give := time.NewTimer(waitForDevice)
	defer give.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	var busy *allInUse
	for {
		l, unlock, err := d.claimNow(ctx, n, e)
		switch {
		case l != nil:
			return l, unlock, nil
		case busy != nil && ctx.Err() != nil:
			return nil, nil, fmt.Errorf("%w: %w", busy, ctx.Err())
		case err != nil && !(errors.As(err, &busy) && busy.soon):
			return nil, nil, err
		}
		select {
		case <-give.C:
			return nil, nil, fmt.Errorf("%w (waited %s)", err, waitForDevice)
		case <-ctx.Done():
		case <-again.C:
		}
	}
}

// claimNow chooses a device and writes the loan down. The loan is nil when somebody else was quicker.
func (d *Driver) claimNow(ctx context.Context, n *network, e endpointRecord) (*loan, func(), error) {
	unlockPFs, err := d.lockPFs(ctx, n)
	if err != nil {
		return nil, nil, err
	}
	defer unlockPFs()
	loans, err := d.loans(ctx)
	if err != nil {
		return nil, nil, err
	}
	l, err := d.modeOf(n.config).claim(ctx, n, loans)
	if err != nil {
		return nil, nil, err
	}
	var keys []string
	for _, x := range l.all() {
		keys = append(keys, loanKey(x.Device))
	}
	unlock, err := d.locks.lockAll(ctx, keys)
	if err != nil {
		return nil, nil, err
	}
	e.Device = l.Device
	taken, err := d.start(ctx, l, e)
	if err != nil || taken {
		unlock()
		return nil, nil, err
	}
	d.log.Info("device", append(l.fields(), stateField(claimed))...)
	return l, unlock, nil
}

// lockPFs takes the locks of a network's devices, in an order that is the same for all networks.
func (d *Driver) lockPFs(ctx context.Context, n *network) (unlock func(), _ error) {
	var names []string
	for _, dev := range n.Devices {
		names = append(names, "pf "+dev.ID.PCI())
	}
	return d.locks.lockAll(ctx, names)
}

// join answers where the engine finds the endpoint's device.
func (d *Driver) join(ctx context.Context, r *plugin.JoinRequest) (*plugin.JoinResponse, error) {
	if r.NetworkID == "" || r.EndpointID == "" {
		return nil, errNoID
	}
	unlock, err := d.locks.lock(ctx, endpointKey(r.NetworkID, r.EndpointID))
	if err != nil {
		return nil, err
	}
	defer unlock()
	n, err := d.network(ctx, r.NetworkID)
	if err != nil {
		return nil, err
	}
	e, err := read[endpointRecord](ctx, d.store, endpointKey(r.NetworkID, r.EndpointID))
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: %w", short(r.EndpointID), err)
	}
	l, err := d.loan(ctx, e.rec.Device)
	if err != nil {
		return nil, fmt.Errorf("endpoint %s: device %s: %w", short(r.EndpointID), e.rec.Device, err)
	}
	dev, err := d.host.Find(l.Device)
	if err != nil {
		return nil, fmt.Errorf("%s: cannot be moved into the container: %w", l.Label, err)
	}
	if l.State != lent {
		if err := d.advance(ctx, l, lent); err != nil {
			return nil, err
		}
	}
	res := &plugin.JoinResponse{InterfaceName: plugin.InterfaceName{SrcName: dev.Name, DstPrefix: e.rec.Prefix}}
	gateways(n, e.rec, res)
	return res, nil
}

// deleteEndpoint forgets an endpoint and puts its device back, waiting for it for as long as patience. The engine ignores
// errors of this call and never repeats it, so that what cannot be done now is left to the reconciler.
func (d *Driver) deleteEndpoint(ctx context.Context, nid, eid string, patience time.Duration) error {
	if nid == "" || eid == "" {
		return errNoID
	}
	unlock, err := d.locks.lock(ctx, endpointKey(nid, eid))
	if err != nil {
		return err
	}
	defer unlock()
	e, err := read[endpointRecord](ctx, d.store, endpointKey(nid, eid))
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	unlockDevice, err := d.locks.lock(ctx, loanKey(e.rec.Device))
	if err != nil {
		return err
	}
	defer unlockDevice()
	l, err := d.loan(ctx, e.rec.Device)
	switch {
	case errors.Is(err, store.ErrNotFound) || err == nil && l.Endpoint != eid:
		_, err = transact(ctx, d.store, nil, []write{remove(e.kv.Key)})
		return err
	case err != nil:
		return err
	case l.State == freeing || l.State == quarantined: // the reconciler was quicker
		return nil
	}
	if err := d.advance(ctx, l, freeing, remove(e.kv.Key)); err != nil {
		return err
	}
	d.bringHome(ctx, l, patience)
	d.freeParts(ctx, l.Device)
	return nil
}

// freeParts puts back what a bond was made of, once that is gone; otherwise the reconciler does when it is.
func (d *Driver) freeParts(ctx context.Context, whole hw.ID) {
	if !whole.IsMade() {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	loans, err := d.loans(ctx)
	for id, l := range loans {
		if l.PartOf != whole {
			continue
		}
		unlock, ok := d.locks.tryLock(loanKey(id))
		if !ok { // the reconciler is at it
			continue
		}
		_, settleErr := d.settle(ctx, id, map[hw.ID]time.Time{})
		err = errors.Join(err, settleErr)
		unlock()
	}
	if err != nil {
		d.log.Warn("device not put back yet", zap.String("part_of", string(whole)), zap.NamedError("err", err))
		d.nudge()
	}
}

// bringHome waits for a device to come home and puts it back, or leaves it to the reconciler. The caller holds the
// loan's lock, and has done so since before the loan was freeing: nobody else can have had the device since.
func (d *Driver) bringHome(ctx context.Context, l *loan, patience time.Duration) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), undoBound)
	defer cancel()
	give := time.NewTimer(patience)
	defer give.Stop()
	again := time.NewTicker(50 * time.Millisecond)
	defer again.Stop()
	for {
		err := d.putBack(ctx, l)
		if errors.Is(err, hw.ErrAway) && pause(ctx, again.C, give.C) {
			continue
		}
		if err != nil {
			d.log.Warn("device not put back yet", append(l.fields(), zap.NamedError("err", err))...)
			d.nudge()
		}
		return
	}
}

// pause waits for the next look; it is false when there will be none.
func pause(ctx context.Context, next, end <-chan time.Time) bool {
	select {
	case <-end:
		return false
	case <-ctx.Done():
		return false
	case <-next:
		return true
	}
}

// putBack puts a device back and ends its loan. A device that is in the host and cannot be put back is tried again, for a
// while: others may be at it, such as udev; then it is quarantined. The error matches hw.ErrAway while it has not come
// home. After a reboot there is nothing to put back: names and settings are what the host's configuration has made of them
// since. The caller holds the loan's lock.
func (d *Driver) putBack(ctx context.Context, l *loan) error {
	if l.past {
		return d.end(ctx, l)
	}
	err := d.mode(l.Mode).release(ctx, l)
	switch {
	case err == nil:
		return d.end(ctx, l)
	case errors.Is(err, hw.ErrAway), l.State == freeing && time.Since(l.Since) < insist:
		return err
	}
	return d.quarantine(ctx, l, err)
}

// quarantine keeps a device out of use, for everybody to see why. It returns why.
func (d *Driver) quarantine(ctx context.Context, l *loan, why error) error {
	was := l.Reason
	l.Reason = why.Error()
	if l.State == quarantined && l.Reason == was {
		return why
	}
	return errors.Join(why, d.advance(ctx, l, quarantined))
}
