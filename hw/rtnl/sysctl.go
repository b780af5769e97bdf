package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// netSysctls is where the sysctls of the calling thread's network namespace are.
const netSysctls = "/proc/sys/net"

// sysctlDirs are the directories that have one for each device, and "default".
var sysctlDirs = []string{"ipv4/conf", "ipv4/neigh", "ipv6/conf", "ipv6/neigh"}

// otherSysctls are those that Sysctls leaves out: older names of others, what is not a setting (the MTU of IPv6, which follows
// the link's), and a secret.
var otherSysctls = []string{"base_reachable_time", "retrans_time", "unres_qlen", "mtu", "stable_secret"}

// Sysctls implements [hw.Kernel].
func (k *Kernel) Sysctls(index int) (map[string]string, error) {
	device := "default"
	if index != 0 {
		l, err := k.LinkAt(index)
		if err != nil {
			return nil, err
		}
		device = l.Name
	}
	values := map[string]string{}
	for _, dir := range sysctlDirs {
		at := path.Join(netSysctls, dir, device)
		files, err := os.ReadDir(at)
		if errors.Is(err, fs.ErrNotExist) { // there is no IPv6
			continue
		}
		if err != nil {
			return nil, hw.FromErrno(err)
		}
		for _, f := range files {
			info, err := f.Info()
			if err != nil || info.Mode()&0o200 == 0 || slices.Contains(otherSysctls, f.Name()) {
				continue
			}
			text, err := os.ReadFile(path.Join(at, f.Name()))
			if err != nil {
				continue // it has no value
			}
			values["net."+strings.ReplaceAll(dir, "/", ".")+".*."+f.Name()] = strings.TrimSpace(string(text))
		}
	}
	return values, nil
}

// SetSysctl implements [hw.Kernel]. Those of net.ipv4.conf, net.ipv4.neigh, net.ipv6.neigh and the mode of IPv6's address
// generation are set by rtnetlink, because /proc/sys is read-only in a container. rtnetlink has nothing for the others.
func (k *Kernel) SetSysctl(index int, name, value string) error {
	l, err := k.LinkAt(index)
	if err != nil {
		return err
	}
	family, key, ok := strings.Cut(strings.TrimPrefix(name, "net."), ".*.")
	if !ok || !slices.Contains(sysctlDirs, strings.ReplaceAll(family, ".", "/")) || strings.Contains(key, "/") {
		return fmt.Errorf("sysctl %q: %w", name, hw.ErrInvalid)
	}
	number, err := strconv.Atoi(value)
	switch {
	case err != nil: // none of those of rtnetlink
	case family == "ipv4.conf" && devconf4[key] != 0:
		conf := appendAttr(nil, devconf4[key], u32(uint32(number)))
		return setLinkAF(k.changers, index, unix.AF_INET, appendAttr(nil, unix.IFLA_INET_CONF, conf))
	case family == "ipv6.conf" && key == "addr_gen_mode":
		return setLinkAF(k.changers, index, unix.AF_INET6, appendAttr(nil, unix.IFLA_INET6_ADDR_GEN_MODE, []byte{byte(number)}))
	case neighParms[key].attr != 0:
		return setNeighParm(k.changers, index, family == "ipv6.neigh", neighParms[key], number)
	}
	f, err := os.OpenFile(path.Join(netSysctls, strings.ReplaceAll(family, ".", "/"), l.Name, key), os.O_WRONLY, 0)
	if err != nil {
		return hw.FromErrno(err)
	}
	_, err = f.WriteString(value)
	return hw.FromErrno(errors.Join(err, f.Close()))
}

// setLinkAF sets what a family of addresses has of a link (IFLA_AF_SPEC).
func setLinkAF(p pool, index int, family uint16, value []byte) error {
	head := make([]byte, unix.SizeofIfInfomsg)
	putIndex(head, 4, index)
	return sendMessage(p, unix.RTM_SETLINK, 0, appendAttr(head, unix.IFLA_AF_SPEC, appendAttr(nil, family, value)))
}

// setNeighParm sets a parameter of the neighbour table of a link.
func setNeighParm(p pool, index int, v6 bool, parm neighParm, value int) error {
	const ndtaName, ndtaParms, ndtpaIfindex = 1, 6, 1 // include/uapi/linux/neighbour.h
	family, table := byte(unix.AF_INET), "arp_cache"
	if v6 {
		family, table = unix.AF_INET6, "ndisc_cache"
	}
	encoded := u32(uint32(value))
	if parm.msec != 0 {
		encoded = binary.NativeEndian.AppendUint64(nil, uint64(value)*parm.msec)
	}
	parms := appendAttr(appendAttr(nil, ndtpaIfindex, u32(uint32(index))), parm.attr, encoded)
	body := appendAttr([]byte{family, 0, 0, 0}, ndtaName, append([]byte(table), 0))
	return sendMessage(p, unix.RTM_SETNEIGHTBL, 0, appendAttr(body, ndtaParms, parms))
}

// A neighParm is an attribute NDTPA_*. msec is the unit of the sysctl in milliseconds, 0 for a number of 32 bits.
type neighParm struct {
	attr uint16
	msec uint64
}

// neighParms are the parameters of neighbour tables by the names of their sysctls (net/core/neighbour.c, neigh_sysctl_table,
// neightbl_set; Linux 6.12).
var neighParms = map[string]neighParm{
	"base_reachable_time_ms": {4, 1}, "retrans_time_ms": {5, 1}, "gc_stale_time": {6, 1000}, "delay_first_probe_time": {7, 1000},
	"app_solicit": {9, 0}, "ucast_solicit": {10, 0}, "mcast_solicit": {11, 0}, "anycast_delay": {12, 10}, "proxy_delay": {13, 10},
	"proxy_qlen": {14, 0}, "locktime": {15, 10}, "unres_qlen_bytes": {16, 0}, "mcast_resolicit": {17, 0},
	"interval_probe_time_ms": {19, 1},
}

// devconf4 are the IPV4_DEVCONF_* by the names of their sysctls (include/uapi/linux/ip.h).
var devconf4 = map[string]uint16{
	"forwarding": 1, "proxy_arp": 3, "accept_redirects": 4, "secure_redirects": 5, "send_redirects": 6, "shared_media": 7,
	"rp_filter": 8, "accept_source_route": 9, "bootp_relay": 10, "log_martians": 11, "tag": 12, "arp_filter": 13, "medium_id": 14,
	"disable_xfrm": 15, "disable_policy": 16, "force_igmp_version": 17, "arp_announce": 18, "arp_ignore": 19,
	"promote_secondaries": 20, "arp_accept": 21, "arp_notify": 22, "accept_local": 23, "src_valid_mark": 24, "proxy_arp_pvlan": 25,
	"route_localnet": 26, "igmpv2_unsolicited_report_interval": 27, "igmpv3_unsolicited_report_interval": 28,
	"ignore_routes_with_linkdown": 29, "drop_unicast_in_l2_multicast": 30, "drop_gratuitous_arp": 31, "bc_forwarding": 32,
	"arp_evict_nocarrier": 33,
}
