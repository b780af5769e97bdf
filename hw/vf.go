package hw

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// VF is one virtual function of a PF.
type VF struct {
	PF       string // name of the PF
	Index    int
	PCI      string
	Driver   string // "" while it is not bound to one
	Override string // driver_override; "" for none
	Netdev   Netdev // Index 0 if it has no netdev in the host
	Carries  string // an upper link of that netdev in the host, such as a VLAN; "" for none

	noNetdev bool   // it has a driver, and no netdev in any namespace
	vdpa     string // a vDPA device on it; "" for none
}

// ID returns the VF's identity. A VF has one port.
func (v VF) ID() ID { return ID(v.PCI) }

// String returns the VF's name in messages.
func (v VF) String() string { return fmt.Sprintf("vf %d of %s (%s)", v.Index, v.PF, v.PCI) }

// vfDrivers are the drivers of VFs, by their PF's driver, from the kernel's sources (6.12, drivers/net/ethernet and
// drivers/virtio). VFs of other drivers are bound by the kernel's own probing.
var vfDrivers = map[string]string{
	"igb":        "igbvf",
	"ixgbe":      "ixgbevf",
	"i40e":       "iavf",
	"ice":        "iavf",
	"mlx5_core":  "mlx5_core",
	"bnxt_en":    "bnxt_en",
	"virtio-pci": "virtio-pci",
}

// VFs lists the VFs of a PF in order of their index.
func (h *vfs) VFs(pf PF) ([]VF, error) {
	links, err := h.kernel.Links()
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "list links", Err: err}
	}
	vdpa, err := h.vdpaOn()
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "list vdpa devices", Err: err}
	}
	var vfs []VF
	for i := 0; ; i++ {
		pci, err := h.virtfn(pf, i)
		if pci == "" || err != nil {
			return vfs, err
		}
		vf, err := h.vf(pf, i, pci, links)
		if err != nil {
			return nil, &Error{Dev: pf.String(), Err: err}
		}
		vf.vdpa = vdpa[pci]
		vfs = append(vfs, vf)
	}
}

// virtfn returns the PCI address of the VF of a PF with an index, "" if it has none.
func (h *vfs) virtfn(pf PF, index int) (pci string, err error) {
	pci, err = h.sys.link(pciDir(pf.PCI()) + "/virtfn" + strconv.Itoa(index))
	if err == nil && pci != "" && !isPCI(pci) {
		err = fmt.Errorf("virtfn%d leads to %q: %w", index, pci, ErrInvalid)
	}
	if err != nil {
		return "", &Error{Dev: pf.String(), Err: err}
	}
	return pci, nil
}

// indexOf returns the index of the VF of a PF with a PCI address; known is false if it has none. It is looked for at the likely index first.
func (h *vfs) indexOf(pf PF, pci string, likely int) (index int, known bool, _ error) {
	for _, index = range []int{likely, 0} {
		for ; ; index++ {
			at, err := h.virtfn(pf, index)
			if err != nil {
				return 0, false, err
			}
			if at == "" { // before the comparison: an ID of a damaged record has no PCI address
				break
			}
			if at == pci {
				return index, true, nil
			}
		}
	}
	return 0, false, nil
}

// vf reads one VF.
func (h *vfs) vf(pf PF, index int, pci string, links []Link) (VF, error) {
	vf := VF{PF: pf.Name, Index: index, PCI: pci}
	var err error
	if vf.Driver, err = h.driverOf(pci); err != nil {
		return vf, err
	}
	if vf.Override, _, err = h.sys.text(pciDir(pci) + "/driver_override"); err != nil {
		return vf, err
	}
	if vf.Override == "(null)" {
		vf.Override = ""
	}
	if vf.Driver == "" { // then it has no netdev
		return vf, nil
	}
	all, err := h.netdevsAt(pci, links)
	switch {
	case errors.Is(err, errRenamed): // or the netdev appeared after the links were listed, or is being unregistered
		if vf.Netdev, err = h.Find(vf.ID()); errors.Is(err, ErrAway) || errors.Is(err, errRenamed) {
			err = nil // one VF in transition must not hide the others
		}
	case len(all) > 0:
		vf.Netdev = all[0]
	case err == nil:
		var created bool
		created, err = h.hasNetdev(pci)
		vf.noNetdev = !created
	}
	vf.Carries = childOf(vf.Netdev.Index, links)
	return vf, err
}

