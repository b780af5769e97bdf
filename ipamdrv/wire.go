package ipamdrv

import "github.com/docker/libnetwork/netlabel"

// The requests and answers are go-plugins-helpers' types; here is what that package lacks.

// Empty is the body of calls without arguments and of answers that say nothing.
type Empty struct{}

// CapabilitiesResponse is the answer to GetCapabilities.
type CapabilitiesResponse struct {
	// RequiresMACAddress would make the engine invent a MAC for every endpoint and force it on the device.
	RequiresMACAddress bool
	// RequiresRequestReplay would make the engine ask again for all pools and addresses at each of its starts, in a way
	// that cannot be told from new requests.
	RequiresRequestReplay bool
}

// What the engine calls its address spaces in this driver. Nothing depends on them: pools are apart anyway.
const (
	localSpace  = "passthrough-local"
	globalSpace = "passthrough-global"
)

// Options of RequestAddress. The first is not in package netlabel but in libnetwork's ipamapi, which does not build any
// more; the second came with engine 29.
const (
	optAddressType  = "RequestAddressType"
	optEndpointName = netlabel.Prefix + ".endpoint.name"

	// typeGateway is the value of optAddressType for a gateway.
	typeGateway = netlabel.Gateway
)
