package hwtest

import (
	"testing"

	"github.com/mellanox/passthrough/hw/card"
)

// A Behaviour is what the driver of a PF, or its device, does differently from another one. Start from a preset, such as
// IGB, and change what the test is about. A PF whose Behaviour is the zero value behaves as IGB says.
type Behaviour struct {
	Source Source // of the preset
	// Card has what a driver was recorded to refuse, with its errnos; nil for a preset. The fields below say the rest.
	Card *card.Card

	InfiniBand    bool      // its netdev and its VFs' are IPoIB; the PF sets GUIDs and link states, and nothing else
	RDMA          bool      // each function has an RDMA device as well, called mlx5_N; needed for InfiniBand
	VendorTree    bool      // with InfiniBand: GUIDs and link states are set through sriov/N/{node,port,policy} alone
	SubnetManager bool      // with InfiniBand: a subnet manager configures the ports of the fabric
	Trunks        TrunkForm // VFs have trunks, which are set through a file; "" if not
	Virtio        bool      // sysfs has one level more, virtioN
	SwitchID      bool      // it has a phys_switch_id in legacy mode, too
	// SwitchdevSpoofchk: spoofchk is supported in switchdev mode, too, in which there is neither a VLAN nor trust.
	SwitchdevSpoofchk bool

	VFOpsNeedUp      bool // VFs are neither reported nor changed while the PF is down (bnx2x; bnxt_en of its vendor: EINVAL)
	VFOps            bool // the PF can set attributes of its VFs and report them; without, the fields below do not count
	ReportsVFs       bool // the PF reports what it has set for its VFs
	NoEswitch        bool // another system manages the NIC's eswitch: the PF may neither report nor set anything (EPERM)
	Trust            bool // trust is supported
	Spoofchk         bool // spoofchk is supported
	KernelErrno      bool // what is not supported is ENOTSUPP (524), which is the kernel's own, instead of EOPNOTSUPP
	SpoofchkDefault  bool // spoofchk of a fresh VF is on
	VLANQoS          bool // a VLAN may have a priority
	Dot1AD           bool // vlan_proto 802.1ad is supported
	LinkState        bool // link_state is supported
	IgnoresLinkState bool // link_state disable is done, enable is not, and neither is refused or reported
	MinRate          bool // min_tx_rate is supported, and rates can be set while there is no link

	ReportsOwnMAC bool // the PF reports the MAC that a VF has chosen itself, too; without, only one that the PF has set
	VFChoosesMAC  bool // an untrusted VF may give its netdev any MAC
	MACResetsVF   bool // a VF is reset if its PF sets its MAC, and its netdev has that MAC without being bound again

	IRQs        bool // its driver requests interrupts
	ManagedIRQs bool // the kernel alone chooses the CPUs of its interrupts
}

// A TrunkForm is how the driver of a NIC's vendor has the trunks of VFs in sriov/N/trunk.
type TrunkForm string

// Forms of trunks.
const (
	TrunkList  TrunkForm = "list"  // "add 100-200,300" and "100-200,300": vfd.c of Intel's i40e and ice
	TrunkRange TrunkForm = "range" // "add 100 200" and "Allowed 802.1Q VLANs: 100 101": core/sriov_sysfs.c of mlx5 in MLNX_OFED
)

// A Source says where a Behaviour is known from.
type Source struct {
	Kind  SourceKind
	Files string // for SourceRead: files of Linux 6.12, below drivers; for SourceComposed: why it exists; for SourceRecorded: the record
	// Default is, for SourceRecorded, what the record does not know, and is therefore as on a preset.
	Default string
}

// A SourceKind says how a Behaviour was found out.
type SourceKind int

// Kinds of source. The zero value is no source: the Behaviour did not start from a preset.
const (
	SourceLab      SourceKind = iota + 1 // the lab has the device, and tests that the real driver behaves the same
	SourceRead                           // read in the kernel's sources or a manual, never seen on a device
	SourceComposed                       // no driver behaves like this
	SourceRecorded                       // a record of a device, see Play
)

