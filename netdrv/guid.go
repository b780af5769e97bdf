package netdrv

import (
	"cmp"
	"net"
	"slices"

	"github.com/mellanox/passthrough/hw"
)

// parseGUID reads a user's GUID in the form that devices show.
func parseGUID(s string) (hw.GUID, error) {
	octets, err := net.ParseMAC(s)
	other := func(b byte) bool { return b != octets[0] }
	if err != nil || len(octets) != 8 || !slices.ContainsFunc(octets, other) && (octets[0] == 0 || octets[0] == 0xff) {
		return "", errNotAllowed
	}
	return hw.GUID(octets.String()), nil
}

// named is what a PF has set for a VF, with the GUIDs that the VF has without anybody's asking: a VF that somebody else has
// made may have none.
func named(pf hw.PF, vf hw.VF, s hw.VFState) hw.VFState {
	own := hw.StableGUID(pf, vf.Index)
	s.NodeGUID, s.PortGUID = cmp.Or(s.NodeGUID, own), cmp.Or(s.PortGUID, own)
	return s
}

// guidLoan is the loan of a VF that has been given the wanted GUID, on whatever PF: they may be in one fabric.
func (c choice) guidLoan() *loan {
	for _, l := range c.loans {
		if c.want.guid != "" && l.Wish.PortGUID == c.want.guid {
			return l
		}
	}
	return nil
}
