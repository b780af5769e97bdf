package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Switchdev implements [hw.Kernel].
func (k *Kernel) Switchdev(pci string) (bool, error) {
	mode, err := k.eswitchMode("pci", pci)
	return mode == nl.DEVLINK_ESWITCH_MODE_SWITCHDEV, err
}

// isNoEswitch returns true for the errors of a device without an eswitch mode: the driver has no devlink, or no eswitch, or the
// kernel no devlink.
func isNoEswitch(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}

// eswitchMode returns the mode of a device's eswitch, DEVLINK_ESWITCH_MODE_LEGACY if it has none. The library does not
// distinguish that from an error.
func (k *Kernel) eswitchMode(bus, device string) (uint16, error) {
	answer, err := k.devlinkGet(nl.DEVLINK_CMD_ESWITCH_GET, bus, device)
	if isNoEswitch(err) {
		return nl.DEVLINK_ESWITCH_MODE_LEGACY, nil
	}
	if err != nil {
		return 0, hw.FromErrno(err)
	}
	attrs, err := attributes(answer)
	if err != nil {
		return 0, err
	}
	mode := attrs[nl.DEVLINK_ATTR_ESWITCH_MODE]
	if len(mode) < 2 {
		return 0, fmt.Errorf("devlink does not say in which mode the eswitch of %s/%s is", bus, device)
	}
	return binary.NativeEndian.Uint16(mode), nil
}

// devlinkGet sends a request about one device and returns the attributes of the answer.
func (k *Kernel) devlinkGet(command uint8, bus, device string) ([]byte, error) {
	family, err := k.nl.GenlFamilyGet(nl.GENL_DEVLINK_NAME)
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), 0)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: k.socket}
	req.AddData(&nl.Genlmsg{Command: command, Version: nl.GENL_DEVLINK_VERSION})
	req.AddData(nl.NewRtAttr(nl.DEVLINK_ATTR_BUS_NAME, nl.ZeroTerminated(bus)))
	req.AddData(nl.NewRtAttr(nl.DEVLINK_ATTR_DEV_NAME, nl.ZeroTerminated(device)))
	answers, err := req.Execute(unix.NETLINK_GENERIC, 0)
	if err == nil && len(answers) != 1 {
		err = fmt.Errorf("devlink gave %d answers about %s/%s", len(answers), bus, device)
	}
	if err != nil {
		return nil, err
	}
	return answers[0][nl.SizeofGenlmsg:], nil
}
