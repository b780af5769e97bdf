// Package mode has the modes of networks: what a container gets, and how that is set up and restored. A mode is one file and one type
// that is constructed with what it needs.
package mode

import (
	"context"
	"errors"
	"fmt"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/alloc"
	"github.com/mellanox/passthrough/netdrv/hostdev"
	"github.com/mellanox/passthrough/netdrv/ledger"
	"github.com/mellanox/passthrough/netdrv/option"
	"github.com/mellanox/passthrough/netdrv/vfpool"
)

// A Mode turns the options of a network into a device and back. Each method may be called again with the same arguments.
type Mode interface {
	// Check finds the network's devices and refuses what cannot work, at network create, where the user sees it. It changes nothing.
	// others are the other networks; what they have in the way is a [*ConflictError].
	Check(ctx context.Context, o *option.Network, others []ledger.Network) (*Plan, error)
	// Make does to the host what a plan of Check says, and refuses what shows only then. It returns the network's devices.
	Make(ctx context.Context, o *option.Network, p *Plan) ([]ledger.Device, error)
	// Competes reports whether the choice of a device depends on what other endpoints have. If so, the caller holds the locks of the
	// network's devices exclusively during Claim, otherwise shared.
	Competes(r *Request) bool
	// Claim selects a device and reads its snapshot, without touching it. The error is a [*vfpool.BusyError] if all are in use.
	Claim(ctx context.Context, r *Request) (*alloc.Allocation, error)
	// Prepare sets the device up and verifies it. It calls save when it has completed the snapshot of the allocation or of one of
	// its parts. It returns the device's netdev.
	Prepare(ctx context.Context, a *alloc.Allocation, save Save) (hw.Netdev, error)
	// Release restores the device from its snapshot and verifies that. It knows only what the ledger has. The error matches hw.ErrAway
	// while the device is not in the host.
	Release(ctx context.Context, a *alloc.Allocation) error
}

// A Plan is what a network needs of the host, and what it does to it, as [Mode.Check] found it.
type Plan struct {
	Devices []ledger.Device
	Steps   []string // what the network does to the host, for people
	Untried []string // what only [Mode.Make] finds out, for people

	pfs    []hw.PF   // of the mode sriov
	bare   []hw.PF   // those of them that have no VFs
	parent parent    // of children
	whole  hw.Netdev // that is handed over
	use    hostUse   // of that
}

// step adds a step.
func (p *Plan) step(format string, args ...any) {
	p.Steps = append(p.Steps, fmt.Sprintf(format, args...))
}

// Save writes an allocation whose snapshot was completed, before its device is changed further.
type Save func(a *alloc.Allocation) error

// A Request is one endpoint's request for a device.
type Request struct {
	Network  ledger.Network
	Options  *option.Network // of the network, with the values of this container
	Endpoint string          // ID
	// Container is the container's name, without what swarm changes when it replaces a task; "" if unknown.
	Container string
	Address   string   // the endpoint's first address, with prefix length; "" for none
	Addresses []string // all of them
}

// Env is what the modes are constructed with.
type Env struct {
	Host        *hw.Host
	Log         *zap.Logger
	Finder      *vfpool.Finder
	Pool        *vfpool.Pool
	Allocations *alloc.Table
	VLANs       *hostdev.VLANs
	RDMA        *RDMA
}

// bondName is the name of the mode bond in the ledger. A user asks for it with mode=sriov and the option bond.
const bondName = "bond"

// userspaceName is the name of the mode userspace in the ledger. A user asks for it with mode=sriov and the option driver.
const userspaceName = "userspace"

// A Set has the modes of one host.
type Set struct{ byName map[string]Mode }

// New constructs the modes.
func New(e Env) *Set {
	devices := devices{e.Host, e.Finder}
	vfs := sriov{host: e.Host, finder: e.Finder, pool: e.Pool, allocations: e.Allocations, rdma: e.RDMA, ports: representors{e.Host}}
	children := child{devices: devices, pool: e.Pool, allocations: e.Allocations, vlans: e.VLANs}
	return &Set{map[string]Mode{
		option.ModeSRIOV:       vfs,
		bondName:               bond{vfs: vfs, host: e.Host, log: e.Log},
		userspaceName:          userspace{vfs: vfs, host: e.Host},
		option.ModePassthrough: passthrough{devices: devices, allocations: e.Allocations, log: e.Log},
		option.ModeMacvlan:     children,
		option.ModeIPVlan:      children,
		option.ModeIPoIB:       children,
	}}
}

// ErrUnknown is the error of an allocation whose mode this version does not have, as in a ledger of a newer version.
var ErrUnknown = errors.New("the ledger names a mode that this version of the plugin does not have")

// ByName returns the mode that an allocation names. The error matches ErrUnknown.
func (s *Set) ByName(name string) (Mode, error) {
	m, ok := s.byName[name]
	if !ok {
		return nil, fmt.Errorf("%w: %q", ErrUnknown, name)
	}
	return m, nil
}

// Of returns the mode of a network with these options.
func (s *Set) Of(o *option.Network) (Mode, error) {
	if o.Bond != "" {
		return s.ByName(bondName)
	}
	if o.Driver != "" {
		return s.ByName(userspaceName)
	}
	return s.ByName(o.Mode)
}

// A ConflictError says that another network has what is wanted. That network may be stale: an engine neither repeats the removal
// of a network during which the plugin was killed, nor undoes its creation.
type ConflictError struct {
	Network string // its ID
	text    string
}

func (e *ConflictError) Error() string { return e.text }

func conflict(network, format string, args ...any) error { return Conflict(network, format, args...) }

// Conflict returns a [*ConflictError] about the network with an ID.
func Conflict(network, format string, args ...any) error {
	return &ConflictError{network, fmt.Sprintf(format, args...)}
}
