package rtnl

import (
	"fmt"
	"maps"
	"slices"

	"github.com/safchain/ethtool"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/card"
)

// CardReader is the running kernel for records of NICs. It implements [card.Kernel].
type CardReader struct{ *Kernel }

// named reads something of a link over ethtool's ioctl, which takes a name.
func named[T any](c controls, index int, read func(e *ethtool.Ethtool, name string) (T, error)) (got T, err error) {
	name, err := c.nameOf(index)
	if err != nil {
		return got, err
	}
	e, err := ethtool.NewEthtool()
	if err != nil {
		return got, err
	}
	defer e.Close()
	got, err = read(e, name)
	return got, hw.FromErrno(err)
}

// DriverInfo implements [hw.Kernel].
func (c controls) DriverInfo(index int) (hw.DriverInfo, error) {
	d, err := named(c, index, (*ethtool.Ethtool).DriverInfo)
	return hw.DriverInfo{Name: d.Driver, Version: d.Version, Firmware: d.FwVersion}, err
}

// Statistics implements [card.Kernel].
func (r CardReader) Statistics(index int) ([]string, error) {
	values, err := named(r.controls, index, (*ethtool.Ethtool).Stats)
	if isMissing(err) {
		return nil, nil
	}
	return slices.Sorted(maps.Keys(values)), err
}

// Devlink implements [card.Kernel].
func (r CardReader) Devlink(pci string) (d card.Devlink, err error) {
	modes := map[uint16]string{nl.DEVLINK_ESWITCH_MODE_LEGACY: "legacy", nl.DEVLINK_ESWITCH_MODE_SWITCHDEV: "switchdev"}
	answer, err := r.devlinkGet(nl.DEVLINK_CMD_ESWITCH_GET, "pci", pci)
	if err == nil {
		var attrs map[uint16][]byte
		if attrs, err = attributes(answer); err == nil && len(attrs[nl.DEVLINK_ATTR_ESWITCH_MODE]) >= 2 {
			d.Eswitch = modes[nl.NativeEndian().Uint16(attrs[nl.DEVLINK_ATTR_ESWITCH_MODE])]
		}
	}
	if err != nil && !isNoDevlink(err) {
		return d, hw.FromErrno(err)
	}
	if answer, err = r.devlinkGet(nl.DEVLINK_CMD_INFO_GET, "pci", pci); err == nil {
		d.Versions, err = devlinkVersions(answer)
	}
	if err != nil && !isNoDevlink(err) {
		return d, hw.FromErrno(err)
	}
	return d, nil
}

// devlinkVersions returns the versions in an answer to DEVLINK_CMD_INFO_GET, in which each is an attribute of the same type; the serial
// numbers beside them are left out.
func devlinkVersions(answer []byte) (map[string]string, error) {
	list, err := nl.ParseRouteAttr(answer)
	if err != nil {
		return nil, fmt.Errorf("devlink: %w", err)
	}
	kinds := map[uint16]string{nl.DEVLINK_ATTR_INFO_VERSION_FIXED: "fixed", nl.DEVLINK_ATTR_INFO_VERSION_RUNNING: "running",
		nl.DEVLINK_ATTR_INFO_VERSION_STORED: "stored"}
	versions := map[string]string{}
	for _, a := range list {
		kind := kinds[a.Attr.Type&attrType]
		if kind == "" {
			continue
		}
		v, err := attributes(a.Value)
		if err != nil {
			return nil, fmt.Errorf("devlink: %w", err)
		}
		versions[kind+" "+unix.ByteSliceToString(v[nl.DEVLINK_ATTR_INFO_VERSION_NAME])] = unix.ByteSliceToString(v[nl.DEVLINK_ATTR_INFO_VERSION_VALUE])
	}
	return versions, nil
}

// VFInfos implements [card.Kernel].
func (r CardReader) VFInfos(pf int) (map[int]hw.VFInfo, error) {
	answer, err := r.answerWithVFs(pf)
	if err != nil {
		return nil, err
	}
	entries, _, err := vfInfos(answer)
	if err != nil {
		return nil, err
	}
	linkType := nl.DeserializeIfInfomsg(answer).EncapType()
	infos := map[int]hw.VFInfo{}
	for _, e := range entries {
		m, err := vfAttributes(e.Value)
		if err != nil {
			return nil, err
		}
		index, _, err := m.Decode(linkType)
		if err != nil {
			return nil, err
		}
		infos[index] = m
	}
	return infos, nil
}
