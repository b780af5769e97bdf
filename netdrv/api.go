package netdrv

import plugin "github.com/docker/go-plugins-helpers/network"

// Types of the engine's remote driver API that go-plugins-helpers lacks (libnetwork drivers/remote/api, engine 29.8).

// Empty is the request or response of a call that has none.
type Empty struct{}

// CapabilitiesResponse is the answer to GetCapabilities. Engines before 28 ignore GwAllocChecker.
type CapabilitiesResponse struct {
	Scope             string
	ConnectivityScope string
	GwAllocChecker    bool
}

// GwAllocCheckRequest carries the options of a network that is about to be created, before its addresses are allocated
// (engine 28 and newer).
type GwAllocCheckRequest struct {
	Options map[string]any
}

// GwAllocCheckResponse says for which families the engine need not allocate a gateway unless the user gave one.
type GwAllocCheckResponse struct {
	SkipIPv4 bool
	SkipIPv6 bool
}

// JoinResponse is the answer to Join. Its InterfaceName takes the place of the helpers' one.
type JoinResponse struct {
	plugin.JoinResponse
	InterfaceName InterfaceName
}

// InterfaceName says under which name the engine finds a device in the host, and which it gives it in the container: DstName, or if that
// is empty DstPrefix and a number. Engines before 29.8 ignore DstName (moby/moby#52866).
type InterfaceName struct {
	SrcName   string
	DstPrefix string
	DstName   string `json:",omitempty"`
}
