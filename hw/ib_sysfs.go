package hw

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// The mlx5 driver that its vendor ships (MLNX_OFED, DOCA) sets the GUIDs and the policy of an InfiniBand VF through files
// below its PF, sriov/N/{node,port,policy}; those releases that rtnetlink can ask as well have both. The kernel's own mlx5
// has no such files (Linux 6.12).

// policies are the words of sriov/N/policy.
var policies = map[string]LinkMode{"Follow": "", "Up": LinkEnable, "Down": LinkDisable}

// vfTree is the directory with the files of a VF of an InfiniBand PF, "" when its driver has none.
func (h *Host) vfTree(pf PF, vf VF) string {
	dir := pciDir(pf.PCI()) + "/sriov/" + strconv.Itoa(vf.Index)
	if !pf.InfiniBand() || !h.sys.exists(dir+"/policy") {
		return ""
	}
	return dir
}

// readTree reads into s what a VF's files say.
func (h *Host) readTree(dir string, s *VFState) error {
	for _, f := range []struct {
		name string
		to   *GUID
	}{{"node", &s.NodeGUID}, {"port", &s.PortGUID}} {
		text, _, err := h.sys.text(dir + "/" + f.name)
		if err != nil {
			return err
		}
		*f.to = givenGUID(GUID(strings.ToLower(text)))
	}
	text, _, err := h.sys.text(dir + "/policy")
	if err != nil {
		return err
	}
	mode, known := policies[text]
	if !known {
		return fmt.Errorf("%s/policy says %q: %w", dir, text, ErrInvalid)
	}
	s.LinkMode = mode
	return nil
}

// noGUIDs are what is read where none has been set.
var noGUIDs = []GUID{"00:00:00:00:00:00:00:00", "ff:ff:ff:ff:ff:ff:ff:ff"}

// givenGUID is a GUID that somebody has set, "" for none.
func givenGUID(g GUID) GUID {
	if slices.Contains(noGUIDs, g) {
		return ""
	}
	return g
}

// setVF sets what a PF has set for a VF, through its files where there are some.
func (h *Host) setVF(pf PF, vf VF, c VFChange) error {
	dir := h.vfTree(pf, vf)
	if dir == "" {
		return h.kernel.SetVF(pf.Index, vf.Index, c)
	}
	return c.Each(func(_ string, one VFChange) error {
		switch {
		case one.NodeGUID != nil:
			return h.kernel.WriteAttr(dir+"/node", guidText(*one.NodeGUID))
		case one.PortGUID != nil:
			return h.kernel.WriteAttr(dir+"/port", guidText(*one.PortGUID))
		case one.LinkMode != nil:
			return h.kernel.WriteAttr(dir+"/policy", policyText(*one.LinkMode))
		}
		return h.kernel.SetVF(pf.Index, vf.Index, one)
	})
}

// guidText is what is written for a GUID.
func guidText(g GUID) string {
	if g == "" {
		g = noGUIDs[0]
	}
	return string(g)
}

// policyText is what is written for a link mode.
func policyText(m LinkMode) string {
	for word, mode := range policies {
		if mode == m {
			return word
		}
	}
	return ""
}
