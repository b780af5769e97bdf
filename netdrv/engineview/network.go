package engineview

import "regexp"

// A swarm creates its networks on a node with the first task there, and deletes them with the last. Its engine does not store them:
// if it is killed, or the machine loses power, they are never deleted. If a task needs one again it is created again, under the
// same ID. Until then it would keep its VLAN and its VFs from other networks.

// swarmID matches the IDs of a swarm's networks (swarmkit, identity/randomid.go); those of an engine have 64 digits.
var swarmID = regexp.MustCompile(`^[a-z0-9]{25}$`)

// A Network has the facts about a network.
type Network struct {
	ID string
	// Boot and Process are of the boot and the process of the plugin in which a swarm's network was created or confirmed last; ""
	// for an engine's own network, which the engine stores.
	Boot, Process string
}

// Staleness says how sure it is that the engine has forgotten a network.
type Staleness int

// Known is a network that the engine has stored, or has confirmed to this process. Suspect is one that its engine may have forgotten.
// Stale is one that it has forgotten.
const (
	Known Staleness = iota
	Suspect
	Stale
)

// Confirmed returns the facts about a network that the engine is creating or confirming now.
func (v *View) Confirmed(n Network) Network {
	if swarmID.MatchString(n.ID) {
		n.Boot, n.Process = v.boot, v.process
	}
	return n
}

// Staleness decides whether the engine still knows a network. A swarm's network of an earlier boot is Stale: the engine ended with the
// machine. One that this process was not told of is Suspect: the process ends with the engine's, but the plugin may have been
// restarted alone. Should the network be alive after all, its next task fails once, and the swarm creates it again.
func (v *View) Staleness(n Network) Staleness {
	switch {
	case n.Boot != "" && n.Boot != v.boot:
		return Stale
	case swarmID.MatchString(n.ID) && n.Process != v.process:
		return Suspect
	}
	return Known
}
