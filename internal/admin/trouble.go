package admin

import (
	"slices"
	"strings"
)

// A Trouble is an error that users meet, as docs/troubleshooting.md lists it.
type Trouble struct {
	Texts  []string // parts of its text, of which one occurs in it
	InLog  bool     // it is in the log only
	Cause  string   // Markdown
	Remedy string   // Markdown
	See    string   // the command of passthroughctl that tells more, with its arguments; "" for none
}

// Troubles returns the errors that users meet, those about devices first.
func Troubles() []Trouble {
	return []Trouble{
		{Texts: []string{"missing; say which device to use"}, Cause: "the network has no device", Remedy: "add `-o netdevice=NAME`", See: "nics"},
		{Texts: []string{"did you mean"}, Cause: "an option or a value is misspelt", Remedy: "[options](options.md), [addresses](ipam.md)"},
		{Texts: []string{"the NICs of this host are"}, Cause: "there is no device with the name in `netdevice`",
			Remedy: "use one that the text names, a PCI address, or a pattern ([options](options.md))", See: "nics"},
		{Texts: []string{"it is not a PCI device, so it has no vfs"}, Cause: "the device is virtual, and the network has `mode=sriov`, which is the default",
			Remedy: "another [mode](modes.md)", See: "nics"},
		{Texts: []string{"which has no vfs"}, Cause: "the device is a part of a NIC that is no VF, and has none",
			Remedy: "as the text says: its netdev with `mode=passthrough` or `mode=macvlan`", See: "nics"},
		{Texts: []string{"switch it on in the firmware"}, Cause: "the NIC has no VFs to give: SR-IOV is off in the NIC's or the machine's firmware",
			Remedy: "switch it on there ([the NIC and the host](host.md))", See: "doctor"},
		{Texts: []string{"vfs are in use"}, Cause: "each VF of the network has a container, is used by the host, or is quarantined; the text says which",
			Remedy: "stop a container; raise `numvfs`; use more PFs; try a quarantined VF again: `passthroughctl retry PF/INDEX`", See: "vfs"},
		{Texts: []string{"serves one container at a time"}, Cause: "the network hands its device over whole, and a container has it",
			Remedy: "stop that container; or use `mode=sriov` or `mode=macvlan`", See: "status"},
		{Texts: []string{"is used by network", "is handed over whole by network"}, Cause: "another network has the device, and one of the two hands it over whole",
			Remedy: "use another device, or remove that network", See: "status"},
		{Texts: []string{"is used on"}, Cause: "a VLAN of a PF belongs to one network, and another one has it", Remedy: "another VLAN, or another PF", See: "status"},
		{Texts: []string{"say replace="}, Cause: "another network has the VLAN or device. If `docker network ls` does not list it, a crash has left it behind",
			Remedy: "add `-o replace=ID` with the ID in the error", See: "status"},
		{Texts: []string{"a device cannot have both kinds", "a device has one for all its children"},
			Cause:  "the kernel has either macvlans or ipvlans on a device, and all its ipvlans in one mode",
			Remedy: "the mode of the other network; or another device", See: "status"},
		{Texts: []string{"the host would lose that"}, Cause: "the host uses the device; the text says for what",
			Remedy: "use another device, or [`-o force=yes`](host.md#a-device-that-the-host-uses)", See: "nics"},
		{Texts: []string{"cannot leave its network namespace"}, Cause: "the kernel does not move devices of this kind", Remedy: "`mode=macvlan` on it, or another device"},
		{Texts: []string{"load its module: modprobe"}, Cause: "the kernel has no VLAN devices", Remedy: "`modprobe 8021q`; at boot, `/etc/modules-load.d/`"},
		{Texts: []string{"and a vf cannot exceed its pf; raise that first", "has; raise that first"}, Cause: "the MTU is above that of the device in the host",
			Remedy: "`ip link set DEVICE mtu N`", See: "nics"},
		{Texts: []string{"it has no trunks for vfs"}, Cause: "`trunk` needs a driver that the NIC's vendor ships, or switchdev mode and `bridge`",
			Remedy: "[VLAN devices in the container](how-to.md#a-vlan-trunk)", See: "nics"},
		{Texts: []string{"leave it out, or use a nic that can"}, Cause: "the driver of the NIC refuses the option: it was tried on a free VF",
			Remedy: "as the text says", See: "doctor"},
		{Texts: []string{"is not possible: the plugin made"}, Cause: "`numvfs` differs from that of other networks on the PF",
			Remedy: "use the same number, or remove the other networks first", See: "status"},
		{Texts: []string{"vfs that the plugin did not make"}, Cause: "the PF has VFs of the administrator's, and `numvfs` is another number",
			Remedy: "leave `numvfs` out, or write the number to `sriov_numvfs`", See: "nics"},
		{Texts: []string{"is up in the host"}, Cause: "software on the host brings up every new link, so the VF appears used",
			Remedy: "install the [rules](host.md#other-network-software)", See: "doctor"},
		{Texts: []string{"was set down on the host while networks use it"}, Cause: "the network's device was set down after it had been up",
			Remedy: "`ip link set DEVICE up` when it may be used again", See: "doctor"},
		{Texts: []string{"wait for carrier"}, Cause: "the VF has no link", Remedy: "check cable and switch port; for InfiniBand, the subnet manager", See: "doctor"},
		{Texts: []string{"is in switchdev mode, in which"}, Cause: "the option is one that a NIC does not do for its VFs in switchdev mode",
			Remedy: "as the text says; [switchdev mode](switchdev.md)", See: "vfs"},
		{Texts: []string{"in which its vfs have no ports on the host"}, Cause: "`bridge` is for NICs in switchdev mode", Remedy: "leave `bridge` out, or " +
			"[change the mode](switchdev.md)", See: "nics"},
		{Texts: []string{"does not filter vlans"}, Cause: "the network's bridge has no VLANs for its ports", Remedy: "`ip link set BRIDGE type bridge vlan_filtering 1`"},
		{Texts: []string{"which the host has made a port of"}, Cause: "a network with `bridge` gives no container a VF whose representor is a port already",
			Remedy: "take it out: `ip link set REPRESENTOR nomaster`; or use other VFs (`vfs`)", See: "vfs"},
		{Texts: []string{"does not talk to Open vSwitch"}, Cause: "representors become ports of Linux bridges only", Remedy: "[Open vSwitch](switchdev.md#open-vswitch)"},
		{Texts: []string{"its representor is not in the host"}, Cause: "the NIC is in switchdev mode, and the port of its switch that leads to the VF is in another " +
			"network namespace, or its driver has made none", Remedy: "bring it back; [switchdev mode](switchdev.md)", See: "vfs"},
		{Texts: []string{"reports nothing about any of its vfs"},
			Cause:  "another system manages the NIC's eswitch, such as the processors of a BlueField in DPU mode",
			Remedy: "change the NIC to NIC mode; or use `mode=passthrough` for VFs that are set up there", See: "doctor"},
		{Texts: []string{"is not loaded; load it (modprobe"}, Cause: "the VF's driver is not loaded and udev does not load it",
			Remedy: "load it at boot, in `/etc/modules-load.d/`", See: "doctor"},
		{Texts: []string{"has the vlan of network"}, Cause: "the network has `vlan=keep`, and the VF has a VLAN that belongs to another network",
			Remedy: "remove the VLAN from the VF on the host: `ip link set PF vf N vlan 0`", See: "vfs"},
		{Texts: []string{"the host needs an address"}, Cause: "with `host_access=yes` the host is one of the addresses of the subnet",
			Remedy: "reserve one: `--aux-address host=ADDRESS`"},
		{Texts: []string{"vfs that the plugin created stay"}, InLog: true,
			Cause:  "`docker network rm` has removed the network, but the host uses one of its VFs; the text says which, and how",
			Remedy: "[set it down](host.md#the-nic); the VFs are removed within a minute", See: "doctor"},
		{Texts: []string{"device without a record"}, InLog: true, Cause: "a VF, a VLAN device or another link looks as if the plugin had set it up, and the plugin " +
			"has no record of it: an installation of before has left it, or another one on this host has it",
			Remedy: "[restore a backup](backup.md#the-way-back); or as the text says, once nothing uses it", See: "status"},
		{Texts: []string{"container is without its device"}, InLog: true, Cause: "the VF was reset or bound again under a running container; the text says which",
			Remedy: "`docker restart CONTAINER`", See: "status"},
		{Texts: []string{"lost settings when its pf was reset"}, InLog: true, Cause: "the PF was reset, by its firmware, by devlink or by an administrator",
			Remedy: "none, if the settings are `set again`; otherwise as the text says", See: "events"},
		{Texts: []string{"not served:"}, InLog: true, Cause: "the engine asked for a published port, which has no effect",
			Remedy: "reach the container at its own address"},
		{Texts: []string{"the plugin was not given /proc/irq"}, Cause: "the option `cores` needs it", Remedy: "[tuning](tuning.md#interrupts)"},

		{Texts: []string{"this engine is older than 29", "ifname-needs-docker-29.8-or-newer-"},
			Cause:  "the container asks for an exact name of its device, and this engine does not take one from a plugin",
			Remedy: "use `prefix`; or Docker 29.8 or newer ([names](container-networks.md#names))"},
		{Texts: []string{"option routes:"}, Cause: "the route cannot work for the network's subnets; the text says why", Remedy: "[routes](container-networks.md#routes)"},
		{Texts: []string{"neither the engine nor this driver obeys it"}, Cause: "a `driver-opt` whose name begins with `com.docker.network` that has no effect here",
			Remedy: "leave it out; [options](options.md)"},

		{Texts: []string{"in use since"}, Cause: "the address of `--ip` is leased; the text says to whom, as far as the engine has told the plugin",
			Remedy: "another address; or end the container: `passthroughctl who ADDRESS`", See: "leases"},
		{Texts: []string{"create the network with a larger"}, Cause: "the subnet, or its `--ip-range`, has no address left",
			Remedy: "remove a container; or a larger range in a new network", See: "pools"},
		{Texts: []string{"subnet; give the network one with --subnet"}, Cause: "the network has no `--subnet`, and `DEFAULT_POOLS` has none to give",
			Remedy: "add `--subnet`; or [set `DEFAULT_POOLS`](settings.md)", See: "pools"},
		{Texts: []string{"networks that share a pool must say the same of it"}, Cause: "`--ipam-opt pool=NAME` names a pool with another subnet, range or option",
			Remedy: "say the same as the first network; or another name", See: "pools"},
		{Texts: []string{"was the plugin removed and installed again?"}, Cause: "the engine knows the network, the plugin does not: its records were removed with it, as it had no " +
			"[folder of the host](backup.md)",
			Remedy: "[restore a backup](backup.md#the-way-back); or remove the network and create it again", See: "status"},
		{Texts: []string{"no such pool; create the network again"}, Cause: "as before, for addresses; or `STORE` was changed",
			Remedy: "as before; or [copy the pools](cluster.md#from-one-store-to-another)", See: "pools"},
		{Texts: []string{"is there already, with other options"}, Cause: "a swarm creates a network again, which has containers, with other options",
			Remedy: "remove the network on this node when its containers have ended", See: "status"},

		{Texts: []string{"the records are in a folder of the host, which the plugin does not have any more", "the records are in another folder of the host"},
			Cause:  "the plugin was upgraded, which sets `state.source` back; or it was given another folder",
			Remedy: "[set it again](backup.md#a-folder-of-the-host)", See: "settings"},
		{Texts: []string{"both the plugin and the folder have records"},
			Cause: "the plugin was used without the folder, which has the records of another installation", Remedy: "as the text says"},
		{Texts: []string{"has a setting that it cannot use"}, Cause: "a variable of the plugin's environment has a value that is not allowed",
			Remedy: "`docker plugin disable -f`, `docker plugin set`, `docker plugin enable`"},
		{Texts: []string{"which was declared lost"}, Cause: "an operator has removed this node with `driver forget`",
			Remedy: "[create its networks again](cluster.md#nodes-that-are-lost-and-backups)", See: "nodes"},
		{Texts: []string{"ledger shows an older state than before"}, Cause: "etcd was restored from a backup",
			Remedy: "[accept the restored state](cluster.md#nodes-that-are-lost-and-backups)", See: "doctor"},
		{Texts: []string{"ledger unavailable"}, Cause: "the ledger's file or etcd cannot be opened; the text says why",
			Remedy: "as the text says; for etcd see [failures](cluster.md#failures)", See: "doctor"},
		{Texts: []string{"another instance of the plugin has it open"}, Cause: "two processes use one state directory",
			Remedy: "stop one; disable the plugin before `driver export`"},
		{Texts: []string{"ledger is damaged", "ledger was written by a newer version"}, Cause: "the file is kept",
			Remedy: "install the newer version; or [restore a backup](backup.md#the-way-back) with `--force`"},
		{Texts: []string{"is left to finish; the plugin's log says how it ends", "takes longer than this call may"},
			Cause:  "the call took longer than `HANDLER_TIMEOUT`; VFs are kept for a minute, for another attempt",
			Remedy: "try again in some seconds; raise it ([settings](settings.md)); use a smaller `numvfs`", See: "events"},
		{Texts: []string{"another call works on the same, and has not ended"},
			Cause:  "a call before it takes long: a NIC that makes many VFs, or a device that does not come home",
			Remedy: "try again in some seconds", See: "events"},
		{Texts: []string{"as when the engine repeats a call whose answer it lost"}, Cause: "the plugin was restarted during the call", Remedy: "start the container again"},
	}
}

// TellsMore returns the command of passthroughctl that tells more of an error, "" if none does or the text names one itself.
func TellsMore(text string) string {
	if strings.Contains(text, "passthroughctl ") {
		return ""
	}
	for _, t := range Troubles() {
		if t.See != "" && slices.ContainsFunc(t.Texts, func(part string) bool { return strings.Contains(text, part) }) {
			return t.See
		}
	}
	return ""
}
