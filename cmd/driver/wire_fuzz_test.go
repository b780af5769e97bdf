package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/ipamdrv"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
)

// Fuzz targets for requests as the engine sends them. All of the plugin runs but the kernel, which is the fake one with a PF with two VFs
// and an ordinary NIC.

// A target is a server with drivers on its own machine.
type target struct {
	*testing.T
	kernel *hwtest.Kernel
	store  store.Store
	server *server
}

// fuzzed runs one input in a bubble. Afterwards everything that was created is deleted as an engine would; then the ledger must be empty,
// and the machine as before.
func fuzzed(t *testing.T, run func(f *target)) {
	synctest.Test(t, func(t *testing.T) {
		f := &target{T: t, kernel: hwtest.New(t), store: store.NewMemory()}
		f.kernel.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 2, VFs: 2, Up: true, Behaviour: hwtest.AllVFOps()})
		f.kernel.AddPF(hwtest.PF{Name: "ens2", PCI: "0000:02:00.0", Up: true})
		before := f.kernel.String()
		stop := sync.OnceFunc(f.open())
		defer stop()
		run(f)
		f.deleteAll()
		stop()
		if left := f.ledger(); left != "" {
			t.Errorf("the ledger still has\n%s", left)
		}
		if now := f.kernel.String(); now != before {
			t.Errorf("the machine was\n%s\nand is\n%s", before, now)
		}
	})
}

// open makes the drivers and the server, as the process does.
func (f *target) open() (stop func()) {
	host, err := hw.Open(hw.Config{Sys: f.kernel.Sys, Kernel: f.kernel, Boot: "boot-1"})
	if err != nil {
		f.Fatal(err)
	}
	defaults, err := ipamdrv.ParseDefaultPools("10.200.0.0/28:30,fd00:200::/124:126")
	if err != nil {
		f.Fatal(err)
	}
	ipam, err := ipamdrv.New(ipamdrv.Config{Store: f.store, Defaults: defaults, Host: host.HostSubnets})
	if err != nil {
		f.Fatal(err)
	}
	network, err := netdrv.New(netdrv.Config{Store: f.store, Host: host, Log: zap.NewNop(), OrphanAfter: 1000 * time.Hour,
		InventedGateway: ipam.InventedGateway, ContainerName: ipam.ContainerName, Addresses: ownersAddresses{ipam},
		Devices: func() (map[string][]string, error) { return map[string][]string{"fabric": {"ens1f0", "ens2"}}, nil }})
	if err != nil {
		f.Fatal(err)
	}
	f.server = newServer(routes(&drivers{network: network, ipam: ipam}), limitsFor(10*time.Second), zap.NewNop())
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = network.Reconcile(ctx) // ends with ctx
	}()
	return func() { cancel(); <-done }
}

// An answerer is a response with deadlines.
type answerer struct{ *httptest.ResponseRecorder }

func (answerer) SetReadDeadline(time.Time) error { return nil }

// call makes a call, checks what holds for every answer, and waits until the call has no more effects.
func (f *target) call(op string, body []byte) (status int, answer []byte) {
	f.Helper()
	before, machine := f.ledger(), f.kernel.String()
	w := answerer{httptest.NewRecorder()}
	f.server.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/"+op, bytes.NewReader(body)))
	time.Sleep(10 * time.Second) // and not longer than an engine may take to join what it has made
	synctest.Wait()
	status, answer = w.Code, w.Body.Bytes()
	var said map[string]any
	if err := json.Unmarshal(answer, &said); err != nil {
		f.Errorf("%s %q: answer %q: %v", op, body, answer, err)
	}
	why, _ := said["Err"].(string)
	switch {
	case len(answer) > 64<<10:
		f.Errorf("%s %q: an answer of %d bytes", op, body, len(answer))
	case strings.Contains(why, "the plugin panicked"):
		f.Errorf("%s %q: %s", op, body, why)
	case status != http.StatusOK && why == "":
		f.Errorf("%s %q: %d without a reason: %s", op, body, status, answer)
	case status != http.StatusOK && !strings.Contains(op, "Delete") && (f.ledger() != before || f.kernel.String() != machine):
		f.Errorf("%s %q: was refused (%s), but something was changed: the ledger was\n%sand is\n%sthe machine was\n%s\nand is\n%s",
			op, body, why, before, f.ledger(), machine, f.kernel.String())
	}
	return status, answer
}

