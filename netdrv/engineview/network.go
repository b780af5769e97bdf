package engineview

import (
	"regexp"

	"github.com/mellanox/passthrough/netdrv/ledger"
)

// A swarm creates its networks on a node with the first task there, and deletes them with the last. Its engine does not store them:
// if it is killed, or the machine loses power, they are never deleted. If a task needs one again it is created again, under the
// same ID. Until then it would keep its VLAN and its VFs from other networks.

// swarmID matches the IDs of a swarm's networks (swarmkit, identity/randomid.go); those of an engine have 64 digits.
var swarmID = regexp.MustCompile(`^[a-z0-9]{25}$`)

// Staleness says how sure it is that the engine has forgotten a network.
type Staleness int

// The degrees of staleness.
const (
	Known   Staleness = iota // the engine has stored it, or has confirmed it to this process
	Suspect                  // the engine may have forgotten it
	Stale                    // the engine has forgotten it
)

// Confirmed returns the record of a network that the engine is creating or confirming now. An engine's own networks are not marked:
// the engine stores them.
func (v *View) Confirmed(n ledger.Network) ledger.Network {
	if swarmID.MatchString(n.ID) {
		n.Boot, n.Process = v.boot, v.process
	}
	return n
}

// Staleness decides whether the engine still knows a network. A swarm's network of an earlier boot is Stale: the engine ended with the
// machine. One that this process was not told of is Suspect: the process ends with the engine's, but the plugin may have been
// restarted alone. Should the network be alive after all, its next task fails once, and the swarm creates it again.
func (v *View) Staleness(n ledger.Network) Staleness {
	switch {
	case n.Boot != "" && n.Boot != v.boot:
		return Stale
	case swarmID.MatchString(n.ID) && n.Process != v.process:
		return Suspect
	}
	return Known
}
