package netdrv

import (
	"fmt"
	"regexp"
)

// engineID is what the engine calls networks and endpoints: 64 hexadecimal digits, or 25 letters and digits for a network of
// a swarm. More is let pass than that, but nothing that would make one key of the ledger look like another, as a slash does.
var engineID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// checkIDs refuses IDs that cannot be the engine's. They become part of keys in the ledger.
func checkIDs(ids ...string) error {
	for _, id := range ids {
		if id == "" {
			return errNoID
		}
		if !engineID.MatchString(id) {
			return fmt.Errorf("%.40q is no ID of a network or an endpoint; it has letters, digits, _, . and - alone, 128 at most", id)
		}
	}
	return nil
}
