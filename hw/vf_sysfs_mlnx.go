package hw

import (
	"fmt"
	"strconv"
)

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
