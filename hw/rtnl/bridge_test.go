package rtnl

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestChangedVLANs: a port loses the VLANs that it is not to have, and is given those that it lacks or has otherwise; nothing else is sent.
func TestChangedVLANs(t *testing.T) {
	const native = vlanPVID | vlanUntagged
	type vlans = map[uint16]uint16
	for _, c := range []struct{ has, want, gone, added vlans }{
		{vlans{1: native}, vlans{1: native}, vlans{}, vlans{}},
		{vlans{1: native}, vlans{}, vlans{1: native}, vlans{}},
		{vlans{}, vlans{100: native, 200: 0}, vlans{}, vlans{100: native, 200: 0}},
		{vlans{1: native, 200: 0, 300: 0}, vlans{1: 0, 200: native, 300: 0}, vlans{}, vlans{1: 0, 200: native}},
	} {
		gone, added := changedVLANs(c.has, c.want)
		if diff := cmp.Diff([]vlans{c.gone, c.added}, []vlans{gone, added}); diff != "" {
			t.Errorf("from %v to %v (-want +got):\n%s", c.has, c.want, diff)
		}
		if diff := cmp.Diff(c.want, vlansOf(vlanMessage(c.want))); diff != "" {
			t.Errorf("%v as a message (-want +got):\n%s", c.want, diff)
		}
	}
}
