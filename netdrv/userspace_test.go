package netdrv_test

import (
	"context"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	plugin "github.com/docker/go-plugins-helpers/network"
	container "tags.cncf.io/container-device-interface/pkg/cdi"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/netdrv"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/test/harness/docs"
)

// vfio adds a PF with two VFs that are bound since boot, one of which has a VLAN of an administrator, and vfio-pci.
func vfio(m *machine) {
	pf := igb()
	pf.Up, pf.VFs = true, 2
	m.kernel.AddPF(pf)
	m.settled()
	m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, 0, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 7}}))
	m.kernel.LoadDriver("vfio-pci")
}

const vf0, vf1 = "0000:01:10.0", "0000:01:10.2"

// program is what a container does in which a program drives its VF, from the network's creation to its removal.
func program(options ...string) func(m *machine) {
	return func(m *machine) {
		if m.create("n", options...) != nil {
			return
		}
		if _, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: "10.0.0.2/24"}); err != nil {
			return
		}
		m.kernel.OpenFunction(vf0)
		m.deleteQuietly("a", "n")
		m.kernel.CloseFunction(vf0)
		m.settled()
		_ = m.remove("n")
	}
}

// programEnds is what an engine and its user do after a crash; the program has been killed with its container.
func programEnds(m *machine) {
	m.deleteQuietly("a", "n")
	m.must(m.remove("n"))
}

// startProgram starts a container on a network with the option driver.
func (m *machine) startProgram(container string) (*netdrv.JoinResponse, string) {
	m.t.Helper()
	join, mac, err := m.attach(container, "n", plugin.EndpointInterface{Address: addressOf(container)})
	m.must(err)
	return join, mac
}

// optionsOfPage are those of the network in docs/nfv.md, on the stand-in's PF.
func optionsOfPage(t *testing.T) []string {
	return optionsIn(strings.ReplaceAll(docs.Commands(t, "../docs/nfv.md", "A network")[0], "enp1s0", "ens1f0"))
}

// optionsIn returns the values of -o in a command.
func optionsIn(command string) (options []string) {
	words := strings.Fields(command)
	for i, w := range words {
		if w == "-o" {
			options = append(options, words[i+1])
		}
	}
	return options
}

