package netdrv_test

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	"github.com/google/go-cmp/cmp"
	container "tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// cdiStory is story on a machine with a folder for CDI specs.
func cdiStory(t *testing.T, fn func(m *machine)) {
	t.Helper()
	dir := t.TempDir()
	story(t, func(m *machine) {
		m.stop()
		m.cdi = dir
		m.start(m.store)
		fn(m)
	})
}

// cdiDevices returns the environment of all devices in the folder, by their names, as an engine reads them.
func (m *machine) cdiDevices() map[string][]string {
	m.t.Helper()
	cache, err := container.NewCache(container.WithSpecDirs(m.cdi), container.WithAutoRefresh(false))
	if err != nil {
		m.t.Fatal(err)
	}
	if errs := cache.GetErrors(); len(errs) > 0 {
		m.t.Fatalf("an engine does not take it: %v", errs)
	}
	found := map[string][]string{}
	for _, name := range cache.ListDevices() {
		found[name] = cache.GetDevice(name).ContainerEdits.Env
	}
	return found
}

// wantDevices checks the names of all devices in the folder.
func (m *machine) wantDevices(want ...string) {
	m.t.Helper()
	if diff := cmp.Diff(want, slices.Sorted(maps.Keys(m.cdiDevices()))); diff != "" {
		m.t.Errorf("devices in CDI specs (-want +got):\n%s", diff)
	}
}

