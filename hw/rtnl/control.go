package rtnl

import (
	"bytes"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sort"
	"strconv"
	"strings"
	"unsafe"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Flow rules and RSS are read and set over ethtool's ioctl: the netlink interface has no flow rules (Linux 6.18), and cannot set RSS
// before Linux 6.17. The ioctl takes a name, which is read before each call.

// controls reads and sets the controls of links.
type controls struct {
	ethtool *ethtoolConn
	nameOf  func(index int) (string, error)
	ioctl   func(name string, c command) error
	fd      int // a socket, for its network namespace
}

// Controls implements [hw.Kernel].
func (c controls) Controls(index int) ([]hw.Control, error) {
	name, err := c.nameOf(index)
	if err != nil {
		return nil, err
	}
	all, err := c.ethtool.privateFlags(index)
	if err != nil {
		return nil, err
	}
	for _, list := range []func() ([]hw.Control, error){
		func() ([]hw.Control, error) { return c.rss(name) }, func() ([]hw.Control, error) { return c.flowRules(name) },
		func() ([]hw.Control, error) { return programs(index) },
	} {
		some, err := list()
		if err != nil && !isMissing(err) {
			return nil, hw.FromErrno(err)
		}
		all = append(all, some...)
	}
	if now, err := c.nameOf(index); err != nil || now != name {
		return nil, errors.Join(err, hw.Because(hw.ErrBusy, "%s has been renamed meanwhile", name))
	}
	return all, nil
}

// isMissing returns true if a driver or the kernel does not have what was asked for, or does not show it to CAP_NET_ADMIN: drivers
// that know some of ethtool's commands say EINVAL to others; bpf is EPERM where seccomp refuses it, as in a container.
func isMissing(err error) bool {
	return errors.Is(hw.FromErrno(err), hw.ErrUnsupported) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM)
}

// SetControl implements [hw.Kernel].
func (c controls) SetControl(index int, want hw.Control) error {
	name, err := c.nameOf(index)
	if err != nil {
		return err
	}
	switch want.Kind {
	case hw.ControlPrivateFlag:
		return c.ethtool.setPrivateFlag(index, want.Name, want.On())
	case hw.ControlRSS:
		err = c.setRSS(name, want.Body)
	case hw.ControlFlowRule:
		err = c.setFlowRule(name, want)
	case hw.ControlTCX:
		err = detach(index, want)
	default:
		err = unix.EINVAL
	}
	return hw.FromErrno(err)
}

// privateFlags reads a driver's own switches; none if it has none.
func (e ethtoolConn) privateFlags(index int) ([]hw.Control, error) {
	attrs, err := e.get(index, unix.ETHTOOL_MSG_PRIVFLAGS_GET)
	if errors.Is(err, hw.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	flags, err := bits(attrs[unix.ETHTOOL_A_PRIVFLAGS_FLAGS])
	if err != nil {
		return nil, fmt.Errorf("ethtool: private flags: %w", err)
	}
	var all []hw.Control
	for name, on := range flags {
		all = append(all, hw.PrivateFlag(name, on))
	}
	sort.Slice(all, func(i, j int) bool { return all[i].Name < all[j].Name })
	return all, nil
}

// setPrivateFlag sets one private flag.
func (e ethtoolConn) setPrivateFlag(index int, name string, on bool) error {
	return e.set(index, unix.ETHTOOL_MSG_PRIVFLAGS_SET, unix.ETHTOOL_A_PRIVFLAGS_HEADER,
		switches(unix.ETHTOOL_A_PRIVFLAGS_FLAGS, map[string]bool{name: on}))
}

// callEthtool calls ethtool with a command over a socket.
func callEthtool(fd int, name string, c command) error {
	var request struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(request.name[:unix.IFNAMSIZ-1], name)
	request.data = unsafe.Pointer(&c[0])
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&request)))
	runtime.KeepAlive(c)
	if errno != 0 {
		return errno
	}
	return nil
}

// A command is one of ethtool's structs (include/uapi/linux/ethtool.h), with what follows it. Its number comes first.
type command []byte

