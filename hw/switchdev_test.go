package hw_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// switchdev returns a PF in switchdev mode with two VFs, as mlx5 presents it.
func switchdev() hwtest.PF {
	return hwtest.PF{Behaviour: hwtest.MLX5(), Name: "ens1f0np0", PCI: "0000:01:00.0", Driver: "mlx5_core", VFDriver: "mlx5_core", PortName: "p0",
		TotalVFs: 4, VFs: 2, Up: true, Switchdev: true}
}

// TestRepresentors: the representors of a PF's VFs are found by their phys_port_name and switch, in each form that drivers have, whether or not
// they have a parent device; those of another PF, of another machine's VFs, of a legacy PF and of no switch are not.
func TestRepresentors(t *testing.T) {
	t.Parallel()
	of := func(names ...string) string { return strings.Join(names, " ") }
	for name, c := range map[string]struct {
		change func(pf *hwtest.PF)
		want   string
	}{
		"mlx5":                {func(*hwtest.PF) {}, of("0 ens1f0npf0vf0", "1 ens1f0npf0vf1")},
		"ice":                 {func(pf *hwtest.PF) { pf.Behaviour, pf.Driver, pf.VFDriver = hwtest.ICE(), "ice", "iavf" }, of("0 ens1f0npf0vf0", "1 ens1f0npf0vf1")},
		"sfc":                 {func(pf *hwtest.PF) { pf.PortForm = "p0pf0vf%d" }, of("0 ens1f0np0pf0vf0", "1 ens1f0np0pf0vf1")},
		"without a parent":    {func(pf *hwtest.PF) { pf.Apart = true }, of("0 ens1f0npf0vf0", "1 ens1f0npf0vf1")},
		"old mlx5":            {func(pf *hwtest.PF) { pf.Apart, pf.PortForm = true, "%d" }, of("0 ens1f0n0", "1 ens1f0n1")},
		"of the other port":   {func(pf *hwtest.PF) { pf.Apart, pf.PortForm = true, "pf1vf%d" }, ""},
		"of another machine":  {func(pf *hwtest.PF) { pf.PortForm = "c1pf0vf%d" }, ""},
		"of a sub-function":   {func(pf *hwtest.PF) { pf.PortForm = "pf0sf%d" }, ""},
		"mlx5 in legacy mode": {func(pf *hwtest.PF) { pf.Switchdev = false }, ""},
		"igb":                 {func(pf *hwtest.PF) { *pf = igb(); pf.Name = "ens1f0np0" }, ""},
	} {
		t.Run(name, func(t *testing.T) {
			k := hwtest.New(t)
			added := switchdev()
			c.change(&added)
			k.AddPF(added)
			h := open(t, k)
			pf, err := h.UsablePF("ens1f0np0")
			if err != nil {
				t.Fatal(err)
			}
			if on, err := h.Switchdev(pf); err != nil || on != (name != "igb" && name != "mlx5 in legacy mode") {
				t.Errorf("switchdev: %t, %v", on, err)
			}
			found, err := h.Representors(pf)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for vf := range 4 {
				if n, ok := found[vf]; ok {
					got = append(got, fmt.Sprint(vf, " ", n.Name))
				}
			}
			if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestRepresentorIsNoPF: however a PF in switchdev mode is selected, its representors, which are on its PCI function, are not taken for it.
func TestRepresentorIsNoPF(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(switchdev())
	h := open(t, k)
	for _, ref := range []string{"ens1f0np0", "0000:01:00.0", "driver:mlx5_core", "ens1f0*"} {
		if pfs, err := h.PFs(ref); err != nil || len(pfs) != 1 || pfs[0].Name != "ens1f0np0" {
			t.Errorf("%s: %v, %v", ref, pfs, err)
		}
	}
	if nics, err := h.NICs(); err != nil || len(nics) != 1 || nics[0].NumVFs != 2 {
		t.Errorf("nics: %+v, %v", nics, err)
	}
	_, err := h.PF("ens1f0npf0vf1")
	wantError(t, err, "ens1f0npf0vf1: it is a port of the nic's switch, which leads to a vf; name the pf")
	if _, vf, err := h.VF("0000:01:00.0", 1, "0000:01:10.2"); err != nil || vf.Index != 1 {
		t.Errorf("a vf is found by the address of its pf: %v, %v", vf, err)
	}
}

// TestTrunkFiles: what drivers say in the file of a VF's trunk is read, in both forms, and what is none is an error.
func TestTrunkFiles(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	pf := igb()
	pf.Trunks = hwtest.TrunkList
	k.AddPF(pf)
	h := open(t, k)
	for text, want := range map[string]string{
		"": "", "5": "5", "2,4-6,10-20": "2,4-6,10-20", "Allowed 802.1Q VLANs: 0 7 10 11 12 4094": "0,7,10-12,4094", "Allowed 802.1Q VLANs:": "",
		"4096": "error", "all": "error", "Allowed VLANs: 5": "error",
	} {
		restore := k.OverwriteAttr("bus/pci/devices/0000:01:00.0/sriov/1/trunk", text+"\n")
		p, err := h.PF("ens1f0")
		if err != nil {
			t.Fatal(err)
		}
		states, err := h.VFStates(p)
		if got := states[1].Trunk; (err != nil) != (want == "error") || err == nil && got != want {
			t.Errorf("%q is %q, %v; want %s", text, got, err, want)
		}
		restore()
	}
}

// TestJoinBridge: a bridge that accepts VLANs without applying them is an error; what is no bridge is refused.
func TestJoinBridge(t *testing.T) {
	t.Parallel()
	k := hwtest.New(t)
	k.AddPF(switchdev())
	k.AddLink(hw.Link{Name: "br0", Kind: "bridge"})
	h := openWith(t, k, forgetful{k})
	n, err := h.Netdev("ens1f0npf0vf0")
	if err != nil {
		t.Fatal(err)
	}
	br, filters, err := h.Bridge("br0")
	if err != nil || filters || br.Name != "br0" {
		t.Fatalf("%+v, %t, %v", br, filters, err)
	}
	vlans := hw.PortVLANs{100: {PVID: true, Untagged: true}, 200: {}, 201: {}, 300: {Untagged: true}, 400: {PVID: true}}
	wantError(t, h.JoinBridge(n, br, vlans), "ens1f0npf0vf0: set the vlans of its port to 100 untagged, 200-201, 300 untagged outwards, "+
		"400 untagged inwards: the bridge has 1 untagged")
	if err := h.JoinBridge(n, br, nil); err != nil {
		t.Error(err)
	}
	if err := h.LeaveBridge(n); err != nil || k.Link(n.Name).Master != 0 {
		t.Errorf("%+v, %v", k.Link(n.Name), err)
	}
	_, err = h.PortVLANs(n)
	wantError(t, err, "ens1f0npf0vf0: read the vlans of its port: not supported by the driver (operation not supported)")
}

// forgetful is a kernel that accepts VLANs of a port without applying them.
type forgetful struct{ *hwtest.Kernel }

func (forgetful) SetPortVLANs(int, hw.PortVLANs) error { return nil }
