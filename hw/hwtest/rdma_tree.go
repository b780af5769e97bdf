package hwtest

import (
	"fmt"
	"strings"
	"syscall"

	"github.com/mellanox/passthrough/hw"
)

// vendorTreeLocked shows the files of a VF that the mlx5 driver of its vendor has: sriov/N/{node,port,policy} below the PF,
// as its manual describes them.
func (k *Kernel) vendorTreeLocked(vf *device) {
	if !vf.conf.VendorTree {
		return
	}
	dir := fmt.Sprintf("%s/sriov/%d", vf.pf.path, vf.index)
	guid := func(name string, to *hw.GUID) {
		k.tree.file(dir+"/"+name, guidText(*to), func(v string) error {
			g := hw.GUID(strings.TrimSpace(v))
			if len(g) != len(guidText("")) {
				return syscall.EINVAL
			}
			if *to = g; string(g) == guidText("") {
				*to = ""
			}
			k.vendorTreeLocked(vf)
			k.servePortsLocked(vf.pf)
			return nil
		})
	}
	guid("node", &vf.state.NodeGUID)
	guid("port", &vf.state.PortGUID)
	words := map[string]hw.LinkMode{"Follow": "", "Up": hw.LinkEnable, "Down": hw.LinkDisable}
	for word, mode := range words {
		if mode != vf.state.LinkMode {
			continue
		}
		k.tree.file(dir+"/policy", word, func(v string) error {
			mode, ok := words[strings.TrimSpace(v)]
			if !ok {
				return syscall.EINVAL
			}
			vf.state.LinkMode, vf.off = mode, mode == hw.LinkDisable
			k.vendorTreeLocked(vf)
			k.servePortsLocked(vf.pf)
			return nil
		})
	}
}

// guidText is how the files show a GUID.
func guidText(g hw.GUID) string {
	if g == "" {
		return "00:00:00:00:00:00:00:00"
	}
	return string(g)
}
