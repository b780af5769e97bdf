package hw

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/mellanox/passthrough/internal/retry"
)

// ID identifies a device for as long as it is plugged in, whatever its name and namespace: the PCI address
// ("0000:03:10.2", with "/1" for the second port of a function with several), or for a device that is not a PCI
// function's own netdev the ifindex and hardware address that it had when it was first seen
// ("link-7-02:42:ac:11:00:02"). A link that the plugin creates has the key of its creator ("made-KEY"). CheckIdentity
// and CheckUnique refuse netdevs that their ID does not identify.
type ID string

// IsPCI returns true if the device is a PCI function.
func (id ID) IsPCI() bool { return id.PCI() != "" }

// PCI returns the PCI address, "" for a device that has none. It becomes part of paths, so a malformed ID of a damaged
// record has none.
func (id ID) PCI() string {
	pci, _, _ := strings.Cut(string(id), "/")
	if !isPCI(pci) {
		return ""
	}
	return pci
}

// aliasMark returns the alias (IFLA_IFALIAS) by which a device without a PCI address is found while a container has it:
// name, ifindex and MAC may all change in a container, while the alias stays with the device across namespaces (Linux
// 6.18).
func (id ID) aliasMark() string { return "lent by passthrough: " + string(id) }

// Netdev is a network device in the host's namespace.
type Netdev struct {
	ID     ID
	Driver string // of the PCI function; "" without one
	Link
}

// Counters reads the counters of a netdev in the host; ok is false if the kernel has none of it.
func (h *finder) Counters(n Netdev) (c Counters, ok bool) {
	for name, to := range map[string]*uint64{
		"rx_bytes": &c.RxBytes, "tx_bytes": &c.TxBytes, "rx_packets": &c.RxPackets, "tx_packets": &c.TxPackets, "multicast": &c.RxMulticast,
		"rx_dropped": &c.RxDropped, "tx_dropped": &c.TxDropped, "rx_errors": &c.RxErrors, "tx_errors": &c.TxErrors,
		"rx_missed_errors": &c.RxMissed,
	} {
		text, found, err := h.sys.text("class/net/" + n.Name + "/statistics/" + name)
		if err != nil || !found {
			continue
		}
		if value, err := strconv.ParseUint(text, 10, 64); err == nil {
			*to, ok = value, true
		}
	}
	queues, _ := h.sys.list("class/net/" + n.Name + "/queues") // none with an error
	for _, q := range queues {
		if text, found, err := h.sys.text("class/net/" + n.Name + "/queues/" + q + "/tx_timeout"); err == nil && found {
			value, _ := strconv.ParseUint(text, 10, 64) // 0 for what is no number
			c.TxTimeouts += value
		}
	}
	return c, ok
}

// immovable are kinds of link that cannot change their namespace, for kernels that do not tell.
var immovable = []string{"bond", "bridge", "team", "vrf", "openvswitch", "batadv", "hsr", "ppp"}

// CheckMovable returns an error if a device can never be moved into another namespace, nil if it can: the kernel returns
// EINVAL. The error matches ErrUnsupported.
func (h *finder) CheckMovable(n Netdev) error {
	fixed, known, err := h.kernel.NetNSImmutable(n.Index)
	if err != nil {
		return &Error{Dev: n.Name, Op: "read link", Err: err}
	}
	if !known { // all Wi-Fi netdevs are immutable (net/wireless/core.c, Linux 6.12)
		fixed = n.Type == "loopback" || slices.Contains(immovable, n.Kind) || h.sys.exists("class/net/"+n.Name+"/phy80211")
	}
	if !fixed {
		return nil
	}
	return &Error{Dev: n.Name, Err: Because(ErrUnsupported, "%s cannot leave its network namespace", n.noun())}
}

// noun returns what kind of link it is, in words for messages.
func (l Link) noun() string {
	switch {
	case l.Kind != "":
		return "a " + l.Kind
	case l.Type == "loopback":
		return "a loopback"
	}
	return "it"
}

// lookAttempts is how often links and sysfs are read until they agree: they are read one after the other, and names
// change hands in between, as when several devices called eth0 return to the host at the same time.
const lookAttempts = 5

// errRenamed: a name changed hands between two reads.
var errRenamed = errors.New("its name keeps changing")

// look finds a device among the links, and again if a name changed hands meanwhile.
func (h *finder) look(dev string, find func(links []Link) (Netdev, error)) (Netdev, error) {
	return retryRenamed(dev, func() (Netdev, error) {
		links, err := h.kernel.Links()
		if err != nil {
			return Netdev{}, &Error{Dev: dev, Op: "list links", Err: err}
		}
		return find(links)
	})
}

// retryRenamed looks for a device, and again if a name changed hands meanwhile.
func retryRenamed[T any](dev string, look func() (T, error)) (found T, err error) {
	changed := func(err error) bool { return errors.Is(err, errRenamed) }
	err = retry.Times(lookAttempts, changed, func() (err error) {
		found, err = look()
		return err
	})
	if changed(err) {
		var none T
		return none, &Error{Dev: dev, Err: fmt.Errorf("%w: %w", errRenamed, ErrBusy)}
	}
	return found, err
}

