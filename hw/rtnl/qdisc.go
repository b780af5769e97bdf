package rtnl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
)

// Numbers of include/uapi/linux/rtnetlink.h and pkt_sched.h.
const (
	sizeofTcMsg = 20
	tcaKind     = 1
	tcRoot      = 0xffffffff // TC_H_ROOT
	tcIngress   = 0xfffffff1 // TC_H_INGRESS, TC_H_CLSACT
)

// tcState are the attributes of qdiscs and classes that are counters or cannot be set.
var tcState = []int{3, 4, 6, 7, 9, 12} // TCA_STATS, TCA_XSTATS, TCA_FCNT, TCA_STATS2, TCA_PAD, TCA_HW_OFFLOAD

// classful are the qdiscs whose classes an administrator makes. The classes of others, such as mq and prio, are there with them.
var classful = []string{"htb", "hfsc", "drr", "qfq"}

// A tcItem is a qdisc or class with what it stands below.
type tcItem struct {
	entry          hw.Entry
	handle, parent uint32
	kind           string
}

// qdiscs lists the qdiscs of a link that an administrator has set, and their classes, each after what it stands below. Those
// that the kernel attaches by default have no handle.
func qdiscs(p pool, index int) ([]hw.Entry, error) {
	body := make([]byte, sizeofTcMsg)
	putIndex(body, 4, index)
	var items []tcItem
	answers, err := listMessages(p, unix.RTM_GETQDISC, unix.RTM_NEWQDISC, body)
	if errors.Is(err, hw.ErrUnsupported) { // a kernel without CONFIG_NET_SCHED
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if items, err = tcItems(answers, index, hw.EntryQdisc); err != nil {
		return nil, err
	}
	if !slices.ContainsFunc(items, func(i tcItem) bool { return slices.Contains(classful, i.kind) }) {
		return sorted(items), nil
	}
	if answers, err = listMessages(p, unix.RTM_GETTCLASS, unix.RTM_NEWTCLASS, body); err != nil {
		return nil, err
	}
	classes, err := tcItems(answers, index, hw.EntryClass)
	if err != nil {
		return nil, err
	}
	classes = slices.DeleteFunc(classes, func(i tcItem) bool {
		return !slices.Contains(classful, i.kind) || i.handle&0xffff == 0 // the root class of hfsc is there with it
	})
	return sorted(append(items, classes...)), nil
}

// tcItems converts a listing of qdiscs or classes.
func tcItems(answers [][]byte, index int, kind hw.EntryKind) (items []tcItem, _ error) {
	for _, answer := range answers {
		m, err := split(answer, sizeofTcMsg)
		if err != nil {
			return nil, err
		}
		i := tcItem{handle: binary.NativeEndian.Uint32(m.head[8:]), parent: binary.NativeEndian.Uint32(m.head[12:]),
			kind: strings.TrimRight(string(m.get(tcaKind)), "\x00")}
		if indexAt(m.head, 4) != index || i.handle == 0 {
			continue
		}
		putIndex(m.head, 4, 0)
		clear(m.head[16:]) // the number of references, or the qdisc below the class
		m.without(tcState...)
		if kind == hw.EntryQdisc && i.kind == "htb" {
			m.settleHTB()
		}
		text := fmt.Sprintf("%s %s %x:", kind, i.kind, i.handle>>16)
		if kind == hw.EntryClass {
			text = fmt.Sprintf("%s %s %x:%x", kind, i.kind, i.handle>>16, i.handle&0xffff)
		}
		i.entry = hw.Entry{Kind: kind, Text: text, Body: m.body()}
		items = append(items, i)
	}
	return items, nil
}

// settleHTB makes the options of an htb qdisc what htb accepts: it lists its version as 0x30011, accepts 3, and counts in a
// field (net/sched/sch_htb.c, htb_dump and htb_init, Linux 6.12).
func (m *message) settleHTB() {
	const tcaOptions, tcaInit, version, counted = 2, 2, 0, 16 // TCA_HTB_INIT is a struct tc_htb_glob
	options := nested(slices.Clone(m.get(tcaOptions)))
	glob := options.get(tcaInit)
	if len(glob) < counted+4 {
		return
	}
	if v := binary.NativeEndian.Uint32(glob[version:]); v > 0xffff {
		binary.NativeEndian.PutUint32(glob[version:], v>>16)
	}
	clear(glob[counted : counted+4])
	m.set(tcaOptions, options.body())
}

// sorted returns qdiscs and classes in an order in which they can be added.
func sorted(items []tcItem) (entries []hw.Entry) {
	made := map[uint32]string{tcRoot: "", tcIngress: ""} // kinds by handle
	for len(items) > 0 {
		i := max(0, slices.IndexFunc(items, func(i tcItem) bool { return i.ready(made) }))
		made[items[i].handle] = items[i].kind
		entries = append(entries, items[i].entry)
		items = slices.Delete(items, i, i+1)
	}
	return entries
}

// ready returns true if what an item stands below is there. A top class stands below its qdisc.
func (i tcItem) ready(made map[uint32]string) bool {
	parent := i.parent
	if i.entry.Kind == hw.EntryClass && parent == tcRoot {
		parent = i.handle &^ 0xffff
	}
	_, there := made[parent]
	of, implied := made[parent&^0xffff] // a class that is there with its qdisc
	return there || implied && !slices.Contains(classful, of)
}

// addQdisc adds a qdisc, unless there is one in its place.
func addQdisc(p pool, index int, e hw.Entry) error { return addTC(p, unix.RTM_NEWQDISC, index, e) }

// addClass adds a class of a qdisc.
func addClass(p pool, index int, e hw.Entry) error { return addTC(p, unix.RTM_NEWTCLASS, index, e) }

func addTC(p pool, msgType, index int, e hw.Entry) error {
	m, err := split(e.Body, sizeofTcMsg)
	if err != nil {
		return err
	}
	putIndex(m.head, 4, index)
	return unlessExists(sendMessage(p, msgType, unix.NLM_F_CREATE|unix.NLM_F_EXCL, m.body()))
}

// LeftOut implements [hw.Kernel].
func (k *Kernel) LeftOut(index int) (texts []string, _ error) {
	const ingress, egress = 0xfffffff2, 0xfffffff3 // TC_H_MIN_INGRESS and TC_H_MIN_EGRESS of clsact
	body := make([]byte, sizeofTcMsg)
	putIndex(body, 4, index)
	answers, err := listMessages(k.sockets, unix.RTM_GETQDISC, unix.RTM_NEWQDISC, body)
	if errors.Is(err, hw.ErrUnsupported) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	items, err := tcItems(answers, index, hw.EntryQdisc)
	if err != nil {
		return nil, err
	}
	for _, i := range items {
		parents := []uint32{i.handle}
		if i.parent == tcIngress {
			parents = []uint32{i.handle, ingress, egress}
		}
		for _, parent := range parents {
			binary.NativeEndian.PutUint32(body[12:], parent)
			filters, err := listMessages(k.sockets, unix.RTM_GETTFILTER, unix.RTM_NEWTFILTER, body)
			if err == nil && len(filters) > 0 {
				texts = append(texts, fmt.Sprintf("filters of %s", i.entry.Text))
				break
			}
		}
	}
	return texts, nil
}
