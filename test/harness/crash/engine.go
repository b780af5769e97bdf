package crash

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/test/harness/invariant"
)

// Reaction is what the engine does when the plugin dies in a call.
type Reaction string

const (
	// Repeats: the request was not sent yet, so the engine sends it to the next process.
	Repeats Reaction = "repeats"
	// Empty: the request was sent, so its body is consumed, and the engine sends it again without a body. The plugin refuses
	// that, and the engine undoes what it has done so far, or continues where it ignores errors.
	Empty Reaction = "empty body"
	// Dies: the engine dies with the plugin and cleans up after its restart: it deletes stored endpoints whose containers are
	// gone, and repeats the removal of a network.
	Dies Reaction = "engine dies"
)

// engine is a fake dockerd.
type engine struct {
	host     *host
	scenario Scenario
	reaction Reaction
	proc     *process
	restart  func(died error) *process // starts the next process
	fail     func(format string, args ...any)
	shares   bool // the plugin's pools and leases are in a shared store

	networks   map[string]*network
	containers map[string]*container
	unanswered int      // requests for addresses or releases without an answer, which may have left a lease
	lostPools  int      // likewise for pools
	lost       []string // networks whose making or removal was never confirmed
}

// network is what the engine has stored about one.
type network struct {
	id, pool, gateway string
	addresses         []string
	stored, removing  bool
}

// container is a running container with its endpoint, or what is left of one.
type container struct {
	network, endpoint, address string
	source                     string       // name of the device in the host
	stored                     bool         // CreateEndpoint was answered
	space                      *space       // where its device is
	owner                      *admin.Owner // nil for the engine's
}

// errGone is the error of a call that got no answer.
var errGone = errors.New("the plugin died in the call and refused the repeated request")

// engineDied unwinds the stack of an engine that has died.
type engineDied struct{}

// call makes a call and decodes the answer.
func (e *engine) call(op string, request map[string]any, into any) error {
	raw, err := json.Marshal(request)
	if err != nil {
		return err
	}
	body := string(raw)
	for {
		before := len(e.proc.passed())
		status, answer, err := e.proc.post(op, body)
		switch {
		case err == nil && status == 200:
			return json.Unmarshal(answer, into)
		case err == nil && body == "":
			if status != 400 {
				e.fail("%s with an empty body: %d %s, want 400", op, status, answer)
			}
			return errGone
		case err == nil:
			return fmt.Errorf("%s: %s", op, answer)
		}
		dead := e.proc
		e.proc = e.restart(err)
		if errors.Is(err, errDial) {
			continue
		}
		if body != "" {
			e.lose(op, dead.passed()[before:])
		}
		switch e.reaction {
		case Repeats: // what the first request created, if anything, is orphaned
		case Empty:
			body = ""
		default:
			panic(engineDied{})
		}
	}
}

// lose counts what a call without an answer has left behind; points are the crash points that it passed. A node with a shared store
// undoes what a request created, unless the answer was on its way, and deletes a pool once it has recorded that intent.
func (e *engine) lose(op string, passed []string) {
	again := e.reaction == Repeats
	switch op {
	case "IpamDriver.RequestPool":
		e.lostPools += count(!e.shares || answering(passed))
	case "IpamDriver.RequestAddress":
		e.unanswered += count(!e.shares || answering(passed))
	case "IpamDriver.ReleaseAddress":
		e.unanswered += count(!again)
	case "IpamDriver.ReleasePool":
		promised := slices.ContainsFunc(passed, func(p string) bool {
			return strings.HasPrefix(p, "ReleasePool/journal-add/") && strings.HasSuffix(p, "/after")
		})
		e.lostPools += count(!again && !promised)
	}
}

// answering returns whether a request had already dequeued its intent to undo when the process died. While one thread dies at a crash
// point, another thread may be about to dequeue.
func answering(passed []string) bool {
	last := ""
	for _, p := range passed {
		if strings.HasPrefix(p, "Request") {
			last = p
		}
	}
	diedBefore := strings.HasSuffix(last, "/before") && last == passed[len(passed)-1]
	return strings.Contains(last, "/journal-remove/") && !diedBefore
}