// IGB is an Intel 82576, which QEMU emulates for the lab. VFs are bound to igbvf.
func IGB() Behaviour {
	return Behaviour{
		Source:        Source{Kind: SourceLab},
		SubnetManager: true,
		VFOps:         true, ReportsVFs: true, Trust: true, Spoofchk: true, SpoofchkDefault: true, VLANQoS: true,
		ReportsOwnMAC: true,
		IRQs:          true,
	}
}

// AllVFOps is an igb that supports all attributes of rtnetlink.
func AllVFOps() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceComposed, Files: "a test of all attributes needs one PF that supports them"}
	b.LinkState, b.MinRate, b.Dot1AD = true, true, true
	return b
}

// IXGBE is an Intel 82599. ixgbe_ndo_set_vf_bw refuses a minimum, and works only with a link; ixgbe_ndo_set_vf_link_state
// accepts "enable" without doing it, and ixgbe_ndo_get_vf_config reports neither.
func IXGBE() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/ethernet/intel/ixgbe/ixgbe_sriov.c"}
	b.IgnoresLinkState = true
	return b
}

// I40E is an Intel X710. i40e_ndo_set_vf_bw refuses a minimum, i40e_ndo_set_vf_port_vlan another protocol than 802.1q;
// i40e_ndo_set_vf_mac resets the VF, and iavf then reads its MAC again.
func I40E() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/ethernet/intel/i40e/i40e_virtchnl_pf.c"}
	b.LinkState, b.MACResetsVF = true, true
	return b
}

// ICE is an Intel E810. ice_is_supported_port_vlan_proto accepts 802.1ad only in double VLAN mode, which is not the
// default; ice_set_vf_bw supports both rates; ice_set_vf_mac resets the VF. ice_devlink_create_pf_port gives it a
// phys_switch_id in legacy mode, too. In switchdev mode ice_set_vf_trust refuses, and a VF has a link while its representor
// is up (ice_repr.c, ice_repr_open).
func ICE() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/ethernet/intel/ice/ice_sriov.c, net/ethernet/intel/ice/devlink/devlink_port.c"}
	b.LinkState, b.MinRate, b.MACResetsVF, b.SwitchID, b.SwitchdevSpoofchk = true, true, true, true, true
	return b
}

// MLX5 is a ConnectX in Ethernet mode with its eswitch in legacy mode. mlx5e_set_vf_vlan supports only 802.1q. In
// esw/legacy.c, spoofchk is off by default, and the MAC that is reported is the one that the PF has set. A VF's
// netdev takes any MAC. mlx5e_devlink_port_register gives the PF a phys_switch_id in legacy mode, too. In switchdev mode
// mlx5_eswitch_set_vport_vlan, _spoofchk and _trust refuse, and a VF has a link while its representor is up (en_rep.c, mlx5e_rep_open).
func MLX5() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/ethernet/mellanox/mlx5/core/{en_main.c,esw/legacy.c,en/devlink.c}"}
	b.RDMA, b.LinkState, b.MinRate, b.VFChoosesMAC, b.SwitchID = true, true, true, true, true
	b.SpoofchkDefault, b.ReportsOwnMAC = false, false
	return b
}

// MLX5NoEswitch is the host's PF of a BlueField in DPU mode, whose eswitch the NIC's own processors manage.
// mlx5_eswitch_get_vport_config and the setters return EPERM (mlx5_esw_allowed).
func MLX5NoEswitch() Behaviour {
	b := MLX5()
	b.Source.Files = "net/ethernet/mellanox/mlx5/core/{eswitch.c,esw/legacy.c}"
	b.NoEswitch = true
	return b
}

// IPoIB is a ConnectX in InfiniBand mode with the kernel's own driver. Its netdev has ipoib_set_vf_guid, ipoib_set_vf_link_state and
// ipoib_get_vf_config (ipoib_main.c), which call mlx5_ib_set_vf_guid, mlx5_ib_set_vf_link_state and mlx5_ib_get_vf_config (ib_virt.c).
func IPoIB() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "infiniband/ulp/ipoib/ipoib_main.c, infiniband/hw/mlx5/ib_virt.c"}
	b.InfiniBand, b.RDMA, b.LinkState = true, true, true
	return b
}

// IPoIBVendorTree is a ConnectX in InfiniBand mode with the driver of its vendor, which has files below the PF for what
// it sets on VFs.
func IPoIBVendorTree() Behaviour {
	b := IPoIB()
	b.Source = Source{Kind: SourceRead, Files: "the manual of the vendor's driver"}
	b.VendorTree = true
	return b
}

