//go:build engine

package engine

import (
	"strings"
	"testing"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// TestStateDirectory: where docs/cluster.md says that the plugin's binary and state directory are, there they are: the ledger is the
// one that the plugin has open.
func TestStateDirectory(t *testing.T) {
	lines := append(docs.Commands(t, "../../../docs/cluster.md", "The plugin's binary on the host"), "$PLUGIN/rootfs/driver export /tmp/pools")
	_, err := Try("sh", "-c", strings.Join(lines, "\n"))
	const want = "/propagated-mount/ledger.db: lock: still locked after 2s; another instance of the plugin has it open"
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v; want an error with %q", err, want)
	}
}
