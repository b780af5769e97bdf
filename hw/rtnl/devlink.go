package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// devlink asks the kernel's devlink about PCI functions.
type devlink struct {
	handle *netlink.Handle
	conn   *nl.SocketHandle
}

// Switchdev implements [hw.Kernel].
func (d devlink) Switchdev(pci string) (bool, error) {
	mode, err := d.eswitchMode("pci", pci)
	return mode == nl.DEVLINK_ESWITCH_MODE_SWITCHDEV, err
}

// isNoDevlink returns true for the errors of a device of which devlink does not know what was asked for, such as an eswitch: the driver has none,
// or no devlink, or the kernel has no devlink.
func isNoDevlink(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOENT)
}

// eswitchMode returns the mode of a device's eswitch, DEVLINK_ESWITCH_MODE_LEGACY if it has none. The library does not
// distinguish that from an error.
func (d devlink) eswitchMode(bus, device string) (uint16, error) {
	answer, err := d.devlinkGet(nl.DEVLINK_CMD_ESWITCH_GET, bus, device)
	if isNoDevlink(err) {
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

// HealthReporters implements [hw.Kernel]. It asks for those of all devices: kernels before 6.6 do not answer for one alone.
func (d devlink) HealthReporters(pci string) ([]hw.HealthReporter, error) {
	req, err := d.devlinkRequest(unix.DEVLINK_CMD_HEALTH_REPORTER_GET, unix.NLM_F_DUMP)
	var answers [][]byte
	if err == nil {
		answers, err = req.Execute(unix.NETLINK_GENERIC, 0)
	}
	if isNoDevlink(err) {
		return nil, nil
	}
	if err != nil {
		return nil, hw.FromErrno(err)
	}
	var all []hw.HealthReporter
	for _, answer := range answers {
		r, of, err := healthReporter(answer[nl.SizeofGenlmsg:])
		if err != nil {
			return nil, err
		}
		if of == "pci/"+pci && r.Name != "" {
			all = append(all, r)
		}
	}
	return all, nil
}

// healthReporter reads an answer about a reporter, and which device it is of: "pci/0000:01:00.0".
func healthReporter(answer []byte) (r hw.HealthReporter, device string, _ error) {
	attrs, err := attributes(answer)
	if err != nil {
		return r, "", fmt.Errorf("devlink: %w", err)
	}
	of, err := attributes(attrs[unix.DEVLINK_ATTR_HEALTH_REPORTER])
	if err != nil {
		return r, "", fmt.Errorf("devlink: %w", err)
	}
	number := func(attr uint16) (n uint64) {
		if v := of[attr]; len(v) == 8 {
			n = nl.NativeEndian().Uint64(v)
		}
		return n
	}
	set := func(attr uint16) bool { return len(of[attr]) > 0 && of[attr][0] == 1 }
	return hw.HealthReporter{Name: unix.ByteSliceToString(of[unix.DEVLINK_ATTR_HEALTH_REPORTER_NAME]), Failed: set(unix.DEVLINK_ATTR_HEALTH_REPORTER_STATE),
		Errors:      number(unix.DEVLINK_ATTR_HEALTH_REPORTER_ERR_COUNT),
		Recoveries:  number(unix.DEVLINK_ATTR_HEALTH_REPORTER_RECOVER_COUNT),
		AutoRecover: set(unix.DEVLINK_ATTR_HEALTH_REPORTER_AUTO_RECOVER),
	}, unix.ByteSliceToString(attrs[nl.DEVLINK_ATTR_BUS_NAME]) + "/" + unix.ByteSliceToString(attrs[nl.DEVLINK_ATTR_DEV_NAME]), nil
}

// devlinkRequest returns a request without attributes.
func (d devlink) devlinkRequest(command uint8, flags int) (*nl.NetlinkRequest, error) {
	family, err := d.handle.GenlFamilyGet(nl.GENL_DEVLINK_NAME)
	if err != nil {
		return nil, err
	}
	req := nl.NewNetlinkRequest(int(family.ID), flags)
	req.Sockets = map[int]*nl.SocketHandle{unix.NETLINK_GENERIC: d.conn}
	req.AddData(&nl.Genlmsg{Command: command, Version: nl.GENL_DEVLINK_VERSION})
	return req, nil
}

// devlinkGet sends a request about one device and returns the attributes of the answer.
func (d devlink) devlinkGet(command uint8, bus, device string) ([]byte, error) {
	req, err := d.devlinkRequest(command, 0)
	if err != nil {
		return nil, err
	}
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