// VF finds a VF by its PF's PCI address and its own. The error matches ErrNotFound if it is gone, and names it by its
// index. Only its own links are read: what it carries is left out, see [vfs.VFs].
func (h *vfs) VF(pfRef string, index int, id ID) (PF, VF, error) {
	pf, err := h.PF(pfRef)
	if err != nil {
		return PF{}, VF{}, err
	}
	at, known, err := h.indexOf(pf, id.PCI(), index)
	if err != nil {
		return PF{}, VF{}, err
	}
	if !known {
		return PF{}, VF{}, &Error{Dev: fmt.Sprintf("vf %d of %s (%s)", index, pf.Name, id.PCI()), Err: ErrNotFound}
	}
	vf, err := h.oneVF(pf, at, id.PCI())
	if err != nil {
		return PF{}, VF{}, &Error{Dev: pf.String(), Err: err}
	}
	return pf, vf, nil
}

// oneVF reads a VF without the links of others.
func (h *vfs) oneVF(pf PF, index int, pci string) (VF, error) {
	vdpa, err := h.vdpaOn()
	if err != nil {
		return VF{}, &Error{Op: "list vdpa devices", Err: err}
	}
	links, err := h.linksOf(pci)
	if err != nil && !errors.Is(err, errRenamed) { // vf deals with that
		return VF{}, err
	}
	vf, err := h.vf(pf, index, pci, links)
	vf.vdpa = vdpa[pci]
	return vf, err
}

// PFOf returns the PCI address of the PF of a VF; "" for a device that is no VF, or is not plugged in.
func (h *finder) PFOf(id ID) (pci string, err error) {
	if !id.IsPCI() {
		return "", nil
	}
	if pci, err = h.sys.link(pciDir(id.PCI()) + "/physfn"); err != nil {
		err = &Error{Dev: string(id), Err: err}
	}
	return pci, err
}

// VFStates reads what a PF has set for its VFs, by their index. A VF is missing while the driver has nothing to report of it, as
// during a reset. The map is nil if the driver never reports anything.
func (h *vfs) VFStates(pf PF) (map[int]VFState, error) {
	all, err := h.kernel.VFs(pf.Index)
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "read vfs", Err: err}
	}
	if !h.sys.exists(pciDir(pf.PCI()) + "/sriov") { // where trunks are
		return all, nil
	}
	for i, s := range all {
		if s.Trunk, err = h.trunk(pf, i); err != nil {
			return nil, &Error{Dev: pf.String(), Op: "read vfs", Err: err}
		}
		all[i] = s
	}
	return all, nil
}

// VFCounters reads what a PF's driver has counted of its VFs, by their index. A VF of which it has counted nothing is left out: the kernel
// does not tell it from one whose driver does not count.
func (h *vfs) VFCounters(pf PF) (map[int]Counters, error) {
	all, err := h.kernel.VFCounters(pf.Index)
	if err != nil {
		return nil, &Error{Dev: pf.String(), Op: "read counters of vfs", Err: err}
	}
	maps.DeleteFunc(all, func(_ int, c Counters) bool { return !c.Counted() })
	return all, nil
}

// Resetting returns true if a PF's driver has nothing to report of a VF just now; states is from VFStates. An InfiniBand PF
// reports nothing through rtnetlink if its driver does not help IPoIB with it (drivers/infiniband/core/verbs.c,
// ib_get_vf_config, Linux 6.12).
func (p PF) Resetting(vf VF, states map[int]VFState) bool {
	_, known := states[vf.Index]
	return states != nil && !known && !p.InfiniBand()
}

// notReported is the error about a VF that is being reset.
func (p PF) notReported() error {
	return fmt.Errorf("driver %s does not say what is set for it; it may be resetting it: %w", p.Driver, ErrBusy)
}

// DownReason returns, in words, why a PF that is down may be why its VFs are neither reported nor changed (bnx2x, and bnxt_en of its
// vendor), and the remedy.
func (p PF) DownReason() string {
	return fmt.Sprintf("%s is down, and its driver %s does nothing for vfs until it is up; set it up (ip link set %s up)", p, p.Driver, p.Name)
}

// noVFOps returns true if a PF has VFs and its driver reports nothing of them: it has no operations for VFs (virtio). states is from VFStates.
func (h *vfs) noVFOps(pf PF, states map[int]VFState) bool {
	return states == nil && h.sys.exists(pciDir(pf.PCI())+"/virtfn0")
}

