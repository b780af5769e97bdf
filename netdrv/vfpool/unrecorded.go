package vfpool

import (
	"context"
	"fmt"
	"strings"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
)

// Unrecorded says that the VFs of a PF look as if the plugin had made them or set them up although it has no record of that, and what to do; "" if
// they do not. The plugin gives the VFs that it makes their stable MACs, if the driver has given them none, and has the kernel not probe them; the
// latter may be an administrator's, too. What is set for VFs counts only if empty is true, which says that the plugin has no records at all.
func (p *Pool) Unrecorded(ctx context.Context, pf hw.PF, held alloc.Set, empty bool) (string, error) {
	made, err := p.made(ctx, pf)
	if err != nil || made || pf.NumVFs == 0 {
		return "", err
	}
	vfs, err := p.Host.VFs(pf)
	if err != nil {
		return "", err
	}
	states, err := p.Host.VFStates(pf)
	if err != nil {
		return "", err
	}
	before, err := p.Host.SnapshotPF(pf)
	if err != nil {
		return "", err
	}
	stable, other, elsewhere := 0, 0, false
	var settings []string
	for _, vf := range vfs {
		s := states[vf.Index]
		if held[vf.ID()] != nil || vf.UserDriver() {
			continue
		}
		has := unrecordedSettings(vf, s)
		switch {
		case s.MAC != "" && s.MAC == hw.StableMAC(pf, vf.Index):
			stable++
		case has == "": // it was not set up for a container, which may have asked for a MAC
			other++
		}
		elsewhere = elsewhere || vf.Elsewhere()
		if has != "" {
			settings = append(settings, fmt.Sprintf("vf %d %s", vf.Index, has))
		}
	}
	switch unprobed := before.Autoprobe == "0" && (empty || elsewhere); {
	case unprobed || stable > 0 && other == 0:
		text := fmt.Sprintf("%s: another installation of the plugin seems to have made its %d vfs, and this one has no record of them", pf, pf.NumVFs)
		return withSettings(text, settings) + "; it never removes them: bring back the records from a backup (passthroughctl restore FILE), or " +
			"end the containers that have them and remove them: echo 0 >/sys/bus/pci/devices/" + pf.PCI() + "/sriov_numvfs", nil
	case empty && len(settings) > 0:
		return withSettings(fmt.Sprintf("%s: vfs are set up, and the plugin has no records", pf), settings) + "; if an installation of before has " +
			"done that, bring back the records from a backup (passthroughctl restore FILE), or end the containers that have them; what an " +
			"administrator has done stays", nil
	}
	return "", nil
}

// withSettings adds to a text what is set for VFs, as far as there is room.
func withSettings(text string, settings []string) string {
	if len(settings) == 0 {
		return text
	}
	return text + " (" + strings.Join(shortened(settings), "; ") + ")"
}

// unrecordedSettings says, in words that follow its name, where a VF is if not in the host, and what its PF does for it that no driver does by
// itself; "" for nothing.
func unrecordedSettings(vf hw.VF, s hw.VFState) string {
	var has []string
	if vf.Elsewhere() {
		has = append(has, "is in another network namespace")
	}
	for _, a := range []hw.VFAttr{hw.VFVLAN, hw.VFRate, hw.VFTrust} {
		if !a.Same(s, hw.VFState{}) {
			has = append(has, "has "+a.String()+" "+a.Value(s))
		}
	}
	return strings.Join(has, ", ")
}
