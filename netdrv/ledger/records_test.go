package ledger_test

import (
	"testing"

	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/store/record"
	"github.com/mellanox/passthrough/store/storetest"
)

// TestUnknownFields: a plugin that is downgraded keeps what the newer one has recorded.
func TestUnknownFields(t *testing.T) {
	v := record.Versions{Oldest: ledger.Version, Newest: ledger.Version}
	storetest.KeepsUnknown[ledger.Network](t, v)
	storetest.KeepsUnknown[ledger.Endpoint](t, v)
}