// CheckVFsReported refuses a PF whose driver has operations for VFs and reports none of those that there are, also after the
// time that a reset takes: it will neither report nor set anything. mlx5 on the host of a BlueField in DPU mode is like that
// (mlx5/core/esw/legacy.c and eswitch.c, mlx5_esw_allowed: EPERM; Linux 6.12). The error matches ErrUnsupported. The result is that of
// VFStates.
func (h *vfs) CheckVFsReported(ctx context.Context, pf PF) (map[int]VFState, error) {
	vfs, err := h.VFs(pf)
	if err != nil {
		return nil, err
	}
	return h.awaitReports(ctx, pf, vfs)
}

// awaitReports waits until the driver of a PF reports what is set for each of vfs, at most for as long as a reset takes. It
// returns the states of those that are reported then.
func (h *vfs) awaitReports(ctx context.Context, pf PF, vfs []VF) (states map[int]VFState, err error) {
	missing := func(vf VF) bool { return pf.Resetting(vf, states) }
	err = wait(ctx, vfResetBound, func() (bool, error) {
		states, err = h.VFStates(pf)
		return !slices.ContainsFunc(vfs, missing), err
	})
	switch {
	case err == nil:
		return states, nil
	case timedOut(err) && len(states) > 0:
		return states, nil
	case timedOut(err):
		return nil, &Error{Dev: pf.String(), Err: Because(ErrUnsupported, "driver %s reports nothing about any of its vfs, and can set nothing for "+
			"them; a nic whose eswitch is managed elsewhere is like that, such as a bluefield in dpu mode; change it to nic mode",
			pf.Driver)}
	}
	return nil, err
}

// CheckVFSupport refuses a spec with a required attribute that the driver of a PF is known not to set for any of its VFs. What
// else it cannot set shows when it is set, see TryVF. states is from VFStates. The error matches ErrUnsupported.
func (h *vfs) CheckVFSupport(pf PF, states map[int]VFState, spec VFSpec) error {
	noOps := h.noVFOps(pf, states)
	for _, l := range vfLimits() {
		if spec.Policies[l.attr] == Required && slices.Contains(l.drivers, pf.Driver) && l.beyond(spec.VFState) {
			return &Error{Dev: pf.String(), Op: l.attr.Op(spec.VFState), Err: Because(ErrUnsupported, "driver %s %s", pf.Driver, l.why)}
		}
	}
	for _, a := range h.attrs {
		switch foreign := !a.On(pf.Type); {
		case spec.Policies[a] != Required:
		case foreign && pf.InfiniBand():
			return &Error{Dev: pf.String(), Op: "set " + a.name, Err: Because(ErrUnsupported, "it is an infiniband device, whose vfs have none")}
		case foreign:
			return &Error{Dev: pf.String(), Op: "set " + a.name, Err: Because(ErrUnsupported, "only vfs of an infiniband device have one")}
		case noOps && a == VFVLAN && spec.VLAN == VLAN{}: // it has tagged none
		case noOps && a != VFMAC: // that is given to the VF's netdev
			return &Error{Dev: pf.String(), Op: "set " + a.name, Err: Because(ErrUnsupported, "driver %s can set nothing for its vfs", pf.Driver)}
		}
	}
	return nil
}

// vfState reads what the PF has set for a VF. A PF that never reports anything gives the zero state: nothing set. If it has
// nothing to report just now, see Resetting, the error matches ErrBusy; if it may be because the PF is down, it does not, as waiting
// does not help.
func (h *vfs) vfState(pf PF, vf VF) (VFState, error) {
	all, err := h.kernel.VFs(pf.Index)
	if err != nil {
		return VFState{}, err
	}
	s, err := h.listedState(pf, vf, all)
	if err == nil {
		s.Trunk, err = h.trunk(pf, vf.Index)
	}
	return s, err
}

// listedState is vfState with what the PF's driver reports of all VFs, from VFStates: a listing for each of hundreds of VFs would take
// longer than a call may.
func (h *vfs) listedState(pf PF, vf VF, all map[int]VFState) (VFState, error) {
	if pf.Resetting(vf, all) && !pf.Up {
		return VFState{}, errors.New(pf.DownReason())
	}
	if pf.Resetting(vf, all) {
		return VFState{}, pf.notReported()
	}
	s := all[vf.Index]
	if dir := h.vfDir(pf, vf); dir != "" {
		return s, h.readVFDir(dir, &s)
	}
	return s, nil
}

// setVF sets one attribute of a VF, through its file if there is one.
func (h *vfs) setVF(pf PF, vf VF, a VFAttr, s VFState) error {
	if a == VFTrunk {
		return h.setTrunk(pf, vf.Index, s.Trunk)
	}
	if dir := h.vfDir(pf, vf); dir != "" && a.file != "" {
		return h.kernel.WriteAttr(dir+"/"+a.file, a.fileText(&s))
	}
	return h.kernel.SetVF(pf.Index, vf.Index, a, s)
}