// files returns the names of the files in the folder.
func (m *machine) files() []string {
	m.t.Helper()
	entries, err := os.ReadDir(m.cdi)
	if err != nil {
		m.t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// TestCDISoftware: the file of an RDMA device that software has made is in the spec of the network of its netdev, under whatever name that is, and in
// no other.
func TestCDISoftware(t *testing.T) {
	cdiStory(t, func(m *machine) {
		nic(m)
		m.kernel.AddLink(hw.Link{Name: "ens3", Up: true})
		m.kernel.AddRXE("rxe0", "ens2")
		m.mustCreate("with", "netdevice=ens2", "mode=macvlan", "cdi=with")
		m.mustCreate("without", "netdevice=ens3", "mode=macvlan", "cdi=without")
		check := func() {
			for class, want := range map[string]int{"with": 1, "without": 0} {
				raw, err := os.ReadFile(filepath.Join(m.cdi, "passthrough-"+class+".json"))
				if got := strings.Count(string(raw), "/dev/infiniband/uverbs"); err != nil || got != want {
					t.Errorf("the spec of %s has %d files, %v:\n%s", class, got, err, raw)
				}
			}
		}
		check()
		m.must(m.kernel.SetLink(m.kernel.Link("ens2").Index, hw.LinkName, hw.Link{Name: "eth7"}))
		m.after(2 * time.Minute)
		check()
	})
}

// TestCDIFollowsVFs: the VFs of a network are in its spec from its creation to its end, whether containers have them or not, and whatever
// their number is.
func TestCDIFollowsVFs(t *testing.T) {
	cdiStory(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.kernel.LoadDriver("vfio-pci")
		planned, err := m.driver.Plan(m.ctx, &plugin.CreateNetworkRequest{Options: request("netdevice=ens1f0", "numvfs=3", "cdi=customer1")})
		const step = "the CDI spec passthrough-customer1.json is written, and follows the network's devices: mellanox.com/customer1=..."
		if err != nil || !slices.Contains(planned.Steps, step) {
			t.Errorf("the plan is %+v, %v", planned, err)
		}
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=3", "cdi=customer1")
		all := []string{"mellanox.com/customer1=vf0", "mellanox.com/customer1=vf1", "mellanox.com/customer1=vf2"}
		m.wantDevices(all...)
		if diff := cmp.Diff([]string{"PCIDEVICE_MELLANOX_COM_CUSTOMER1=0000:01:10.4"}, m.cdiDevices()[all[2]]); diff != "" {
			t.Error(diff)
		}
		m.mustRun("a", "n")
		m.settled()
		m.wantDevices(all...)
		m.end("a")
		m.settled()
		m.wantDevices(all...)

		m.must(os.Remove(filepath.Join(m.cdi, "passthrough-customer1.json"))) // by an administrator
		m.after(2 * time.Minute)
		m.wantDevices(all...)
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", "0"))
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_drivers_autoprobe", "1"))
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", "2"))
		m.after(2 * time.Minute)
		m.wantDevices(all[:2]...)
		m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:10.0/driver/unbind", "0000:01:10.0"))
		m.after(2 * time.Minute)
		m.wantDevices(all[1]) // an administrator's VF that has no driver stays as it is
		m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:10.0/driver_override", "vfio-pci"))
		m.must(m.kernel.WriteAttr("bus/pci/drivers_probe", "0000:01:10.0"))
		m.after(2 * time.Minute)
		raw, err := os.ReadFile(filepath.Join(m.cdi, "passthrough-customer1.json"))
		if err != nil || strings.Count(string(raw), `"path": "/dev/vfio/`) != 2 {
			t.Errorf("the vf that an administrator has bound to vfio-pci: %v\n%s", err, raw)
		}
		m.wantDevices(all[:2]...)

		m.must(m.kernel.WriteAttr("bus/pci/devices/"+pfPCI+"/sriov_numvfs", "0"))
		m.mustRemove("n")
		if left := m.files(); len(left) > 0 {
			t.Errorf("left in the folder: %v", left)
		}
	})
}

// TestCDIFiles: a VF with RDMA has its own files, and one device more for managing the fabric, also while a container has it. After its driver
// was bound again they have other numbers.
func TestCDIFiles(t *testing.T) {
	cdiStory(t, func(m *machine) {
		pf := hca()
		m.kernel.AddPF(pf)
		m.mustCreate("n", "netdevice=ib0", "numvfs=2", "cdi=fabric")
		m.settled()
		m.wantDevices("mellanox.com/fabric=vf0", "mellanox.com/fabric=vf0-umad", "mellanox.com/fabric=vf1", "mellanox.com/fabric=vf1-umad")
		files := func(device string, want ...string) {
			t.Helper()
			cache, err := container.NewCache(container.WithSpecDirs(m.cdi), container.WithAutoRefresh(false))
			m.must(err)
			var got []string
			for _, n := range cache.GetDevice("mellanox.com/fabric=" + device).ContainerEdits.DeviceNodes {
				got = append(got, n.Path+" "+n.Permissions)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("files of %s (-want +got):\n%s", device, diff)
			}
		}
		files("vf0", "/dev/infiniband/uverbs1 rw")
		files("vf1", "/dev/infiniband/uverbs2 rw")
		files("vf1-umad", "/dev/infiniband/umad2 rw")
		env := []string{"PCIDEVICE_MELLANOX_COM_FABRIC=0000:01:00.1", "RDMADEVICE_MELLANOX_COM_FABRIC=mlx5_1"}
		if diff := cmp.Diff(env, m.cdiDevices()["mellanox.com/fabric=vf0"]); diff != "" {
			t.Error(diff)
		}
		m.mustRun("a", "n")
		m.settled()
		files("vf0", "/dev/infiniband/uverbs1 rw") // those that the engine has read before
		files("vf1", "/dev/infiniband/uverbs2 rw")
		m.end("a")
		m.settled()

		m.must(m.kernel.WriteAttr("bus/pci/devices/0000:01:00.2/driver/unbind", "0000:01:00.2"))
		m.after(2 * time.Minute) // it is bound again: the plugin made it
		cache, err := container.NewCache(container.WithSpecDirs(m.cdi), container.WithAutoRefresh(false))
		m.must(err)
		if n := cache.GetDevice("mellanox.com/fabric=vf1").ContainerEdits.DeviceNodes[0].Path; n == "/dev/infiniband/uverbs2" {
			t.Errorf("bound again vf 1 has %s as before", n)
		}
		m.mustRemove("n")
	})
}

// TestCDISeveralPFs: VFs of several PFs are called by their PCI addresses, which the option vf takes, too.
func TestCDISeveralPFs(t *testing.T) {
	cdiStory(t, func(m *machine) {
		m.kernel.AddPF(igb())
		second := igb()
		second.Name, second.PCI, second.MAC = "ens2f0", "0000:02:00.0", ""
		m.kernel.AddPF(second)
		m.mustCreate("n", "netdevice=ens1f0,ens2f0", "vfs=1", "cdi=both")
		m.settled()
		m.wantDevices("mellanox.com/both=0000:01:10.2", "mellanox.com/both=0000:02:10.2")
		m.mustRemove("n")
		m.wantDevices()
	})
}

// TestCDIReboot: after a reboot the VFs are there, and in the spec, before the engine starts a container: it looks a device up before it asks
// for an endpoint. The spec of a network that ended meanwhile, and what a crash has left, are removed; files of others stay.
func TestCDIReboot(t *testing.T) {
	cdiStory(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.mustCreate("n", "netdevice=ens1f0", "numvfs=2", "cdi=kept")
		ours, err := os.ReadFile(filepath.Join(m.cdi, "passthrough-kept.json"))
		m.must(err)
		foreign := map[string]string{
			"nvidia.json":              `{"cdiVersion": "0.6.0", "kind": "nvidia.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}]}`,
			"passthrough-gpu.json":     `{"cdiVersion": "0.6.0", "kind": "mellanox.com/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["A=1"]}}]}`,
			"passthrough-notes.txt":    "mine",
			".passthrough-x.json.save": string(ours),
		}
		for name, text := range foreign {
			m.must(os.WriteFile(filepath.Join(m.cdi, name), []byte(text), 0o600))
		}
		m.reboot(func(m *machine) {
			m.kernel.AddPF(igb())
			gone := strings.ReplaceAll(string(ours), "kept", "gone")
			m.must(os.WriteFile(filepath.Join(m.cdi, "passthrough-gone.json"), []byte(gone), 0o600))
			m.must(os.WriteFile(filepath.Join(m.cdi, ".passthrough-kept.json1234567"), []byte(gone[:10]), 0o600))
		})
		m.after(time.Minute)
		m.wantDevices("mellanox.com/gpu=0", "mellanox.com/kept=vf0", "mellanox.com/kept=vf1", "nvidia.com/gpu=0")
		m.mustRemove("n")
		if diff := cmp.Diff(slices.Sorted(maps.Keys(foreign)), m.files()); diff != "" {
			t.Errorf("files (-want +got):\n%s", diff)
		}
		for name, text := range foreign {
			if raw, err := os.ReadFile(filepath.Join(m.cdi, name)); err != nil || string(raw) != text {
				t.Errorf("%s was changed to %q: %v", name, raw, err)
			}
		}
	})
}

