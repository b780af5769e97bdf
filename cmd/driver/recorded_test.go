package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
)

// TestRecorded replays the recorded calls of the layer engine, as TestReplay replays scenarios. The files are not edited:
// "make test-engine RECORD=cmd/driver/testdata/recorded" writes them, with the events between the calls.
func TestRecorded(t *testing.T) { replayAll(t, "testdata/recorded") }

// veth adds a pair of devices that are up, the other end with an address.
func (r *replay) veth(name, address string) error {
	peer, up := name+"p", true
	r.kernel.AddVeth(name, peer)
	r.kernel.AddAddrs(peer, address)
	for _, end := range []string{name, peer} {
		if err := r.kernel.SetLink(r.kernel.Link(end).Index, hw.LinkUp, hw.Link{Up: up}); err != nil {
			return err
		}
	}
	return nil
}

// unrecorded are the tests of the layer engine of which there is no recording, and why.
var unrecorded = map[string]string{
	"TestDefaultPools":         "the plugin is a process with settings of its own; the engine's log does not have its",
	"TestStickyByMAC":          "the same",
	"TestStickyByName":         "a container is restarted in three ways, in another order each time",
	"TestDHCP":                 "the addresses are a DHCP server's; the layer kernel has dnsmasq and Kea",
	"TestPlainProcess":         "the same, without the settings",
	"TestQuickStart":           "the same",
	"TestPluginRemoved":        "the plugin is another one afterwards, and what it shows is not replayed",
	"TestRestore":              "the plugin is another one afterwards",
	"TestCDI":                  "it has a folder for CDI specs, which a recording does not",
	"TestFolderMissing":        "it has a folder of the host, which a recording does not",
	"TestPodman":               "most calls are podman's, which are not the engine's",
	"TestMixed":                "the same, and by lot",
	"TestRefusedConnect":       "its calls are those of TestOneAtATime",
	"TestIPAMServer":           "the plugin is a process with an IPAM server",
	"TestPassthroughctl":       "it changes the log level, and a recording needs debug",
	"TestEvents":               "its calls are those of TestMacvlan",
	"TestFree":                 "it calls the plugin itself",
	"TestSupportBundle":        "the plugins are processes; the engine's log does not have theirs",
	"TestPluginLog":            "its calls are those of TestMacvlan",
	"TestPlainContainer":       "the plugin is a container; the engine's log does not have its",
	"TestDockersIPAM":          "what Docker's own IPAM driver refuses no plugin is told; the rest is as in TestThin",
	"TestHardwareRefused":      "the same",
	"TestInstallTwice":         "no plugin is told anything",
	"TestPrometheus":           "its calls are those of TestMacvlan and TestVethEnd",
	"TestStateDirectory":       "the same",
	"TestQuestions":            "its calls are those of TestMacvlan",
	"TestComposeRails":         "its networks are as those of TestRails",
	"TestRails":                "its networks are as those of TestInterfaceName and TestEndpointSysctls",
	"TestPlanNetwork":          "the plugin is asked for plans by another client; the rest is as in TestMacvlan and TestRefusals",
	"TestStoreAway":            "the plugin has an etcd that does not answer",
	"TestSwarmCountsVFs":       "the engine is restarted with another configuration, and no container has a network of the plugin",
	"TestServiceDevices":       "the names of tasks are other ones each time",
	"TestComposeMacvlan":       "Compose starts and stops containers at the same time",
	"TestComposeNFV":           "the same",
	"TestComposeInterfaceName": "its calls are those of TestInterfaceName",
	"TestComposePlugin":        "the plugin is a container; the engine's log does not have its",
	"TestHostAccess":           "its calls are those of TestMacvlan, with an auxiliary address as in TestAddresses",
	"TestStack":                "a swarm starts and stops containers at the same time",
	"TestRelease":              "its calls are those of TestRegistry",
	"TestReleaseArchive":       "no plugin is told anything",
	"TestReleaseNames":         "its calls are those of TestInstall",
	"TestMoveNetwork":          "its calls are those of TestMacvlan",
	"TestWhales":               "its calls are those of TestMacvlan, many times",
	"TestIfnameUnknown":        "the engine does not do what the answer says",
	"TestLoad":                 "what is said at the same time is in another order each time",
}

// TestAllRecorded: each test of the layer engine has been recorded on each engine of scripts/engine, and nothing else.
func TestAllRecorded(t *testing.T) {
	want := recordable(t)
	for _, release := range []string{"20.10", "26.1", "28.5", "29.8"} {
		entries, err := os.ReadDir("testdata/recorded/" + release)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, e := range entries {
			got = append(got, strings.TrimSuffix(e.Name(), ".txt"))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("make test-engine ENGINE=%s RECORD=cmd/driver/testdata/recorded (-want +got):\n%s", release, diff)
		}
	}
}

// tested is where a test of the layer engine begins.
var tested = regexp.MustCompile(`(?m)^func (Test\w+)\(t `)

// recordable are the tests of the layer engine but for the unrecorded ones, all of which have to be there.
func recordable(t *testing.T) []string {
	t.Helper()
	sources, err := filepath.Glob("../../test/suites/engine/*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, source := range sources {
		text, err := os.ReadFile(source)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range tested.FindAllStringSubmatch(string(text), -1) {
			names = append(names, m[1])
		}
	}
	for name := range unrecorded {
		if !slices.Contains(names, name) {
			t.Errorf("unrecorded: there is no test %s", name)
		}
	}
	slices.Sort(names)
	return slices.DeleteFunc(names, func(name string) bool { return unrecorded[name] != "" })
}