// vfApplier sets what the PF has set for a VF.
func (h *vfs) vfApplier(ctx context.Context, pf PF, vf VF) applier[VFState, VFAttr] {
	return applier[VFState, VFAttr]{
		dev:   vf.String(),
		with:  pf.Driver,
		attrs: h.attrs,
		read: func() (s VFState, err error) { // ice and i40e reset a VF for each MAC, and all with their PF
			err = retryBusy(ctx, func() error { s, err = h.vfState(pf, vf); return err })
			return s, err
		},
		set: func(a VFAttr, s VFState) error {
			return retryBusy(ctx, func() error { return h.setVF(pf, vf, a, s) })
		},
		policy: required[VFAttr],
	}
}

// SetVFAttrs sets attributes of a VF to their values in want, in the order of setting, and verifies them.
func (h *vfs) SetVFAttrs(ctx context.Context, pf PF, vf VF, attrs []VFAttr, want VFState) error {
	p := h.vfApplier(ctx, pf, vf)
	p.attrs = slices.DeleteFunc(slices.Clone(p.attrs), func(a VFAttr) bool { return !slices.Contains(attrs, a) })
	return p.apply(want)
}

// TryVF sets the attributes that a spec requires on a VF that is free, one after the other, and stops at the first that its driver
// refuses: failed with its error. What it has set stays; see RestoreVFState.
func (h *vfs) TryVF(ctx context.Context, pf PF, vf VF, spec VFSpec) (failed VFAttr, _ error) {
	for _, a := range h.attrs {
		if spec.Policies[a] != Required {
			continue
		}
		p := h.vfApplier(ctx, pf, vf)
		p.attrs, p.undo = []VFAttr{a}, true
		if err := p.apply(spec.VFState); err != nil {
			return a, err
		}
	}
	return failed, nil
}

// RestoreVFState restores what a PF had set for a VF, and verifies it.
func (h *vfs) RestoreVFState(ctx context.Context, pf PF, vf VF, was VFState) error {
	p := h.vfApplier(ctx, pf, vf)
	p.attrs = slices.Clone(p.attrs)
	slices.Reverse(p.attrs)
	return p.apply(was)
}

// A vfLimit is what the drivers of some PFs are known to refuse. Their sources are below drivers/net/ethernet (Linux 6.12).
type vfLimit struct {
	attr    VFAttr
	drivers []string
	beyond  func(s VFState) bool
	why     string
}

// vfLimits returns what drivers are known to refuse: igb_ndo_set_vf_bw, ixgbe_ndo_set_vf_bw and i40e_ndo_set_vf_bw a minimum; igb has no
// ndo_set_vf_link_state, and ixgbe's does not report what it has done; igb_ndo_set_vf_vlan, ixgbe_ndo_set_vf_vlan,
// i40e_ndo_set_vf_port_vlan, mlx5e_set_vf_vlan and bnxt_set_vf_vlan another protocol than 802.1q, and the last one a priority.
func vfLimits() []vfLimit {
	return []vfLimit{
		{VFRate, []string{"igb", "ixgbe", "i40e"}, func(s VFState) bool { return s.Rate.Min > 0 }, "guarantees no rate; leave min_tx_rate out"},
		{VFLinkState, []string{"igb", "ixgbe"}, func(s VFState) bool { return s.LinkMode != "" }, "does not support it; leave link_state out"},
		{VFVLAN, []string{"igb", "ixgbe", "i40e", "mlx5_core", "bnxt_en"}, func(s VFState) bool { return s.VLAN.Proto == Dot1AD },
			"supports only 802.1q; leave vlan_proto out"},
		{VFVLAN, []string{"bnxt_en"}, func(s VFState) bool { return s.VLAN.QoS > 0 }, "sets no priority; leave vlan_qos out"},
	}
}

// retryBusy repeats, for a while, what a driver cannot do just now: i40e answers EAGAIN while a VF is being reset, or another
// is at work (i40e_virtchnl_pf.c, Linux 6.12).
func retryBusy(ctx context.Context, do func() error) error {
	return retryOn(ctx, vfResetBound, func(err error) bool { return errors.Is(err, ErrBusy) }, do)
}

