package hwtest_test

import (
	"testing"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

func TestContract(t *testing.T) {
	hwtest.Contract(t, func(t *testing.T) (hw.Kernel, hwtest.Env) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func TestMadeContract(t *testing.T) {
	hwtest.MadeContract(t, []string{hw.Macvlan, hw.IPVlan, hw.Bond}, func(t *testing.T) (hw.Kernel, hwtest.Env) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func TestNeighbourContract(t *testing.T) {
	hwtest.NeighbourContract(t, func(t *testing.T) (hw.Kernel, hwtest.NeighbourEnv) {
		k := hwtest.New(t)
		return k, env{k}
	})
}

func (e env) AddAddrIn(t *testing.T, ns, name, cidr string) {
	t.Helper()
	e.InNS(ns).AddAddr(name, cidr)
}

// env plays the world around a hwtest.Kernel.
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

func TestVFContract(t *testing.T) {
	hwtest.VFContract(t, func(t *testing.T) hwtest.Division {
		k := igb(t)
		return hwtest.Division{Kernel: k, Sys: k.Sys, PCI: "0000:01:00.0", VFDriver: "igbvf"}
	})
}