// Netdev returns the device that ref names: a name, an alternative name or a PCI address. The error matches ErrNotFound
// if there is none, ErrAway if the PCI function has none in the host's namespace, ErrInvalid if it has several, and
// ErrUnsupported if ref names a sub-function or a vDPA device by its bus.
func (h *finder) Netdev(ref string) (Netdev, error) {
	if pci, isPCI := ParsePCI(ref); isPCI {
		return retryRenamed(ref, func() (Netdev, error) {
			links, err := h.linksOf(pci)
			if err != nil {
				return Netdev{}, err
			}
			return h.netdevAt(pci, links)
		})
	}
	return h.look(ref, func(links []Link) (Netdev, error) {
		for _, l := range links {
			if l.Name == ref || slices.Contains(l.AltNames, ref) {
				return h.describe(l)
			}
		}
		name := strings.TrimPrefix(ref, "auxiliary/") // as devlink prints it
		err := h.derivedError(ref, func(d Derived) bool { return d.Name == name })
		return Netdev{}, cmp.Or[error](err, &Error{Dev: ref, Err: ErrNotFound})
	})
}

// netdevAt returns the one netdev of a PCI function that is no representor.
func (h *finder) netdevAt(pci string, links []Link) (Netdev, error) {
	all, err := h.netdevsAt(pci, links)
	if len(all) > 1 {
		all = slices.DeleteFunc(all, func(n Netdev) bool {
			port, err := h.switchPort(n.Name)
			return err == nil && port.IsRepresentor()
		})
	}
	if err == nil && len(all) == 0 {
		err = h.checkPresent(pci)
	}
	switch {
	case errors.Is(err, errRenamed):
		return Netdev{}, err
	case err != nil:
		return Netdev{}, &Error{Dev: pci, Err: err}
	case len(all) == 0:
		return Netdev{}, &Error{Dev: pci, Err: h.whyAway(pci)}
	case len(all) > 1:
		var names []string
		for _, n := range all {
			names = append(names, n.Name)
		}
		return Netdev{}, &Error{Dev: pci, Err: Because(ErrInvalid, "it has several netdevs (%s); name one of them",
			strings.Join(names, ", "))}
	}
	return all[0], nil
}

// fewNetdevs is how many netdevs of a function are read one by one. On a host with many containers that is faster than a listing of all links.
// For a function with more it is not: the representors of its VFs are netdevs of it as well.
const fewNetdevs = 4

// linksOf lists links among which are those of a PCI function that are in the host's namespace. The error matches errRenamed if a name changed
// hands.
func (h *finder) linksOf(pci string) ([]Link, error) {
	names, err := h.netdevsOf(pci)
	if err != nil {
		return nil, &Error{Dev: pci, Err: err}
	}
	if len(names) > fewNetdevs {
		links, err := h.kernel.Links()
		return links, wrapped(pci, "list links", err)
	}
	var links []Link
	for _, name := range names {
		l, err := h.kernel.LinkNamed(name)
		if errors.Is(err, ErrNotFound) {
			return nil, errRenamed
		}
		if err != nil {
			return nil, &Error{Dev: name, Op: "read link", Err: err}
		}
		links = append(links, l)
	}
	return links, nil
}

// netdevsAt returns the netdevs of a PCI function that are in the host's namespace, in order of their names.
func (h *finder) netdevsAt(pci string, links []Link) ([]Netdev, error) {
	names, err := h.netdevsOf(pci)
	if err != nil {
		return nil, err
	}
	var all []Netdev
	for _, name := range names {
		i := slices.IndexFunc(links, func(l Link) bool { return l.Name == name })
		if i < 0 {
			return nil, errRenamed
		}
		n, err := h.describe(links[i])
		if err != nil {
			return nil, err
		}
		all = append(all, n)
	}
	return all, nil
}

// describe adds to a link what sysfs says about it. The error matches errRenamed if another link has the name by now.
func (h *finder) describe(l Link) (Netdev, error) {
	dir, err := h.netdevDir(l.Name)
	if err != nil {
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	}
	if dir == "" {
		return Netdev{}, errRenamed
	}
	index, ok, err := h.sys.number(dir + "/ifindex")
	switch {
	case goingAway(err):
		return Netdev{}, errRenamed
	case err != nil:
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	case !ok || index != l.Index:
		return Netdev{}, errRenamed
	}
	pci := pciOf(dir)
	if pci == "" {
		return Netdev{ID: linkID(l), Link: l}, nil
	}
	n := Netdev{ID: ID(pci), Link: l}
	if n.Driver, err = h.driverOf(pci); err != nil {
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	}
	port, ok, err := h.sys.number(dir + "/dev_port")
	switch {
	case goingAway(err):
		return Netdev{}, errRenamed
	case err != nil:
		return Netdev{}, &Error{Dev: l.Name, Err: err}
	}
	if ok && port > 0 && !(portOfNIC[n.Driver] && h.sys.exists(pciDir(pci)+"/physfn")) {
		n.ID = ID(pci + "/" + strconv.Itoa(port))
	}
	return n, nil
}

// portOfNIC has the drivers that give the number of the NIC's port as dev_port and create one netdev for each function all the same
// (net_dev->dev_port in drivers/net/ethernet/sfc, Linux 6.12; earlier releases of bnxt_en). Of a VF it is no part of the identity.
// Drivers with several netdevs on one VF, such as mlx4_core and cxgb4vf, number those.
var portOfNIC = map[string]bool{"sfc": true, "sfc_siena": true, "bnxt_en": true}

// index returns the ifindex that a device without a PCI address had when it was first seen, 0 for another kind of ID.
func (id ID) index() (index int) {
	if rest, ok := strings.CutPrefix(string(id), "link-"); ok {
		text, _, _ := strings.Cut(rest, "-")
		index, _ = strconv.Atoi(text)
	}
	return index
}

// linkID returns the identity of a device without a PCI address.
func linkID(l Link) ID {
	mac := l.PermMAC
	if mac == "" {
		mac = l.MAC
	}
	return ID(fmt.Sprintf("link-%d-%s", l.Index, mac))
}