// retryOn repeats do until it succeeds, its error is not retryable, or bound has passed, and returns its last error.
func retryOn(ctx context.Context, bound time.Duration, retryable func(error) bool, do func() error) error {
	var last error
	err := wait(ctx, bound, func() (bool, error) {
		if last = do(); last != nil && retryable(last) {
			return false, nil
		}
		return true, last
	})
	if timedOut(err) {
		return last
	}
	return err
}

// StableMAC returns the MAC of a VF that has none: locally administered, the same at every boot of this machine, and
// different for every VF of every PF. It is "" if the PF has no Ethernet address to derive it from.
func StableMAC(pf PF, vf int) MAC {
	base := pf.PermMAC
	if base == "" {
		base = pf.MAC
	}
	if pf.Type != "ether" || base == "" {
		return ""
	}
	return derivedMAC(fmt.Sprintf("vf mac\x00%s\x00%d", base, vf))
}

// derivedMAC returns a locally administered MAC, derived from a unique string.
func derivedMAC(unique string) MAC {
	sum := sha256.Sum256([]byte(unique))
	return MAC(fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4]))
}

// The mlx5 driver that its vendor ships (MLNX_OFED, DOCA) sets the GUIDs and the policy of an InfiniBand VF through files
// below its PF, sriov/N/{node,port,policy}; releases that can be asked through rtnetlink as well have both. The kernel's own
// mlx5 has no such files (Linux 6.12).

// vfDir returns the directory with the files of a VF of an InfiniBand PF, "" if its driver has none.
func (h *vfs) vfDir(pf PF, vf VF) string {
	dir := pciDir(pf.PCI()) + "/sriov/" + strconv.Itoa(vf.Index)
	if !pf.InfiniBand() || !h.sys.exists(dir+"/policy") {
		return ""
	}
	return dir
}

// readVFDir reads into s what a VF's files say.
func (h *vfs) readVFDir(dir string, s *VFState) error {
	for _, a := range h.attrs {
		if a.file == "" {
			continue
		}
		text, _, err := h.sys.text(dir + "/" + a.file)
		if err != nil {
			return err
		}
		if err := a.parseFile(text, s); err != nil {
			return fmt.Errorf("%s/%s says %q: %w", dir, a.file, text, err)
		}
	}
	return nil
}

// trunkFile returns the path of the file with a VF's trunk. Only drivers that NICs' vendors ship have one: those of Intel's i40e and ice, and of
// mlx5 (MLNX_OFED, DOCA).
func trunkFile(pf PF, vf int) string {
	return pciDir(pf.PCI()) + "/sriov/" + strconv.Itoa(vf) + "/trunk"
}

// trunk returns the trunk of a VF, "" for none.
func (h *vfs) trunk(pf PF, vf int) (string, error) {
	file := trunkFile(pf, vf)
	text, ok, err := h.sys.text(file)
	if !ok || errors.Is(err, syscall.EOPNOTSUPP) || goingAway(err) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	ids, ok := parseTrunk(text)
	if !ok {
		return "", fmt.Errorf("%s says %.80q: %w", file, text, ErrInvalid)
	}
	return VLANRanges(ids), nil
}

// setTrunk adds to the trunk of a VF what it lacks, and then removes what it is not to have: a trunk without a VLAN restricts nothing. Drivers of Intel
// take a list, "add 100-200,300", and mlx5 a range, "add 100 200".
func (h *vfs) setTrunk(pf PF, vf int, want string) error {
	file := trunkFile(pf, vf)
	if !h.sys.exists(file) {
		return Because(ErrUnsupported, "it has no trunks for vfs; have vlan devices in the container instead, see docs/how-to.md")
	}
	text, err := h.trunk(pf, vf)
	if err != nil {
		return err
	}
	has, _ := parseTrunk(text) // trunk has written it
	wanted, ok := parseTrunk(want)
	if !ok {
		return FromErrno(syscall.EINVAL)
	}
	for _, change := range []struct {
		op       string
		of, less []int
	}{{"add", wanted, has}, {"rem", has, wanted}} {
		ranges := VLANRanges(slices.DeleteFunc(slices.Clone(change.of), func(id int) bool { return slices.Contains(change.less, id) }))
		if ranges == "" {
			continue
		}
		commands := []string{ranges}
		if pf.Driver == "mlx5_core" {
			commands = strings.Split(ranges, ",")
			for i, r := range commands {
				first, last, isRange := strings.Cut(r, "-")
				if !isRange {
					last = first
				}
				commands[i] = first + " " + last
			}
		}
		for _, c := range commands {
			if err := h.kernel.WriteAttr(file, change.op+" "+c); err != nil {
				return err
			}
		}
	}
	return nil
}
