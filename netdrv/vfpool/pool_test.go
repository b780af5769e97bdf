package vfpool_test

import (
	"testing"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/vfpool"
	"github.com/mellanox/passthrough/store/record"
	"github.com/mellanox/passthrough/store/storetest"
)

// TestUnknownFields: a plugin that is downgraded keeps what the newer one has recorded of a PF.
func TestUnknownFields(t *testing.T) {
	v := record.Versions{Oldest: ledger.Version, Newest: ledger.Version}
	storetest.KeepsUnknown[vfpool.PFRecord](t, v)
	storetest.KeepsUnknown[vfpool.UpRecord](t, v)
}
