package hw

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
)

// InfiniBand returns true if the PF's netdev, and with it those of its VFs, is IP over InfiniBand. The fabric knows
// such a VF by GUIDs, which its PF sets in place of a MAC; it has no VLAN, spoof check, trust or rate.
func (p PF) InfiniBand() bool { return p.Type == "infiniband" }

// portGUID returns the GUID at the end of an IPoIB address (RFC 4391, 9.1.1: four octets for the queue pair, which
// change each time the device is bound, then the prefix of the subnet and the GUID); "" for another kind of address.
func (m MAC) portGUID() GUID {
	const start, length = 12 * len("00:"), 20*len("00:") - 1
	if len(m) != length {
		return ""
	}
	return GUID(m[start:])
}

// netdevMAC returns the address that a VF's netdev has while it is not attached, when now is its present one: what the
// PF has set, "" if that is nothing.
func (s VFState) netdevMAC(now MAC) MAC {
	if g := now.portGUID(); g != "" && s.PortGUID != "" {
		return MAC(strings.TrimSuffix(string(now), string(g)) + string(s.PortGUID))
	}
	return s.MAC
}

// StableGUID returns the GUID of a VF that has none: locally administered, the same at every boot, and different for
// every VF of every PF. It is "" if the PF has no GUID to derive it from.
func StableGUID(pf PF, vf int) GUID {
	base := pf.MAC.portGUID()
	if base == "" {
		return ""
	}
	sum := sha256.Sum256([]byte(fmt.Sprintf("vf guid\x00%s\x00%d", base, vf)))
	return GUID(fmt.Sprintf("02:%02x:%02x:%02x:%02x:%02x:%02x:%02x", sum[0], sum[1], sum[2], sum[3], sum[4], sum[5], sum[6]))
}

// assignGUID sets the stable GUID of a VF, unless it has one. A port without a GUID never becomes active.
func (h *vfCount) assignGUID(pf PF, vf VF, now VFState) error {
	guid := StableGUID(pf, vf.Index)
	if guid == "" || now.PortGUID != "" {
		return nil
	}
	want := VFState{NodeGUID: guid, PortGUID: guid}
	for _, a := range []VFAttr{VFNodeGUID, VFPortGUID} {
		err := h.setVF(pf, vf, a, want)
		if errors.Is(err, ErrUnsupported) {
			return nil
		}
		if err != nil {
			return &Error{Dev: vf.String(), Op: "set guid " + string(guid), Err: &Error{Op: a.Op(want), Err: err}}
		}
	}
	return nil
}

// readyPort is ReadyVF for an InfiniBand VF.
func (h *vfLifecycle) readyPort(ctx context.Context, pf PF, vf VF, n Netdev, spec VFSpec) (Netdev, error) {
	n, err := h.rereadGUID(ctx, pf, vf, n, spec)
	if err != nil || spec.LinkMode == LinkDisable { // its port is down by its spec
		return n, err
	}
	return n, h.awaitPort(ctx, pf, vf)
}

// rereadGUID has a VF's driver read the GUID that the PF has set, which it does when it is bound.
func (h *vfLifecycle) rereadGUID(ctx context.Context, pf PF, vf VF, n Netdev, spec VFSpec) (Netdev, error) {
	if spec.PortGUID == "" || n.MAC.portGUID() == spec.PortGUID {
		return n, nil
	}
	n, err := h.Rebind(ctx, pf, vf)
	if err == nil && n.MAC.portGUID() != spec.PortGUID && spec.Policies[VFPortGUID] == Required {
		err = &Error{Dev: vf.String(), Op: "set port_guid " + string(spec.PortGUID),
			Err: fmt.Errorf("its netdev has %s: %w", n.MAC, ErrInvalid)}
	}
	return n, err
}

// awaitPort waits until a VF's InfiniBand port is active, for which a subnet manager is responsible: it is not the VF's
// fault if it never is, and the error does not match ErrDeviceFault.
func (h *vfLifecycle) awaitPort(ctx context.Context, pf PF, vf VF) error {
	var port, state string
	err := wait(ctx, portBound, func() (_ bool, err error) {
		port, state, err = h.port(vf.PCI)
		return state == portActive, err
	})
	if !timedOut(err) {
		return err
	}
	if port, state, err := h.port(pf.PCI()); err != nil || state != portActive {
		return errors.Join(err, &Error{Dev: pf.String(), Err: fmt.Errorf(
			"port 1 of %s is %s, not active; is it cabled, and is a subnet manager running?", port, state)})
	}
	return &Error{Dev: vf.String(), Err: fmt.Errorf("port 1 of %s is %s, not active; is a subnet manager running, and does it "+
		"serve virtual ports (opensm: virt_enabled 2)?", port, state)}
}

// portActive is the state of a port that a subnet manager has configured.
const portActive = "active"

// port returns the RDMA device of a PCI function and the state of its first port in lower case: "down", "init", "armed"
// or "active" (sysfs says "4: ACTIVE"). For a function without one it returns "nothing" and "missing".
func (h *vfLifecycle) port(pci string) (rdma, state string, err error) {
	names, err := h.sys.list(pciDir(pci) + "/infiniband")
	if err != nil || len(names) == 0 {
		return "nothing", "missing", err
	}
	text, _, err := h.sys.text(pciDir(pci) + "/infiniband/" + names[0] + "/ports/1/state")
	_, state, _ = strings.Cut(text, ": ")
	return names[0], strings.ToLower(state), err
}