// must makes a call that must succeed.
func (f *target) must(op, body string) []byte {
	f.Helper()
	status, answer := f.call(op, []byte(body))
	if status != http.StatusOK {
		f.Fatalf("%s %s: %d %s", op, body, status, answer)
	}
	return answer
}

// ledger returns all records.
func (f *target) ledger() string {
	var all strings.Builder
	err := f.store.Range(f.Context(), "", func(kv store.KV) error {
		fmt.Fprintf(&all, "%s %s\n", kv.Key, kv.Value)
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	return all.String()
}

// deleteAll deletes every endpoint, network and pool.
func (f *target) deleteAll() {
	f.Helper()
	var keys []string
	err := f.store.Range(f.Context(), "", func(kv store.KV) error {
		keys = append(keys, kv.Key)
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	for _, key := range keys {
		path := strings.Split(key, "/")
		switch {
		case path[0] == "ep":
			f.must("NetworkDriver.DeleteEndpoint", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q}`, path[1], path[2]))
		case path[0] == "net":
			f.must("NetworkDriver.DeleteNetwork", fmt.Sprintf(`{"NetworkID":%q}`, path[1]))
		case strings.HasPrefix(key, "ipam/pool/"):
			f.must("IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":"v1:%s"}`, path[2]))
		case strings.HasPrefix(key, "ipam/share/"):
			f.must("IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":"v1:%s.%s"}`, path[2], path[3]))
		}
	}
}

// asked returns true if a driver is called with a body. If none is, the server refuses the body by itself: there are no drivers here.
func asked(t *testing.T, op string, body []byte) bool {
	if len(body) > 8<<10 {
		t.Skip("too long to be of interest; TestOddRequests has such bodies")
	}
	if decode(body, new(map[string]json.RawMessage)) == nil {
		return true
	}
	w := answerer{httptest.NewRecorder()}
	newServer(routes(&drivers{}), limitsFor(time.Second), zap.NewNop()).
		ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/"+op, bytes.NewReader(body)))
	if w.Code != http.StatusBadRequest || !strings.HasSuffix(w.Body.String(), `; nothing was changed"}`) {
		t.Errorf("%s %q: %d %s", op, body, w.Code, w.Body)
	}
	return false
}

// FuzzCreateNetwork: any request creates a network that can be used and deleted, or is refused and changes nothing. Engines from 28 on
// call GwAllocCheck first, and must get the same answer about the options.
func FuzzCreateNetwork(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if !asked(t, "NetworkDriver.CreateNetwork", body) {
			return
		}
		fuzzed(t, func(f *target) {
			checked, _ := f.call("NetworkDriver.GwAllocCheck", body)
			made, _ := f.call("NetworkDriver.CreateNetwork", body)
			if made == http.StatusOK && checked != http.StatusOK {
				t.Errorf("%q makes a network, but its options were refused before", body)
			}
			if made != http.StatusOK {
				return
			}
			f.call("NetworkDriver.CreateNetwork", body) // again, as a swarm does
			_, rest, _ := strings.Cut(f.ledger(), "net/")
			id, _, _ := strings.Cut(rest, " ")
			endpoint := fmt.Sprintf(`{"NetworkID":%q,"EndpointID":"e1","Interface":{}}`, id)
			if status, _ := f.call("NetworkDriver.CreateEndpoint", []byte(endpoint)); status == http.StatusOK {
				f.must("NetworkDriver.Join", endpoint)
			}
		})
	})
}

// FuzzCreateEndpoint: any request on a network creates an endpoint that can be joined, left and deleted, or is refused and changes
// nothing. The next container finds a device.
func FuzzCreateEndpoint(f *testing.F) {
	f.Fuzz(func(t *testing.T, body []byte) {
		if !asked(t, "NetworkDriver.CreateEndpoint", body) {
			return
		}
		fuzzed(t, func(f *target) {
			f.must("NetworkDriver.CreateNetwork", network)
			status, _ := f.call("NetworkDriver.CreateEndpoint", body)
			if status == http.StatusOK {
				f.must("NetworkDriver.Join", string(body))
				f.must("NetworkDriver.EndpointOperInfo", string(body))
				f.must("NetworkDriver.Leave", string(body))
			}
			f.must("NetworkDriver.CreateEndpoint", `{"NetworkID":"n1","EndpointID":"another","Interface":{}}`)
		})
	})
}

// network is a request that creates a network n1 with the two VFs.
const network = `{"NetworkID":"n1","Options":{"com.docker.network.generic":{"netdevice":"ens1f0","vlan":"100"}},` +
	`"IPv4Data":[{"AddressSpace":"passthrough-local","Pool":"10.1.0.0/24","Gateway":"10.1.0.1/24"}],"IPv6Data":[]}`

// ops lists the calls of a driver without some.
func ops(driver string, but ...string) []string {
	var found []string
	for _, rt := range routes(&drivers{}) {
		if strings.HasPrefix(rt.op, driver+".") && !slices.Contains(but, strings.TrimPrefix(rt.op, driver+".")) {
			found = append(found, rt.op)
		}
	}
	return found
}

// bare returns true for a call without an argument.
func bare(op string) bool {
	return strings.HasSuffix(op, ".GetCapabilities") || strings.HasSuffix(op, ".GetDefaultAddressSpaces")
}

// FuzzNetworkCalls: every other call of the network driver, with any request, while an endpoint has a device. The endpoint changes only
// if the call names it.
func FuzzNetworkCalls(f *testing.F) {
	calls := ops("NetworkDriver", "CreateNetwork", "CreateEndpoint", "GwAllocCheck")
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		name := calls[int(op)%len(calls)]
		if !bare(name) && !asked(t, name, body) {
			return
		}
		fuzzed(t, func(f *target) {
			f.must("NetworkDriver.CreateNetwork", network)
			f.must("NetworkDriver.CreateEndpoint", `{"NetworkID":"n1","EndpointID":"e1","Interface":{"Address":"10.1.0.2/24"}}`)
			f.must("NetworkDriver.Join", `{"NetworkID":"n1","EndpointID":"e1"}`)
			f.call(name, body)
			var named struct{ NetworkID, EndpointID string }
			if json.Unmarshal(body, &named) == nil && named.NetworkID == "n1" {
				return
			}
			f.must("NetworkDriver.Join", `{"NetworkID":"n1","EndpointID":"e1"}`)
		})
	})
}

