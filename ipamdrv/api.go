package ipamdrv

import (
	"github.com/docker/libnetwork/netlabel"

	"github.com/mellanox/passthrough/ipamdrv/node"
	"github.com/mellanox/passthrough/ipamdrv/option"
	"github.com/mellanox/passthrough/ipamdrv/pool"
)

// The requests and answers are go-plugins-helpers' types; here is what that package lacks.

// Empty is the body of calls without arguments and of answers without content.
type Empty struct{}

// CapabilitiesResponse is the answer to GetCapabilities.
type CapabilitiesResponse struct {
	// RequiresMACAddress would make the engine invent a MAC for every endpoint and force it on the device.
	RequiresMACAddress bool
	// RequiresRequestReplay would make the engine request all pools and addresses again at each of its starts, in a way that cannot be told
	// from new requests.
	RequiresRequestReplay bool
}

// The engine's names for its address spaces in this driver. Nothing depends on them: pools are separate anyway.
const (
	localSpace  = "passthrough-local"
	globalSpace = "passthrough-global"
)

// Options of RequestAddress. The second came with engine 29.
const (
	optAddressType  = option.AddressType
	optEndpointName = netlabel.Prefix + ".endpoint.name"

	// typeGateway is the value of optAddressType for a gateway.
	typeGateway = netlabel.Gateway
)

// Errors that callers can match with errors.Is.
var (
	ErrInvalid     = pool.ErrInvalid
	ErrUnknownPool = pool.ErrUnknownPool
	ErrInUse       = pool.ErrInUse
	ErrFull        = pool.ErrFull
)

// Prober asks on the segment of a device which host has an address, see [pool.Prober].
type Prober = pool.Prober

// Options returns the table of the options of pools. It is read-only.
func Options() []option.Option { return option.All() }

// Journal keeps the intents of a node, see [node.Journal].
type Journal = node.Journal
