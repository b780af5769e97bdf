package vfpool

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// upPrefix is that of the keys of upRecords.
const upPrefix = "up/"

// upRecord says that a device of a network was seen up. If it is down later, in the same boot and with the same driver, an administrator
// has set it down: without the record nothing has set it up yet, as after a boot or when its driver was loaded again.
type upRecord struct {
	record.Extra
	Version int    `json:"v"`
	Device  hw.ID  `json:"device"`
	Boot    string `json:"boot"`
	Index   int    `json:"index"` // its ifindex, which is another one when its driver was loaded again
}

func upKey(id hw.ID) string { return upPrefix + string(id) }

// CheckUp records that a device is up. A device that is down and was up before is a [*BusyError], as it may be up again in a moment: what an
// administrator has set down is not brought up silently. A device that is down and was not up yet may be brought up.
func (p *Pool) CheckUp(ctx context.Context, n hw.Netdev) error {
	now, known, err := p.seenUp(ctx, n)
	if err != nil || known || !n.Up {
		return err
	}
	_, err = ledger.Transact(ctx, p.Store, nil, ledger.Put(upKey(n.ID), now))
	return err
}

// seenUp is CheckUp that records nothing: known is true if the record, which is now, is there.
func (p *Pool) seenUp(ctx context.Context, n hw.Netdev) (now upRecord, known bool, _ error) {
	r, err := ledger.Get[upRecord](ctx, p.Store, upKey(n.ID))
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return now, false, err
	}
	now = upRecord{Extra: r.Rec.Extra, Version: ledger.Version, Device: n.ID, Boot: p.Host.Boot(), Index: n.Index}
	known = err == nil && r.Rec == now
	if !n.Up && known {
		return now, true, &BusyError{Soon: true, Text: fmt.Sprintf("%s was set down on the host while networks use it; when it may be used again: "+
			"ip link set %s up", n.Name, n.Name)}
	}
	return now, known, nil
}

// Raising logs that a device is going to be brought up.
func (p *Pool) Raising(n hw.Netdev) {
	p.Log.Info("device is down, bringing it up", zap.String("device", n.Name), zap.String("id", string(n.ID)))
}

// Raised is CheckUp for a device that was brought up just now.
func (p *Pool) Raised(ctx context.Context, id hw.ID) error {
	n, err := p.Host.Find(id)
	if err != nil || !n.Up {
		return err
	}
	return p.CheckUp(ctx, n)
}

// forgetUp removes what is recorded about the devices of a PCI function, before the plugin itself may set them down.
func (p *Pool) forgetUp(ctx context.Context, pci string) error {
	return p.forgetUpIf(ctx, func(id hw.ID) bool { return id.PCI() == pci })
}

// ForgetUnused removes what is recorded about devices that no network has any more. The caller holds the lock of all networks.
func (p *Pool) ForgetUnused(ctx context.Context) error {
	networks, err := ledger.List[ledger.Network](ctx, p.Store, ledger.NetworkPrefix)
	if err != nil {
		return err
	}
	return p.forgetUpIf(ctx, func(id hw.ID) bool {
		return !slices.ContainsFunc(networks, func(n ledger.Rev[ledger.Network]) bool { return n.Rec.Has(id) })
	})
}

func (p *Pool) forgetUpIf(ctx context.Context, unneeded func(hw.ID) bool) error {
	all, err := ledger.List[upRecord](ctx, p.Store, upPrefix)
	if err != nil {
		return err
	}
	var writes []ledger.Write
	for _, r := range all {
		if unneeded(r.Rec.Device) {
			writes = append(writes, ledger.Del(r.KV.Key))
		}
	}
	if len(writes) == 0 {
		return nil
	}
	_, err = ledger.Transact(ctx, p.Store, nil, writes...)
	return err
}