// count returns 1 for true and 0 for false.
func count(is bool) int {
	if is {
		return 1
	}
	return 0
}

// ignore makes a call whose failure the engine only logs.
func (e *engine) ignore(op string, request map[string]any) error {
	var nothing struct{}
	err := e.call(op, request, &nothing)
	if err != nil && !errors.Is(err, errGone) {
		e.fail("%v", err)
	}
	return err
}

// createNetwork does what docker network create does.
func (e *engine) createNetwork(id string) error {
	n := &network{id: id}
	var pool struct{ PoolID string }
	request := map[string]any{"AddressSpace": "passthrough-local", "Pool": e.scenario.Subnet, "SubPool": "", "Options": e.scenario.IPAM, "V6": false}
	if err := e.call("IpamDriver.RequestPool", request, &pool); err != nil {
		return err
	}
	n.pool = pool.PoolID
	e.networks[id] = n // from now on the engine has its pool and addresses
	gateway, err := e.requestAddress(n, "", map[string]string{"RequestAddressType": "com.docker.network.gateway"})
	if err != nil {
		e.releasePools(n)
		return err
	}
	n.gateway = gateway
	for _, address := range e.scenario.Aux {
		if _, err := e.requestAddress(n, bare(address), nil); err != nil {
			e.releasePools(n)
			return err
		}
	}
	options := maps.Clone(e.scenario.Options)
	if len(e.lost) > 0 { // as the error message says
		options["replace"] = e.lost[0][:12]
	}
	err = e.call("NetworkDriver.CreateNetwork", map[string]any{"NetworkID": id,
		"Options": map[string]any{"com.docker.network.generic": options},
		"IPv4Data": []map[string]any{{"AddressSpace": "passthrough-local", "Pool": e.scenario.Subnet, "Gateway": gateway,
			"AuxAddresses": e.scenario.Aux}}}, new(struct{}))
	if errors.Is(err, errGone) {
		e.lost = append(e.lost, id)
	}
	if err != nil {
		e.releasePools(n)
	}
	if n.stored = err == nil; n.stored { // the containers do not get the gateway, so the plugin has given it back
		n.addresses = slices.DeleteFunc(n.addresses, func(a string) bool { return a == bare(gateway) })
	}
	return err
}

// requestAddress asks for an address.
func (e *engine) requestAddress(n *network, address string, options map[string]string) (string, error) {
	var got struct{ Address string }
	err := e.call("IpamDriver.RequestAddress", map[string]any{"PoolID": n.pool, "Address": address, "Options": options}, &got)
	if err != nil {
		return "", err
	}
	n.addresses = append(n.addresses, bare(got.Address))
	return got.Address, nil
}

// bare returns an address without its mask.
func bare(cidr string) string { a, _, _ := strings.Cut(cidr, "/"); return a }

// releaseAddress releases an address, if there is one.
func (e *engine) releaseAddress(n *network, cidr string) {
	if cidr == "" {
		return
	}
	if i := slices.Index(n.addresses, bare(cidr)); i >= 0 {
		n.addresses = slices.Delete(n.addresses, i, i+1)
	}
	_ = e.ignore("IpamDriver.ReleaseAddress", map[string]any{"PoolID": n.pool, "Address": bare(cidr)}) // as the engine does
}

// releasePools releases the gateway and the pool of a network.
func (e *engine) releasePools(n *network) {
	e.releaseAddress(n, n.gateway)
	for _, address := range e.scenario.Aux {
		e.releaseAddress(n, address)
	}
	pool := n.pool
	n.pool = ""
	_ = e.ignore("IpamDriver.ReleasePool", map[string]any{"PoolID": pool}) // as the engine does
	delete(e.networks, n.id)
	if e.lostPools == 0 && len(e.networks) == 0 {
		e.unanswered = 0 // freed with the pool
	}
}

// removeNetwork does what docker network rm does. The network is gone whatever the drivers answer.
func (e *engine) removeNetwork(id string) {
	n := e.networks[id]
	n.removing = true
	if n.pool != "" {
		e.releasePools(n)
	}
	e.networks[id] = n // until the driver was asked
	if e.ignore("NetworkDriver.DeleteNetwork", map[string]any{"NetworkID": id}) != nil {
		e.lost = append(e.lost, id)
	}
	delete(e.networks, id)
}

