package hw_test

import (
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
)

// withFake returns the attributes of VFs with a fake one in place of the rate, whose value it has.
func withFake(fake hw.VFAttr) []hw.VFAttr {
	attrs := hw.VFAttrs()
	attrs[slices.Index(attrs, hw.VFRate)] = fake
	return attrs
}

// TestAddVFAttr: an attribute that is added in one row is part of the snapshot, is set, verified and restored.
func TestAddVFAttr(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		fake := hw.FakeVFAttr()
		b.h = b.h.WithVFAttrs(withFake(fake)...)
		b.must(b.k.SetVF(b.pf().Index, 0, fake, hw.VFState{Rate: hw.Rate{Min: 1, Max: 2}}))
		before := b.k.String()
		want := hw.VFState{Rate: hw.Rate{Min: 3, Max: 4}}
		was, _, err := b.attach(hw.VFSpec{VFState: want, Policies: map[hw.VFAttr]hw.Policy{fake: hw.Required}})
		b.must(err)
		if was.VF.Rate != (hw.Rate{Min: 1, Max: 2}) {
			b.Errorf("the snapshot has %+v", was.VF.Rate)
		}
		states, err := b.h.VFStates(b.pf())
		if err != nil || states[0].Rate != want.Rate {
			b.Errorf("it was set to %+v, %v", states[0].Rate, err)
		}
		b.must(b.h.RestoreVF(b.ctx, "0000:01:00.0", 0, "0000:01:10.0", was))
		b.wantHost(before)
	})
}

// pretender is a kernel whose driver accepts an attribute without applying it.
type pretender struct {
	hw.Kernel
	ignored hw.VFAttr
}

func (p pretender) SetVF(pf, vf int, a hw.VFAttr, want hw.VFState) error {
	if a == p.ignored {
		return nil
	}
	return p.Kernel.SetVF(pf, vf, a, want)
}

// TestAddVFAttrVerified: an attribute that was accepted and not applied is an error if it is required.
func TestAddVFAttrVerified(t *testing.T) {
	t.Parallel()
	onBench(t, igb(), func(b *bench) {
		fake := hw.FakeVFAttr()
		b.h = openWith(t, b.k, pretender{b.k, fake}).WithVFAttrs(withFake(fake)...)
		spec := hw.VFSpec{VFState: hw.VFState{Rate: hw.Rate{Max: 4}}, Policies: map[hw.VFAttr]hw.Policy{fake: hw.Required}}
		_, err := b.h.SetVF(b.ctx, b.pf(), b.vf(0), spec)
		wantError(b.T, err, "vf 0 of ens1f0 (0000:01:10.0): set fake min 0 max 4 Mbit/s with igb: the device says "+
			"min 0 max 0 Mbit/s")
		spec.Policies[fake] = hw.BestEffort
		if _, err := b.h.SetVF(b.ctx, b.pf(), b.vf(0), spec); err != nil {
			b.Errorf("with best effort: %v", err)
		}
	})
}

// TestVFAttrMessages: what is sent to set an attribute reads as what was set, and sets nothing else.
func TestVFAttrMessages(t *testing.T) {
	t.Parallel()
	fake := hw.FakeVFAttr()
	state := hw.VFState{NodeGUID: "02:00:c9:03:00:a1:b2:c3", PortGUID: "02:00:c9:03:00:a1:b2:c4", MAC: "02:00:00:00:00:01",
		VLAN: hw.VLAN{ID: 100, QoS: 3}, Rate: hw.Rate{Min: 10, Max: 100}, LinkMode: hw.LinkDisable, Spoofchk: true, Trust: true}
	for _, a := range append(hw.VFAttrs(), fake) {
		if a == hw.VFTrunk { // which has a file
			continue
		}
		attr, value, err := a.Encode(5, state)
		if err != nil {
			t.Errorf("%v: %v", a, err)
			continue
		}
		linkType := "ether"
		if !a.On(linkType) {
			linkType = "infiniband"
		}
		var want hw.VFState
		a.Copy(&want, &state)
		vf, got, err := hw.VFInfo{attr: value}.DecodeWith(linkType, a)
		if vf != 5 || got != want || err != nil {
			t.Errorf("%v: vf %d is %+v, %v", a, vf, got, err)
		}
	}
	service := hw.VFState{VLAN: hw.VLAN{ID: 7, Proto: hw.Dot1AD}}
	tag := hw.VFState{VLAN: hw.VLAN{ID: 7}}
	info := hw.VFInfo{}
	for _, s := range []hw.VFState{service, tag} { // the kernel reports both
		attr, value, err := hw.VFVLAN.Encode(0, s)
		if err != nil {
			t.Fatal(err)
		}
		info[attr] = value
	}
	if _, got, err := info.Decode("ether"); got != service || err != nil {
		t.Errorf("a service tag is %+v, %v", got, err)
	}
	for _, s := range []hw.VFState{{MAC: "02:00"}, {NodeGUID: "02:00:00:00:00:01"}} {
		for _, a := range []hw.VFAttr{hw.VFMAC, hw.VFNodeGUID} {
			var zero hw.VFState
			a.Copy(&zero, &s)
			if _, _, err := a.Encode(0, s); zero != (hw.VFState{}) && !errors.Is(err, hw.ErrInvalid) {
				t.Errorf("%s: %v", a.Op(s), err)
			}
		}
	}
}

// TestPoliciesInRecords: records name attributes as they always have, and an unknown name is an error.
func TestPoliciesInRecords(t *testing.T) {
	t.Parallel()
	const vf, link = `{"mac":1,"node_guid":2,"vlan":2}`, `{"mtu":2,"promisc":2}`
	var s struct {
		VF   map[hw.VFAttr]hw.Policy
		Link map[hw.LinkAttr]hw.Policy
	}
	text := `{"VF":` + vf + `,"Link":` + link + `}`
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	if s.VF[hw.VFMAC] != hw.BestEffort || s.VF[hw.VFNodeGUID] != hw.Required || s.Link[hw.LinkMTU] != hw.Required {
		t.Errorf("read %+v", s)
	}
	again, err := json.Marshal(s)
	if diff := cmp.Diff(text, string(again)); diff != "" || err != nil {
		t.Errorf("%v\n%s", err, diff)
	}
	for _, text := range []string{`{"VF":{"colour":2}}`, `{"Link":{"colour":2}}`} {
		if err := json.Unmarshal([]byte(text), &s); !errors.Is(err, hw.ErrInvalid) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
