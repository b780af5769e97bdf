// Command passthrough-cni is a CNI plugin: it gives containers of podman, nerdctl, Nomad or Kubernetes the devices that the plugin process
// gives to Docker's. It owns no device. It asks the process for one over its socket, moves it into the container's network namespace, which
// the process may not enter, and sets addresses and routes there. docs/cni.md is its manual.
//
// Under the name passthrough it is a plugin of netavark, by which podman makes networks of its own (docs/podman.md). The two are called in ways
// that cannot be mistaken: CNI has its command in the environment, netavark in the arguments.
package main

import (
	"os"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	cniversion "github.com/containernetworking/cni/pkg/version"
)

// version is that of this build; the linker sets it.
var version = "unversioned"

func main() {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case "create", "setup", "teardown", "info":
			os.Exit(netavark(os.Args[1:], os.Stdin, os.Stdout))
		}
	}
	skel.PluginMainFuncs(skel.CNIFuncs{
		Add: command((*attachment).add, types.ErrTryAgainLater), Del: command((*attachment).del, types.ErrTryAgainLater),
		Check: command((*attachment).check, types.ErrTryAgainLater), GC: command((*attachment).gc, types.ErrTryAgainLater),
		Status: command((*attachment).status, types.ErrPluginNotAvailable),
	}, cniversion.All, "passthrough-cni "+version)
}