// newCommand returns a command of a size.
func newCommand(number uint32, size int) command {
	c := make(command, size)
	c.put(0, number)
	return c
}

func (c command) at(offset int) uint32     { return nl.NativeEndian().Uint32(c[offset:]) }
func (c command) put(offset int, n uint32) { nl.NativeEndian().PutUint32(c[offset:], n) }

// Offsets in struct ethtool_rxfh. indir_size counts numbers of four bytes, key_size bytes; both follow the struct.
const (
	rxfhIndirSize = 8
	rxfhKeySize   = 12
	rxfhConfig    = 24
)

// rss reads the hash function, key and indirection table of a link.
func (c controls) rss(name string) ([]hw.Control, error) {
	m := newCommand(unix.ETHTOOL_GRSSH, rxfhConfig)
	if err := c.ioctl(name, m); err != nil {
		return nil, err
	}
	indir, key := m.at(rxfhIndirSize), m.at(rxfhKeySize)
	if indir == 0 && key == 0 || indir > 1<<16 || key > 1<<12 {
		return nil, nil
	}
	m = newCommand(unix.ETHTOOL_GRSSH, rxfhConfig+int(indir)*4+int(key))
	m.put(rxfhIndirSize, indir)
	m.put(rxfhKeySize, key)
	if err := c.ioctl(name, m); err != nil {
		return nil, err
	}
	return []hw.Control{{Kind: hw.ControlRSS, Body: m[4:]}}, nil
}

// setRSS sets what rss has read. The driver's default is tried first, which is what most have: with a table that was set, a driver cannot
// have fewer queues any more (net/ethtool/channels.c, ethnl_set_channels: netif_is_rxfh_configured, Linux 6.12).
func (c controls) setRSS(name string, body []byte) error {
	if len(body) < rxfhConfig-4 {
		return unix.EINVAL
	}
	m := append(newCommand(unix.ETHTOOL_SRSSH, 4), body...)
	if len(m) != rxfhConfig+int(m.at(rxfhIndirSize))*4+int(m.at(rxfhKeySize)) {
		return unix.EINVAL
	}
	if err := c.ioctl(name, newCommand(unix.ETHTOOL_SRSSH, rxfhConfig)); err == nil { // no table: the default
		if now, err := c.rss(name); err == nil && len(now) == 1 && m.sameRSS(append(make(command, 4), now[0].Body...)) {
			return nil
		}
	}
	return c.ioctl(name, m)
}

// sameRSS returns true if the hash and the share of each queue are the same; the places of a queue in the table do not matter.
func (c command) sameRSS(o command) bool {
	if len(c) != len(o) || !bytes.Equal(c[4:rxfhConfig], o[4:rxfhConfig]) {
		return false
	}
	shares := map[uint32]int{}
	key := rxfhConfig + 4*int(c.at(rxfhIndirSize))
	for at := rxfhConfig; at < key; at += 4 {
		shares[c.at(at)]++
		shares[o.at(at)]--
	}
	for _, more := range shares {
		if more != 0 {
			return false
		}
	}
	return bytes.Equal(c[key:], o[key:])
}

// Offsets in struct ethtool_rxnfc and struct ethtool_rx_flow_spec.
const (
	rxnfcSpec     = 16
	rxnfcLocation = rxnfcSpec + flowLocation
	rxnfcCount    = rxnfcSpec + flowSize // rule_cnt
	rxnfcLocs     = rxnfcCount + 4       // rule_locs
	rxnfcSize     = rxnfcCount + 8
	flowLocation  = 160
	flowSize      = 168
)