// TestCDIOfOneDevice: the device of a network without VFs is called nic.
func TestCDIOfOneDevice(t *testing.T) {
	cdiStory(t, func(m *machine) {
		m.kernel.AddPF(hwtest.PF{Name: "ens5", PCI: "0000:05:00.0", Driver: "e1000e", Up: true})
		m.mustCreate("n", "netdevice=ens5", "mode=passthrough", "cdi=whole-1")
		env := []string{"NETDEVICE_MELLANOX_COM_WHOLE_1=ens5", "PCIDEVICE_MELLANOX_COM_WHOLE_1=0000:05:00.0"}
		if diff := cmp.Diff(map[string][]string{"mellanox.com/whole-1=nic": env}, m.cdiDevices()); diff != "" {
			t.Error(diff)
		}
		m.mustRun("a", "n")
		m.settled()
		m.wantDevices("mellanox.com/whole-1=nic")
		m.end("a")
		m.mustRemove("n")
		m.mustCreate("n", "netdevice=ens5", "mode=macvlan", "vlan=7", "cdi=c")
		if diff := cmp.Diff(map[string][]string{"mellanox.com/c=nic": {"NETDEVICE_MELLANOX_COM_C=ens5"}}, m.cdiDevices()); diff != "" {
			t.Error(diff) // the function is not the container's
		}
		m.mustRemove("n")
	})
}

// TestCDIRefused: the option is refused where its spec cannot be written.
func TestCDIRefused(t *testing.T) {
	cdiStory(t, func(m *machine) {
		m.kernel.AddPF(igb())
		m.must(os.WriteFile(filepath.Join(m.cdi, "passthrough-foreign.json"), []byte("{}"), 0o600))
		wantError(t, m.create("a", "netdevice=ens1f0", "cdi=foreign"), "option cdi: there is a file passthrough-foreign.json in the folder for "+
			"CDI specs that the plugin has not written; remove it, or say another name")
		for _, name := range []string{"1a", "a.b", "a-", "a/b", strings.Repeat("a", 65)} {
			if err := m.create("a", "netdevice=ens1f0", "cdi="+name); err == nil || !strings.Contains(err.Error(), "option cdi: ") {
				t.Errorf("cdi=%s: %v", name, err)
			}
		}
		m.mustCreate("first", "netdevice=ens1f0", "vfs=0", "cdi=Same")
		if err := m.create("second", "netdevice=ens1f0", "vfs=1", "cdi=same"); err == nil ||
			!strings.Contains(err.Error(), "option cdi: same is the name of network first") {
			t.Errorf("the same name twice: %v", err)
		}
		m.mustRemove("first")

		m.mustCreate("upgraded", "netdevice=ens1f0", "cdi=x")
		m.stop()
		m.cdi = ""
		m.start(m.store)
		wantError(t, m.create("third", "netdevice=ens1f0", "cdi=y"), "option cdi: the plugin has no folder for CDI specs; give it one with docker "+
			"plugin set passthrough cdi.source=/etc/cdi, see docs/cdi.md")
		m.mustRun("web", "upgraded") // its devices do not depend on the folder
		m.end("web")
		m.mustRemove("upgraded")
	})
}