// BNXT is a Broadcom BCM57414. bnxt_set_vf_vlan refuses a priority and other protocols than 802.1q; spoofchk is off by
// default.
func BNXT() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/ethernet/broadcom/bnxt/bnxt_sriov.c"}
	b.LinkState, b.MinRate = true, true
	b.VLANQoS, b.SpoofchkDefault = false, false
	return b
}

// BNXTOldFirmware is a Broadcom NIC whose firmware is older than HWRM 1.7.1: bnxt_set_vf_spoofchk returns ENOTSUPP.
func BNXTOldFirmware() Behaviour {
	b := BNXT()
	b.Spoofchk, b.KernelErrno = false, true
	return b
}

// SFC is a Solarflare NIC (EF10): ef10_sriov.c sets MAC, VLAN, spoofchk and link state, no trust and no rates. With PF.Port it has the
// port's number as dev_port, PF and VFs, each of which has one netdev.
func SFC() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/ethernet/sfc/ef10_sriov.c, net/ethernet/sfc/ef10.c"}
	b.Trust, b.VLANQoS, b.LinkState = false, false, true
	return b
}

// Virtio is a virtio-net device. drivers/net/virtio_net.c has no operation for VFs at all.
func Virtio() Behaviour {
	b := IGB()
	b.Source = Source{Kind: SourceRead, Files: "net/virtio_net.c"} // the lab has the device, but runs the conformance suite for SR-IOV only on igb
	b.Virtio, b.VFOps = true, false
	return b
}

// A Make is a NIC as its driver shows it and behaves.
type Make struct {
	Name string
	PF   PF
}

// Makes returns the NICs whose VF driver package hw knows, and those that were recorded. The PFs are called ens1f0, are at 0000:01:00.0, down,
// and have no VFs yet. Behaviour.Source says where each is known from.
func Makes(t testing.TB) []Make {
	t.Helper()
	return append(presets(), Cards(t)...)
}

// presets returns the makes that are not recorded.
func presets() []Make {
	makes := []Make{
		{"igb 82576", PF{Behaviour: IGB(), TotalVFs: 7}},
		{"ixgbe 82599", PF{Behaviour: IXGBE(), Device: "0x10fb", VFDevice: "0x10ed", Driver: "ixgbe", VFDriver: "ixgbevf",
			TotalVFs: 63}},
		{"i40e X710", PF{Behaviour: I40E(), Device: "0x1572", VFDevice: "0x154c", Driver: "i40e", VFDriver: "iavf", TotalVFs: 32,
			VFOffset: 0x110, VFStride: 1}},
		{"ice E810", PF{Behaviour: ICE(), Device: "0x1592", VFDevice: "0x1889", Driver: "ice", VFDriver: "iavf", TotalVFs: 128,
			VFOffset: 8, VFStride: 1}},
		{"mlx5 ConnectX-5", connectX("0x1017", "0x1018")},
		{"mlx5 ConnectX-6", connectX("0x101b", "0x101c")},
		{"bnxt BCM57414", PF{Behaviour: BNXT(), Vendor: "0x14e4", Device: "0x16d7", VFDevice: "0x16dc", Driver: "bnxt_en",
			VFDriver: "bnxt_en", TotalVFs: 64, VFOffset: 0x10, VFStride: 1, PortName: "p0"}},
		{"virtio", PF{Behaviour: Virtio(), Vendor: "0x1af4", Device: "0x1041", VFDevice: "0x1041", TotalVFs: 63, VFOffset: 1,
			VFStride: 1}},
	}
	for i := range makes {
		makes[i].PF.Name, makes[i].PF.PCI, makes[i].PF.MAC = "ens1f0", "0000:01:00.0", "52:54:00:aa:00:00"
	}
	return makes
}

// connectX returns a PF of mlx5 with its PCI device IDs.
func connectX(device, vfDevice string) PF {
	return PF{Behaviour: MLX5(), Vendor: "0x15b3", Device: device, VFDevice: vfDevice, Driver: "mlx5_core", VFDriver: "mlx5_core",
		TotalVFs: 16, VFOffset: 2, VFStride: 1, PortName: "p0"}
}