// flowRules reads the rules of a link that decide where its frames go.
func (c controls) flowRules(name string) ([]hw.Control, error) {
	m := newCommand(unix.ETHTOOL_GRXCLSRLCNT, rxnfcSize)
	if err := c.ioctl(name, m); err != nil {
		return nil, err
	}
	n := m.at(rxnfcCount)
	if n == 0 || n > 1<<20 {
		return nil, nil
	}
	m = newCommand(unix.ETHTOOL_GRXCLSRLALL, rxnfcSize+4*int(n))
	m.put(rxnfcCount, n)
	if err := c.ioctl(name, m); err != nil {
		return nil, err
	}
	var all []hw.Control
	for i := range min(n, m.at(rxnfcCount)) {
		at := m.at(rxnfcLocs + 4*int(i))
		rule := newCommand(unix.ETHTOOL_GRXCLSRULE, rxnfcSize)
		rule.put(rxnfcLocation, at)
		err := c.ioctl(name, rule)
		if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) { // it has just been removed
			continue
		}
		if err != nil {
			return nil, err
		}
		all = append(all, hw.Control{Kind: hw.ControlFlowRule, Name: strconv.Itoa(int(at)), Body: rule[rxnfcSpec:rxnfcCount]})
	}
	return all, nil
}

// setFlowRule adds or changes a rule at its location, or removes it.
func (c controls) setFlowRule(name string, want hw.Control) error {
	at, err := strconv.ParseUint(want.Name, 10, 32)
	if err != nil || len(want.Body) != 0 && len(want.Body) != flowSize {
		return unix.EINVAL
	}
	m := newCommand(unix.ETHTOOL_SRXCLSRLDEL, rxnfcSize)
	if len(want.Body) > 0 {
		m.put(0, unix.ETHTOOL_SRXCLSRLINS)
		copy(m[rxnfcSpec:], want.Body)
	}
	m.put(rxnfcLocation, uint32(at))
	return c.ioctl(name, m)
}

// The directions of tcx programs.
var directions = map[string]uint32{"ingress": unix.BPF_TCX_INGRESS, "egress": unix.BPF_TCX_EGRESS}

// maxPrograms is how many programs the kernel attaches at most (include/linux/bpf_mprog.h, BPF_MPROG_MAX, Linux 6.12).
const maxPrograms = 64

// programs lists the tcx programs of a link, which a kernel before Linux 6.6 does not have.
func programs(index int) (all []hw.Control, _ error) {
	for _, direction := range []string{"ingress", "egress"} {
		ids, _, err := queryPrograms(index, direction)
		if err != nil {
			return nil, err
		}
		for _, id := range ids {
			all = append(all, hw.Control{Kind: hw.ControlTCX, Name: fmt.Sprintf("%d (%s)", id, direction)})
		}
	}
	return all, nil
}

// queryPrograms lists the programs of one direction, in their order.
func queryPrograms(index int, direction string) (ids []uint32, revision uint64, _ error) {
	ids = make([]uint32, maxPrograms)
	attr := struct { // of BPF_PROG_QUERY, include/uapi/linux/bpf.h
		ifindex, kind, queryFlags, attachFlags uint32
		ids                                    unsafe.Pointer
		count, _                               uint32
		progFlags, links, linkFlags, revision  uint64
	}{ifindex: uint32(index), kind: directions[direction], ids: unsafe.Pointer(&ids[0]), count: maxPrograms}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_QUERY, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(ids)
	if errno != 0 {
		return nil, 0, errno
	}
	return ids[:attr.count], attr.revision, nil
}

// detach detaches a tcx program. It is named by its place, because its ID would have to be turned into a file, which takes
// CAP_SYS_ADMIN. One that a process or a file in a bpf file system holds (BPF_LINK_CREATE) is EBUSY.
func detach(index int, want hw.Control) error {
	var id uint32
	var direction string
	if _, err := fmt.Sscanf(want.Name, "%d (%s", &id, &direction); err != nil || len(want.Body) > 0 {
		return unix.EINVAL
	}
	direction = strings.TrimSuffix(direction, ")")
	ids, revision, err := queryPrograms(index, direction)
	if err != nil {
		return err
	}
	place := slices.Index(ids, id)
	if place < 0 {
		return unix.ENOENT
	}
	attr := struct { // of BPF_PROG_DETACH
		ifindex, program, kind, flags, replaced, relative uint32
		revision                                          uint64
	}{ifindex: uint32(index), kind: directions[direction], flags: unix.BPF_F_BEFORE, revision: revision}
	if place > 0 {
		attr.flags, attr.relative = unix.BPF_F_AFTER|unix.BPF_F_ID, ids[place-1]
	}
	_, _, errno := unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_DETACH, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return errno
	}
	return nil
}
