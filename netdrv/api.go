package netdrv

import (
	"errors"
	"fmt"
	"regexp"

	plugin "github.com/docker/go-plugins-helpers/network"
)

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

// errNoID is the error of a request that names no network or endpoint. The engine sends such requests when it repeats one whose body it
// has consumed (engines 20.10 to 29).
var errNoID = errors.New("request names no network or endpoint")

// engineID matches the IDs of networks and endpoints: 64 hexadecimal digits, or 25 letters and digits for a network of a swarm. It also
// matches others, but none that would make one key of the ledger look like another, as a slash does.
var engineID = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$`)

// checkIDs refuses IDs that cannot be the engine's: IDs become parts of keys in the ledger.
func checkIDs(ids ...string) error {
	for _, id := range ids {
		if id == "" {
			return errNoID
		}
		if !engineID.MatchString(id) {
			return fmt.Errorf("%.40q is no ID of a network or an endpoint; it has letters, digits, _, . and - alone, 128 at most", id)
		}
	}
	return nil
}
