// Command passthrough-cni is a CNI plugin: it gives containers of podman, nerdctl, Nomad or Kubernetes the devices that the plugin process
// gives to Docker's. It owns no device. It asks the process for one over its socket, moves it into the container's network namespace, which
// the process may not enter, and sets addresses and routes there. docs/cni.md is its manual.
package main

import (
	"github.com/containernetworking/cni/pkg/skel"
	cniversion "github.com/containernetworking/cni/pkg/version"
)

// version is that of this build; the linker sets it.
var version = "unversioned"

func main() {
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: command((*attachment).add), Del: command((*attachment).del), Check: command((*attachment).check),
		GC: command((*attachment).gc), Status: command((*attachment).status),
	}, cniversion.All, "passthrough-cni "+version)
}