// start does what docker run does.
func (e *engine) start(name, network, endpoint string) error {
	n := e.networks[network]
	c := &container{network: network, endpoint: endpoint}
	e.containers[name] = c
	address, err := e.requestAddress(n, "", nil)
	if err != nil {
		delete(e.containers, name)
		return err
	}
	c.address = address
	ids := map[string]any{"NetworkID": network, "EndpointID": endpoint}
	err = e.call("NetworkDriver.CreateEndpoint", map[string]any{"NetworkID": network, "EndpointID": endpoint,
		"Interface": map[string]string{"Address": address}, "Options": map[string]any{}}, new(struct{}))
	if err != nil { // the engine makes no call to the driver
		delete(e.containers, name)
		e.releaseAddress(n, address)
		return err
	}
	c.stored = true
	var join struct {
		InterfaceName struct{ SrcName, DstPrefix string }
	}
	err = e.call("NetworkDriver.Join", map[string]any{"NetworkID": network, "EndpointID": endpoint,
		"SandboxKey": "/var/run/docker/netns/0123456789ab"}, &join)
	if err != nil { // engine 29: Leave, although there was no Join
		_ = e.ignore("NetworkDriver.Leave", ids) // as the engine does
		e.deleteEndpoint(name)
		return err
	}
	c.source = join.InterfaceName.SrcName
	c.space, err = e.host.moveIn(c.source, join.InterfaceName.DstPrefix+"0", address)
	return err
}

// stop does what docker stop does.
func (e *engine) stop(name string) {
	c := e.containers[name]
	_ = e.ignore("NetworkDriver.Leave", map[string]any{"NetworkID": c.network, "EndpointID": c.endpoint}) // as the engine does
	if c.space != nil {
		space := c.space
		c.space = nil
		if err := space.moveHome(c.source); err != nil {
			e.fail("move %s home: %v", c.source, err)
		}
		space.end()
	}
	e.deleteEndpoint(name)
}

// deleteEndpoint deletes an endpoint and releases its address.
func (e *engine) deleteEndpoint(name string) {
	c := e.containers[name]
	_ = e.ignore("NetworkDriver.DeleteEndpoint", map[string]any{"NetworkID": c.network, "EndpointID": c.endpoint}) // as the engine does
	delete(e.containers, name)
	e.releaseAddress(e.networks[c.network], c.address)
}

// cleanUp does what an engine does when it starts after a crash: containers are gone with their namespaces, stored endpoints are
// deleted, and networks whose removal had begun are removed.
func (e *engine) cleanUp() {
	for name, c := range e.containers {
		if c.owner != nil {
			e.abandon(name)
			continue
		}
		if c.space != nil {
			c.space.die()
			c.space = nil
		}
		if !c.stored {
			delete(e.containers, name)
			n := e.networks[c.network]
			if i := slices.Index(n.addresses, bare(c.address)); i >= 0 {
				n.addresses = slices.Delete(n.addresses, i, i+1)
				e.unanswered++
			}
			continue
		}
		e.stop(name)
	}
	for id, n := range e.networks {
		if n.removing {
			e.removeNetwork(id)
		}
	}
}

// view returns what the engine's API would list.
func (e *engine) view() *invariant.Engine {
	known := &invariant.Engine{Addresses: []netip.Addr{}, Pools: []string{}, Unheard: e.unanswered, UnheardPools: e.lostPools,
		Lost: e.lost, Attached: e.attached()}
	for id, n := range e.networks {
		known.Networks = append(known.Networks, id)
		if n.pool != "" {
			known.Pools = append(known.Pools, n.pool)
		}
		for _, a := range n.addresses {
			known.Addresses = append(known.Addresses, netip.MustParseAddr(a))
		}
	}
	for _, c := range e.containers {
		if c.owner != nil {
			continue
		}
		known.Endpoints = append(known.Endpoints, c.network+"/"+c.endpoint)
	}
	return known
}
