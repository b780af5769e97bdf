package ipamdrv

import (
	"go.uber.org/zap"

	"github.com/mellanox/passthrough/store"
)

// DryRun returns a driver that answers requests as this one does, and keeps what it writes to itself: the stores are not changed. The caller
// closes it. It logs nothing. For a pool with the option dhcp it asks the DHCP server for an offer, as a request does, and takes none; an IPAM server
// it asks for its networks.
func (d *Driver) DryRun() (*Driver, error) {
	c := d.config
	c.dry = true
	c.Store, c.Journal, c.Log = store.NewOverlay(c.Store), nil, zap.NewNop()
	if c.Own != nil {
		c.Own, c.Journal = store.NewOverlay(c.Own), noJournal{}
	}
	return New(c)
}

// noJournal is the journal of a dry run: what it would keep does not happen.
type noJournal struct{}

func (noJournal) Add(string, []byte) error            { return nil }
func (noJournal) Remove(string) error                 { return nil }
func (noJournal) Entries() (map[string][]byte, error) { return nil, nil }
