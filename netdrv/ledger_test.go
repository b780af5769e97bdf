package netdrv_test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
)

// records are the files of testdata/ledger, by the version that wrote them: one record of each kind in each state that outlives a call.
// Files of a released version are never changed; a new version adds a directory.
const records = "testdata/ledger"

// stored is a record as it is in its file.
type stored struct {
	Key    string
	Record json.RawMessage
}

// shipped returns the records of one version.
func shipped(t *testing.T, version string) []stored {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(records, version, "*.json"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no records of %s: %v", version, err)
	}
	var all []stored
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		var s stored
		if err := json.Unmarshal(b, &s); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		all = append(all, s)
	}
	return all
}

// put writes records to the ledger.
func (m *machine) put(all ...stored) {
	m.t.Helper()
	for _, s := range all {
		if _, err := m.store.Txn(m.t.Context(), nil, []store.Op{store.Put(s.Key, s.Record)}); err != nil {
			m.t.Fatal(err)
		}
	}
}

func twoNICs(m *machine) {
	m.kernel.AddPF(igb())
	nic(m)
}

// busyDay leaves a machine with a record of each kind: a VF in a container, one that is ready, one that cannot be restored, one on its way
// home, a whole device and a child in containers.
func busyDay(m *machine) {
	r := &plugin.CreateNetworkRequest{
		IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/24", Gateway: "10.0.0.1/24"}},
		IPv6Data: []*plugin.IPAMData{{Pool: "2001:db8:1::/64", Gateway: "2001:db8:1::1/64"}},
	}
	m.must(m.createWith("vfs", r, "netdevice=ens1f0", "vlan=100", "privileged=yes", "numvfs=4", "prefix=hw",
		"gateway=auto"))
	internal := &plugin.CreateNetworkRequest{Options: map[string]any{"com.docker.network.internal": true}}
	m.must(m.createWith("whole", internal, "netdevice=ens2", "mode=passthrough"))
	m.mustRun("lent", "vfs")
	m.mustRun("stuck", "vfs", "02:00:00:00:00:42")
	m.mustRun("coming", "vfs")
	m.mustRun("whole", "whole")
	m.must(m.create("thin", "netdevice=ens1f0", "mode=macvlan", "mtu=1400"))
	m.mustRun("thin", "thin", "02:00:00:00:00:77")
	_, err := m.createEndpoint("ready", "vfs",
		plugin.EndpointInterface{Address: "10.0.0.9/24", AddressIPv6: "2001:db8:1::9/64"})
	m.must(err)
	m.leave("coming")
	m.delete("coming")
	m.kernel.AddVeth("ens1f0v1", "peer")
	m.leave("stuck")
	m.kernel.KillNS("stuck", 0)
	m.delete("stuck")
	m.after(15 * time.Second) // until the one that cannot be restored is quarantined
}

// TestWritesVersion1: records are written as version 1 wrote them, field for field. If this fails the format has changed: it needs a new
// version with its own directory, and existing records must stay readable.
func TestWritesVersion1(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		twoNICs(m)
		busyDay(m)
		want := map[string]string{}
		for _, s := range shipped(t, "v1") {
			want[s.Key] = indent(t, s.Record)
		}
		got := map[string]string{}
		for _, s := range m.ledgerRecords() {
			got[s.Key] = indent(t, s.Record)
			if os.Getenv("UPDATE") != "" { // only before version 1 is released
				keep(t, filepath.Join(records, "v1"), s)
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("records:\n%s", diff)
		}
	})
}

// keep writes the file of a record.
func keep(t *testing.T, dir string, s stored) {
	t.Helper()
	name := strings.NewReplacer("/", "_", ":", "-").Replace(strings.Replace(s.Key, "0000:", "0000-", 1)) + ".json"
	b, err := json.MarshalIndent(s, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, name), append(b, '\n'), 0o644); err != nil {
		t.Fatal(err)
	}
}

