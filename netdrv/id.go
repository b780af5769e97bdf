package netdrv

import (
	"errors"
	"fmt"
	"regexp"
)

// errNoID is the error of a request that names no network or endpoint. The engine sends such requests when it repeats one whose body it
// has consumed (engines 20.10 to 29).
var errNoID = errors.New("request names no network or endpoint")

// engineID matches the IDs of networks and endpoints: 64 hexadecimal digits, or 25 letters and digits for a network of a swarm. It also
// matches others, but none that would make one key of the ledger look like another, as a slash does.
var engineID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// checkIDs refuses IDs that cannot be the engine's: IDs become parts of keys in the ledger.
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
