package netdrv_test

import (
	"fmt"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"
)

// TestInvalidIDs: IDs are parts of the ledger's keys. Every call refuses one that could make two keys alike, and changes nothing: network a/b
// with endpoint c is not network a with endpoint b/c.
func TestInvalidIDs(t *testing.T) {
	t.Parallel()
	for _, bad := range []string{"a/b", "..", "../net/n", "a\x00b", "a b", "ä", strings.Repeat("x", 129), "\n", "/"} {
		t.Run(fmt.Sprintf("%.10q", bad), func(t *testing.T) {
			story(t, func(m *machine) {
				m.kernel.AddPF(igb())
				m.mustCreate("n", "netdevice=ens1f0")
				m.mustRun("web", "n")
				host, ledger := m.kernel.String(), m.ledger()
				want := fmt.Sprintf("%.40q is no ID of a network or an endpoint; it has letters, digits, _, . and - alone, 128 at most", bad)
				for _, err := range []error{
					m.create(bad, "netdevice=ens1f0"), m.remove(bad), m.deleteFrom("web", bad),
					second(m.join("web", bad)), second(m.createEndpoint("web", bad, plugin.EndpointInterface{})),
					second(m.driver.DeleteEndpoint(m.ctx, &plugin.DeleteEndpointRequest{NetworkID: "n", EndpointID: bad})),
					second(m.driver.Join(m.ctx, &plugin.JoinRequest{NetworkID: "n", EndpointID: bad})),
					second(m.driver.CreateEndpoint(m.ctx, &plugin.CreateEndpointRequest{NetworkID: "n", EndpointID: bad})),
				} {
					wantError(t, err, want)
				}
				m.wantHost(host)
				if now := m.ledger(); now != ledger {
					t.Errorf("the ledger was\n%s\nand is\n%s", ledger, now)
				}
				m.end("web")
				m.mustRemove("n")
			})
		})
	}
}

// second returns the error of a call.
func second[T any](_ T, err error) error { return err }