// later are the optional fields of a record, of its snapshot, and of links, that later releases of version 1 have added; the files are without them.
var later = struct{ sticky, snapshot, link []string }{[]string{"since"}, []string{"Entries", "Sysctls", "TakenSec", "Whole", "Controls"}, []string{"Segments"}}

// indent formats a record for comparison, without the time at which it was written, and without what is optional.
func indent(t *testing.T, b []byte) string {
	t.Helper()
	var record map[string]any
	if err := json.Unmarshal(b, &record); err != nil {
		t.Fatal(err)
	}
	if snap, ok := record["snapshot"].(map[string]any); ok {
		for _, field := range later.snapshot {
			delete(snap, field)
		}
		withoutLater(snap["Link"])
	}
	withoutLater(record["shape"])
	if record["guessed"] != nil || record["device"] != nil && record["key"] != nil {
		for _, field := range later.sticky {
			delete(record, field)
		}
	}
	b, err := json.Marshal(record)
	if err != nil {
		t.Fatal(err)
	}
	b = regexp.MustCompile(`"since":\s*"[^"]*"`).ReplaceAll(b, []byte(`"since": "then"`))
	var out bytes.Buffer
	if err := json.Indent(&out, b, "", "\t"); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// withoutLater removes the fields of a link that are later.
func withoutLater(link any) {
	if fields, ok := link.(map[string]any); ok {
		for _, field := range later.link {
			delete(fields, field)
		}
	}
}

// TestGoesOnFromVersion1: a driver that reads the records of version 1 knows all allocations, and ends them.
func TestGoesOnFromVersion1(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		twoNICs(m)
		before := m.kernel.String()
		busyDay(m)
		m.stop()
		m.store = store.NewMemory()
		m.put(shipped(t, "v1")...)
		m.start(m.store)

		_, _, err := m.run("more", "vfs")
		wantError(t, err, "ens1f0 (0000:01:00.0): all 4 vfs are in use: "+
			"vf 0 of ens1f0 (0000:01:10.0) is held by endpoint lent-endpoin (10.55.125.232) of network vfs; "+
			"vf 1 of ens1f0 (0000:01:10.2) is quarantined: eth0: rename to ens1f0v1: file exists; "+
			"vf 2 of ens1f0 (0000:01:10.4) is on its way back from endpoint coming-endpo (10.73.176.178); "+
			"vf 3 of ens1f0 (0000:01:10.6) is held by endpoint ready-endpoi (10.0.0.9) of network vfs (waited 6s)")
		join, err := m.join("ready", "vfs")
		m.must(err)
		if diff := cmp.Diff(&netdrv.JoinResponse{
			InterfaceName: netdrv.InterfaceName{SrcName: "pt8b594a8a6a90", DstPrefix: "hw"},
			JoinResponse:  plugin.JoinResponse{Gateway: "10.0.0.1", GatewayIPv6: "2001:db8:1::1"},
		}, join); diff != "" {
			t.Errorf("join:\n%s", diff)
		}
		m.must(m.deleteFrom("ready", "vfs"))
		m.mustRun("more", "vfs")
		m.wantIn("0000:01:10.6", "more")
		m.kernel.KillNS("coming", 0)
		m.kernel.DelLink("ens1f0v1")
		m.settled()
		m.wantIn("0000:01:10.2", "")
		for _, c := range []string{"more", "lent", "whole", "thin"} {
			m.end(c)
		}
		m.mustRemove("thin")
		m.mustRemove("vfs")
		m.mustRemove("whole")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestUnreadableRecords: the error about a record that is damaged, or of a newer version, names it. Nothing is done: a record that cannot be
// read must not be overwritten.
func TestUnreadableRecords(t *testing.T) {
	t.Parallel()
	const ep = "ep/n/a-endpoint-0123456789"
	other := func(m *machine) error { return m.create("other", "netdevice=ens1f0") }
	changed := func(m *machine) error { return m.create("n", "netdevice=ens1f0", "vlan=9") }
	endpointOf := func(container string) func(m *machine) error {
		return func(m *machine) error {
			_, err := m.createEndpoint(container, "n", plugin.EndpointInterface{})
			return err
		}
	}
	join := func(m *machine) error { _, err := m.join("a", "n"); return err }
	del := func(m *machine) error { return m.deleteFrom("a", "n") }
	rm := func(m *machine) error { return m.remove("n") }
	for key, calls := range map[string][]func(m *machine) error{
		"net/n":            {other, changed, endpointOf("b"), join, rm},
		ep:                 {changed, endpointOf("a"), join, del, rm},
		"dev/0000:01:10.0": {endpointOf("b"), join, del, rm},
		"pf/0000:01:00.0":  {other},
	} {
		for name, c := range map[string]struct{ text, why string }{
			"newer":            {`{"v":2,"news":true}`, "ledger was written by a newer version: it has version 2, this plugin knows 1; upgrade the plugin on this node"},
			"no record":        {`{"id":"n"}`, "ledger is damaged: it has no version"},
			"no json":          {"once upon a time", "ledger is damaged: invalid character 'o' looking for beginning of value"},
			"of another shape": {`{"v":1,"id":7,"device":7,"pci":7}`, "ledger is damaged: json: cannot unmarshal number into Go struct field "},
		} {
			t.Run(key+" "+name, func(t *testing.T) {
				story(t, func(m *machine) {
					m.kernel.AddPF(igb())
					m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
					m.mustRun("a", "n")
					m.settled()
					good := m.ledgerRecords()
					m.put(stored{key, json.RawMessage(c.text)})
					host, ledger := m.kernel.String(), m.ledger()
					for i, call := range calls {
						err := call(m)
						if err == nil || !strings.Contains(err.Error(), "record "+key+": "+c.why) {
							t.Errorf("call %d: error is %v, want record %s: %s", i, err, key, c.why)
						}
					}
					m.settled()
					m.restart()
					m.settled()
					m.wantHost(host)
					if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
						t.Errorf("the ledger has changed:\n%s", diff)
					}
					m.put(good...)
					m.end("a")
					m.mustRemove("n")
					m.wantKeys()
				})
			})
		}
	}
}

// TestUnknownMode: an allocation of a mode that this version does not have is left as it is, and so is its device, until the version is back
// that has it.
func TestUnknownMode(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "vlan=4")
		m.mustRun("a", "n")
		good := m.ledgerRecords()
		for _, s := range good {
			if s.Key == "dev/0000:01:10.0" {
				m.put(stored{s.Key, bytes.Replace(s.Record, []byte(`"mode":"sriov"`), []byte(`"mode":"vdpa"`), 1)})
			}
		}
		m.leave("a")
		m.kernel.ReleaseNS("a")
		m.must(m.deleteFrom("a", "n"))
		m.settled()
		host, ledger := m.kernel.String(), m.ledger()
		if !strings.Contains(ledger, `"mode":"vdpa"`) || !strings.Contains(ledger, `"state":"freeing"`) {
			t.Errorf("the ledger is\n%s", ledger)
		}
		m.restart()
		m.settled()
		m.wantHost(host)
		if diff := cmp.Diff(ledger, m.ledger()); diff != "" {
			t.Errorf("the ledger has changed:\n%s", diff)
		}
		for _, s := range m.ledgerRecords() {
			if s.Key == "dev/0000:01:10.0" {
				m.put(stored{s.Key, bytes.Replace(s.Record, []byte(`"mode":"vdpa"`), []byte(`"mode":"sriov"`), 1)})
			}
		}
		m.settled()
		m.mustRemove("n")
		m.wantKeys()
	})
}

// ledgerRecords returns all records of the ledger.
func (m *machine) ledgerRecords() (all []stored) {
	m.t.Helper()
	m.must(m.store.Range(m.t.Context(), "", func(kv store.KV) error {
		all = append(all, stored{kv.Key, kv.Value})
		return nil
	}))
	return all
}