// FuzzIPAMCalls: every call of the IPAM driver, with any request, while a pool has a lease. The lease stays until it or its pool is
// released, and no other request gets the address.
func FuzzIPAMCalls(f *testing.F) {
	calls := ops("IpamDriver")
	f.Fuzz(func(t *testing.T, op uint8, body []byte) {
		name := calls[int(op)%len(calls)]
		if !bare(name) && !asked(t, name, body) {
			return
		}
		fuzzed(t, func(f *target) {
			var pool struct{ PoolID string }
			made := f.must("IpamDriver.RequestPool", `{"AddressSpace":"passthrough-local","Pool":"10.1.0.0/29","Options":{"pool":"lan"}}`)
			if err := json.Unmarshal(made, &pool); err != nil {
				t.Fatal(err)
			}
			f.must("IpamDriver.RequestAddress", fmt.Sprintf(`{"PoolID":%q,"Address":"10.1.0.2"}`, pool.PoolID))
			body := bytes.ReplaceAll(body, []byte("POOL"), []byte(pool.PoolID))
			status, answer := f.call(name, body)
			if status == http.StatusOK && name == "IpamDriver.RequestAddress" && bytes.Contains(answer, []byte("10.1.0.2/")) {
				t.Errorf("%s was given the lease of another: %s", body, answer)
			}
			if bytes.Contains(body, []byte(pool.PoolID)) {
				return
			}
			if status, answer := f.call("IpamDriver.RequestAddress", fmt.Appendf(nil, `{"PoolID":%q,"Address":"10.1.0.2"}`, pool.PoolID)); status == http.StatusOK {
				t.Errorf("after %s %s the lease is gone: %s", name, body, answer)
			}
		})
	})
}
