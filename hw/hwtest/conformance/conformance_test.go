package conformance_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/hwtest/conformance"
)

func TestConformance(t *testing.T) {
	conformance.Kernel(t, func(t *testing.T) (hw.Kernel, conformance.Env) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func TestPortVLANsConformance(t *testing.T) {
	conformance.PortVLANs(t, func(t *testing.T) (hw.Kernel, conformance.Env) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func TestNewLinksConformance(t *testing.T) {
	conformance.NewLinks(t, []string{hw.Macvlan, hw.IPVlan, hw.Bond, hw.VLANDevice}, func(t *testing.T) (hw.Kernel, conformance.Env) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func TestARPConformance(t *testing.T) {
	conformance.ARP(t, func(t *testing.T) (hw.Kernel, conformance.ARPEnv) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func (e env) AddAddrIn(t *testing.T, ns, name, cidr string) {
	t.Helper()
	e.InNS(ns).AddAddr(name, cidr)
}

// env makes and moves links of a hwtest.Kernel.
type env struct{ *hwtest.Kernel }

func (e env) Add(t *testing.T, kind, name, other string) {
	t.Helper()
	switch kind {
	case "veth":
		e.AddVeth(name, other)
	case "macvlan":
		e.AddLink(hw.Link{Name: name, Kind: kind, Peer: e.Link(other).Index})
	default:
		e.AddLink(hw.Link{Name: name, Kind: kind})
	}
}

func (e env) AltName(t *testing.T, name, alt string) {
	t.Helper()
	e.GiveAltName(name, alt)
}

func (e env) EndNS(ns string) { e.KillNS(ns, 0) }

// TestSRIOVConformance: an igb, the preset and the record.
func TestSRIOVConformance(t *testing.T) {
	for _, m := range hwtest.Makes(t) {
		pf := m.PF
		if pf.Driver != "" && pf.Driver != "igb" || pf.Virtio {
			continue
		}
		pf.Up = true
		t.Run(m.Name, func(t *testing.T) {
			conformance.SRIOV(t, func(t *testing.T) conformance.TestPF {
				k := hwtest.New(t)
				k.AddPF(pf)
				return conformance.TestPF{Kernel: k, Sys: k.Sys, PCI: pf.PCI, VFDriver: "igbvf"}
			})
		})
	}
}
