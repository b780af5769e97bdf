package hwtest

// A Make is a NIC as its driver shows it and behaves.
type Make struct {
	Name string
	PF   PF
}

// Makes are the NICs that package hw knows the VFs' driver of. All but igb and virtio, which the lab has, are from their
// documentation and the kernel's sources (drivers/net/ethernet; Linux 6.12), not recorded from a card. The PFs are called
// ens1f0, are at 0000:01:00.0, down, and have no VFs yet.
func Makes() []Make {
	makes := []Make{
		{"igb 82576", PF{TotalVFs: 7}},

		// intel/ixgbe/ixgbe_sriov.c: ixgbe_ndo_set_vf_bw refuses a minimum, and works only with a link;
		// ixgbe_ndo_set_vf_link_state takes "enable" without doing it, and ixgbe_ndo_get_vf_config tells neither.
		{"ixgbe 82599", PF{Device: "0x10fb", VFDevice: "0x10ed", Driver: "ixgbe", VFDriver: "ixgbevf", TotalVFs: 63,
			MuteLinkState: true}},

		// intel/i40e/i40e_virtchnl_pf.c: i40e_ndo_set_vf_bw refuses a minimum, i40e_ndo_set_vf_port_vlan another protocol
		// than 802.1q; i40e_ndo_set_vf_mac resets the VF, and iavf then reads its MAC anew.
		{"i40e X710", PF{Device: "0x1572", VFDevice: "0x154c", Driver: "i40e", VFDriver: "iavf", TotalVFs: 32, VFOffset: 0x110,
			VFStride: 1, LinkStates: true, MACAtOnce: true}},

		// intel/ice/ice_sriov.c: ice_is_supported_port_vlan_proto takes 802.1ad only in double VLAN mode, which is not the
		// default; ice_set_vf_bw knows both rates; ice_set_vf_mac resets the VF. It has a phys_switch_id in legacy mode, too
		// (ice/devlink/devlink_port.c, ice_devlink_create_pf_port).
		{"ice E810", PF{Device: "0x1592", VFDevice: "0x1889", Driver: "ice", VFDriver: "iavf", TotalVFs: 128, VFOffset: 8,
			VFStride: 1, LinkStates: true, MinRates: true, MACAtOnce: true, SwitchID: true}},

		// mellanox/mlx5/core/en_main.c: mlx5e_set_vf_vlan knows only 802.1q; esw/legacy.c: spoofchk is off until it is asked
		// for, and the MAC that is reported is the one that the PF has set. A VF's netdev takes any MAC.
		mlx5("mlx5 ConnectX-5", "0x1017", "0x1018"),
		mlx5("mlx5 ConnectX-6", "0x101b", "0x101c"),

		// broadcom/bnxt/bnxt_sriov.c: bnxt_set_vf_vlan refuses a priority and other protocols than 802.1q; spoofchk is off
		// until it is asked for.
		{"bnxt BCM57414", PF{Vendor: "0x14e4", Device: "0x16d7", VFDevice: "0x16dc", Driver: "bnxt_en", VFDriver: "bnxt_en",
			TotalVFs: 64, VFOffset: 0x10, VFStride: 1, PortName: "p0", LinkStates: true, MinRates: true, NoQoS: true, SpoofOff: true}},

		// drivers/net/virtio_net.c has no operation for VFs at all.
		{"virtio", PF{Vendor: "0x1af4", Device: "0x1041", VFDevice: "0x1041", Virtio: true, TotalVFs: 63, VFOffset: 1, VFStride: 1}},
	}
	for i := range makes {
		makes[i].PF.Name, makes[i].PF.PCI, makes[i].PF.MAC = "ens1f0", "0000:01:00.0", "52:54:00:aa:00:00"
	}
	return makes
}

// mlx5 is a ConnectX in Ethernet mode with its eswitch in legacy mode, where it has a phys_switch_id all the same
// (mellanox/mlx5/core/en/devlink.c, mlx5e_devlink_port_register).
func mlx5(name, device, vfDevice string) Make {
	return Make{name, PF{Vendor: "0x15b3", Device: device, VFDevice: vfDevice, Driver: "mlx5_core", VFDriver: "mlx5_core",
		TotalVFs: 16, VFOffset: 2, VFStride: 1, PortName: "p0", RDMA: true, LinkStates: true, MinRates: true, SpoofOff: true,
		HidesMACs: true, FreeMACs: true, SwitchID: true}}
}