// TestProgram: a container of the network in docs/nfv.md gets a VF that is set up through its PF and bound to vfio-pci, and no netdev, gateway or route.
// While the program has it open it is not unbound. Afterwards it is as before.
func TestProgram(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		vfio(m)
		before := m.kernel.String()
		m.must(m.createWith("n", &plugin.CreateNetworkRequest{IPv4Data: []*plugin.IPAMData{{Pool: "10.0.0.0/8", Gateway: "10.0.0.1/8"}}},
			append(optionsOfPage(t), "trust=yes")...))
		join, mac := m.startProgram("a")
		if join.InterfaceName != (netdrv.InterfaceName{}) || join.Gateway != "" || len(join.StaticRoutes) > 0 || !join.DisableGatewayService {
			t.Errorf("join answers %+v", join)
		}
		states, err := m.kernel.VFs(m.kernel.Link("ens1f0").Index)
		m.must(err)
		if s := states[0]; m.kernel.Driver(vf0) != "vfio-pci" || s.VLAN.ID != 100 || !s.Trust || mac == "" || string(s.MAC) != mac {
			t.Errorf("driver %s, %+v, mac %s", m.kernel.Driver(vf0), s, mac)
		}
		m.kernel.OpenFunction(vf0)
		m.restart()
		m.settled()
		if m.kernel.Driver(vf0) != "vfio-pci" {
			t.Errorf("a plugin that is started again has taken the vf from its program")
		}
		m.must(m.deleteFrom("a", "n"))
		m.settled()
		if m.kernel.Driver(vf0) != "vfio-pci" {
			t.Error("the vf was taken from its program")
		}
		m.mustCreate("other", "netdevice=ens1f0", "vfs=0")
		_, _, err = m.run("b", "other")
		if err == nil || !strings.Contains(err.Error(), "vf 0 of ens1f0 ("+vf0+") is on its way back from endpoint") {
			t.Errorf("another network gets it: %v", err)
		}
		m.kernel.CloseFunction(vf0)
		m.settled()
		m.mustRun("b", "other")
		m.end("b")
		m.settled()
		m.mustRemove("other")
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// filesOf returns the files of a CDI device that are its own, without the one that all of its kind share.
func (m *machine) filesOf(device string) (own []string) {
	m.t.Helper()
	cache, err := container.NewCache(container.WithSpecDirs(m.cdi), container.WithAutoRefresh(false))
	m.must(err)
	if d := cache.GetDevice(device); d != nil {
		for _, n := range d.ContainerEdits.DeviceNodes {
			if n.Path != "/dev/vfio/vfio" {
				own = append(own, n.Path)
			}
		}
	}
	return own
}

// TestProgramByCDI: the VFs of a network with driver and cdi are bound to vfio-pci as long as there is the network, so that the file of each is
// there before a container is started, and stays the same. The VFs of containers are set up and restored without being unbound. Afterwards all
// are as before.
func TestProgramByCDI(t *testing.T) {
	t.Parallel()
	cdiStory(t, func(m *machine) {
		vfio(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "cdi=dpdk", "vlan=100")
		file := m.filesOf("mellanox.com/dpdk=vf0")
		if other := m.filesOf("mellanox.com/dpdk=vf1"); len(file) != 1 || len(other) != 1 || file[0] == other[0] {
			t.Fatalf("the files are %v and %v", file, other)
		}
		m.mustCreate("netdevs", "netdevice=ens1f0")
		if _, _, err := m.run("b", "netdevs"); err == nil || !strings.Contains(err.Error(), "is bound to vfio-pci") {
			t.Errorf("a network without driver gets one: %v", err)
		}
		m.mustRemove("netdevs")
		m.kernel.OpenFunction(vf1)
		unbound := false
		m.kernel.OnCall(func(_ int, what string) error {
			unbound = unbound || strings.Contains(what, "unbind") || strings.Contains(what, "driver_override")
			return nil
		})
		m.startProgram("a")
		m.kernel.OpenFunction(vf0)
		if s := m.vfStates("ens1f0")[0]; s.VLAN.ID != 100 {
			t.Errorf("vf 0 of the container: %+v", s)
		}
		if _, _, err := m.attach("b", "n", plugin.EndpointInterface{}); err == nil || !strings.Contains(err.Error(), "is open by a program") {
			t.Errorf("the vf that a program has open is given to a container: %v", err)
		}
		m.restart()
		m.must(m.deleteFrom("a", "n"))
		m.settled()
		if s := m.vfStates("ens1f0")[0]; s.VLAN.ID != 100 {
			t.Errorf("vf 0 is restored while its program runs: %+v", s)
		}
		m.kernel.CloseFunction(vf0)
		m.kernel.CloseFunction(vf1)
		m.settled()
		if s := m.vfStates("ens1f0")[0]; s.VLAN.ID != 7 || unbound || !slices.Equal(m.filesOf("mellanox.com/dpdk=vf0"), file) {
			t.Errorf("vf 0 after its container: %+v; it was unbound: %t, its file is %v", s, unbound, m.filesOf("mellanox.com/dpdk=vf0"))
		}
		m.kernel.OnCall(nil)
		if status, err := m.driver.Status(m.ctx, &admin.StatusRequest{}); err != nil || !slices.Equal(status.Programs, []string{vf0, vf1}) {
			t.Errorf("kept for programs: %+v, %v", status, err)
		}
		m.startProgram("a")
		m.must(m.deleteFrom("a", "n"))
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// reading is a ledger that calls hook once, after the count-th read of a key.
type reading struct {
	store.Store
	key   string
	count int
	hook  func()
}

func (r *reading) Get(ctx context.Context, key string) (store.KV, error) {
	kv, err := r.Store.Get(ctx, key)
	if key == r.key && r.hook != nil {
		if r.count--; r.count == 0 {
			hook := r.hook
			r.hook = nil
			hook()
		}
	}
	return kv, err
}

// TestKeptWhileSelected: the network that a VF is kept for is removed while a container of another network is given the VF, after it was selected and
// before that is recorded. The VF comes home.
func TestKeptWhileSelected(t *testing.T) {
	t.Parallel()
	cdiStory(t, func(m *machine) {
		vfio(m)
		before := m.kernel.String()
		m.mustCreate("kept", "netdevice=ens1f0", "driver=vfio-pci", "cdi=dpdk", "vfs=0")
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "vfs=0")
		m.stop()
		r := &reading{Store: m.store, key: "program/" + vf0, count: 2} // for the selection, and for the allocation
		m.start(r)
		m.settled()
		r.hook = func() {
			go func() { _ = m.remove("kept") }()
			synctest.Wait()
		}
		m.startProgram("a")
		if r.hook != nil {
			t.Fatal("the record was not read")
		}
		m.must(m.deleteFrom("a", "n"))
		m.settled()
		m.mustRemove("n")
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestKeptForProgramsUnlessUsed: a VF that the host, a container or an administrator's program has when the network is created is left alone. The host's is
// taken once it is free.
func TestKeptForProgramsUnlessUsed(t *testing.T) {
	t.Parallel()
	cdiStory(t, func(m *machine) {
		vfio(m)
		before := m.kernel.String()
		m.mustCreate("netdevs", "netdevice=ens1f0", "vfs=0")
		m.mustRun("a", "netdevs")
		const name = "ens1f0v1"
		m.must(m.kernel.SetLink(m.kernel.Link(name).Index, hw.LinkUp, hw.Link{Up: true}))
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "cdi=dpdk")
		m.wantDevices()
		m.must(m.kernel.SetLink(m.kernel.Link(name).Index, hw.LinkUp, hw.Link{Up: false}))
		m.after(2 * time.Minute)
		m.wantDevices("mellanox.com/dpdk=vf1")
		m.end("a")
		m.mustRemove("netdevs")
		m.after(2 * time.Minute)
		m.wantDevices("mellanox.com/dpdk=vf0", "mellanox.com/dpdk=vf1")
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestKeptForProgramsAfterReboot: after a reboot the VFs are bound again before a container is started, and are restored to how that boot had
// made them.
func TestKeptForProgramsAfterReboot(t *testing.T) {
	t.Parallel()
	cdiStory(t, func(m *machine) {
		vfio(m)
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "cdi=dpdk", "vfs=0")
		m.wantDevices("mellanox.com/dpdk=vf0")
		var before string
		m.reboot(func(m *machine) {
			vfio(m)
			m.must(m.kernel.SetVF(m.kernel.Link("ens1f0").Index, 0, hw.VFVLAN, hw.VFState{VLAN: hw.VLAN{ID: 8}}))
			before = m.kernel.String()
		})
		m.after(2 * time.Minute)
		if m.kernel.Driver(vf0) != "vfio-pci" || len(m.filesOf("mellanox.com/dpdk=vf0")) != 1 {
			t.Errorf("vf 0 has the driver %s, its files are %v", m.kernel.Driver(vf0), m.filesOf("mellanox.com/dpdk=vf0"))
		}
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestProgramIsFaster: a program opens a VF between the look whether one has it open and its unbinding. The call ends in time, the plugin goes on,
// and the VF comes home once the program has ended.
func TestProgramIsFaster(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		vfio(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci")
		m.startProgram("a")
		m.kernel.OnCall(func(_ int, what string) error {
			if strings.HasSuffix(what, "/driver/unbind "+vf0) && m.kernel.Driver(vf0) == "vfio-pci" {
				m.kernel.OnCall(nil)
				m.kernel.OpenFunction(vf0)
			}
			return nil
		})
		start := time.Now()
		m.must(m.deleteFrom("a", "n"))
		if took := time.Since(start); took > 8*time.Second {
			t.Errorf("DeleteEndpoint took %s", took)
		}
		m.mustCreate("other", "netdevice=ens1f0", "vfs=1")
		m.mustRun("b", "other")
		m.end("b")
		m.kernel.CloseFunction(vf0)
		m.settled()
		m.mustRemove("other")
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestProgramRefused: what keeps a VF from being given to a program is said when the network is created, with the remedy, and nothing is changed.
func TestProgramRefused(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		hardware func(m *machine)
		options  string
		want     string
	}{
		"no module": {func(m *machine) { m.kernel.AddPF(igb()) }, "", "driver vfio-pci is not loaded; load it on the host: modprobe vfio-pci"},
		"no iommu": {func(m *machine) { m.kernel.NoIOMMU = true; vfio(m) }, "", "the machine has no iommu, or that is off, and vfio-pci needs one; switch it on " +
			"in the firmware (VT-d or AMD-Vi), and for an Intel CPU with intel_iommu=on on the kernel's command line"},
		"no iommu, forced": {func(m *machine) { m.kernel.NoIOMMU = true; vfio(m) }, "force=yes", "the machine has no iommu"},
		"unsafe mode": {func(m *machine) { m.kernel.NoIOMMU = true; vfio(m); unsafeMode(m) }, "",
			"vfio is in its unsafe mode: a program that has a vf can have it read and write all memory of the machine; if that is meant, say force=yes"},
		"shared group": {func(m *machine) {
			pf := igb()
			pf.Up, pf.VFs, pf.OneGroup = true, 2, true
			m.kernel.AddPF(pf)
			m.settled()
			m.kernel.LoadDriver("vfio-pci")
		}, "", "vf 0 of ens1f0 (0000:01:10.0) is in iommu group 1 with 0000:01:00.0 (igb), 0000:01:10.2 (igbvf), and a group is given to one program as a whole"},
		"infiniband": {func(m *machine) { pf := hca(); pf.Name = "ens1f0"; m.kernel.AddPF(pf); m.kernel.LoadDriver("vfio-pci") }, "", "an infiniband pf"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			story(t, func(m *machine) {
				c.hardware(m)
				before := m.kernel.String()
				err := m.create("n", append(strings.Fields(c.options), "netdevice=ens1f0", "driver=vfio-pci")...)
				if err == nil || !strings.Contains(err.Error(), "option driver: ") || !strings.Contains(err.Error(), c.want) {
					t.Errorf("error is\n  %v\nwant\n  %s", err, c.want)
				}
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

func unsafeMode(m *machine) {
	m.must(m.kernel.WriteAttr("module/vfio/parameters/enable_unsafe_noiommu_mode", "Y"))
}

// TestProgramWithoutIOMMU: with force=yes vfio's unsafe mode is accepted; the group that vfio makes then has another name.
func TestProgramWithoutIOMMU(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		m.kernel.NoIOMMU = true
		vfio(m)
		unsafeMode(m)
		before := m.kernel.String()
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "force=yes")
		m.startProgram("a")
		if d := m.kernel.Driver(vf0); d != "vfio-pci" {
			t.Errorf("the vf has driver %q", d)
		}
		m.must(m.deleteFrom("a", "n"))
		m.mustRemove("n")
		m.wantHost(before)
		m.wantKeys()
	})
}

// TestProgramOfAdministrator: a VF that an administrator has bound to vfio-pci is not given to a container, with or without driver. One that he
// binds while it is being put back stays his.
func TestProgramOfAdministrator(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		vfio(m)
		bind := func(pci, driver string) {
			m.must(m.kernel.WriteAttr("bus/pci/devices/"+pci+"/driver_override", driver))
			m.must(m.kernel.WriteAttr("bus/pci/drivers_probe", pci))
		}
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+vf1+"/driver/unbind", vf1))
		bind(vf1, "vfio-pci")
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "vfs=1")
		_, _, err := m.attach("a", "n", plugin.EndpointInterface{})
		if err == nil || !strings.Contains(err.Error(), "is bound to vfio-pci") {
			t.Errorf("an administrator's vf: %v", err)
		}
		m.mustRemove("n")
		m.mustCreate("n", "netdevice=ens1f0", "driver=vfio-pci", "vfs=0")
		m.startProgram("a")
		m.kernel.OnCall(func(_ int, what string) error {
			if strings.Contains(what, "set ens1f0 vf 0") && m.kernel.Driver(vf0) == "" { // unbound, and being restored
				m.kernel.OnCall(nil)
				bind(vf0, "vfio-pci")
			}
			return nil
		})
		_ = m.deleteFrom("a", "n")
		m.settled()
		if d := m.kernel.Driver(vf0); d != "vfio-pci" {
			t.Errorf("the administrator's vf is bound to %q", d)
		}
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+vf0+"/driver/unbind", vf0))
		m.must(m.kernel.WriteAttr("bus/pci/devices/"+vf0+"/driver_override", "\n"))
		m.settled()
		m.mustRemove("n")
		m.wantKeys()
	})
}
