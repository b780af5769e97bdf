// Command txipam is a CNI IPAM plugin: it gets the addresses of a server that speaks the protocol of docs/remote-ipam.md, for any CNI plugin that
// delegates to it. It owns no device and needs no plugin process.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	cniversion "github.com/containernetworking/cni/pkg/version"
)

// version is that of this build; the linker sets it.
var version = "unversioned"

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{Add: command((*attachment).add), Del: command((*attachment).del), Check: command((*attachment).check),
		GC: command((*attachment).gc), Status: command((*attachment).status)}, cniversion.All, "txipam "+version)
}
