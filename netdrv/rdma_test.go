package netdrv_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	plugin "github.com/docker/go-plugins-helpers/network"

	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/rdma"
)

// connectX is a PF with RDMA. It is modelled on the kernel's sources only: no hardware was available.
func connectX() hwtest.PF {
	pf := igb()
	pf.Behaviour, pf.Driver, pf.VFDriver, pf.Up, pf.TotalVFs, pf.VFs = hwtest.MLX5(), "mlx5_core", "mlx5_core", true, 2, 2
	return pf
}

// onConnectX runs fn on a machine with a PF with RDMA.
func onConnectX(t *testing.T, exclusive bool, fn func(m *machine)) {
	t.Helper()
	story(t, func(m *machine) {
		m.kernel.RDMAExclusive = exclusive
		m.kernel.AddPF(connectX())
		m.settled()
		fn(m)
	})
}

// rdmaDevices returns the RDMA devices of the host, and those of others with their namespaces.
func (m *machine) rdmaDevices() string {
	m.t.Helper()
	devices, err := rdma.New(m.kernel.Sys, m.kernel.RDMA()).Devices()
	m.must(err)
	var names []string
	for _, d := range devices {
		names = append(names, d.Name)
	}
	return strings.Join(append(names, m.kernel.RDMANamespaces()...), ", ")
}

// TestRDMAMoves: in exclusive mode a container has the RDMA device of its VF, without an option as well as with one, and the VF comes home with
// one of the same name, whether the engine moves it home, before or after the namespace ends, or the kernel does.
func TestRDMAMoves(t *testing.T) {
	for _, options := range [][]string{nil, {"rdma=yes"}, {"rdma=require"}} {
		onConnectX(t, true, func(m *machine) {
			for i := 1; i <= 2; i++ { // as udev does; the kernel gives a device that is made another name
				m.must(m.kernel.RDMA().Rename(i, fmt.Sprintf("roce%d", i)))
			}
			m.mustCreate("n", append([]string{"netdevice=ens1f0"}, options...)...)
			before, host := m.rdmaDevices(), m.kernel.String()
			for _, end := range []string{"stopped", "namespace first", "killed"} {
				m.mustRun("a", "n")
				if got := m.rdmaDevices(); got != "mlx5_0, roce2, roce1 in a" && got != "mlx5_0, roce1, roce2 in a" {
					t.Errorf("%q: %s", options, got)
				}
				switch end {
				case "stopped": // by an engine: the namespace ends when the endpoint is deleted
					m.must(m.kernel.MoveHome("a", m.where["a"].inside, m.where["a"].source))
					m.delete("a")
					m.kernel.KillNS("a", 0)
				case "namespace first":
					m.end("a")
				case "killed":
					m.kernel.KillNS("a", 0)
					m.delete("a")
				}
				if got := m.rdmaDevices(); got != before {
					t.Errorf("%q, %s: afterwards %s, before %s", options, end, got, before)
				}
			}
			m.wantHost(host)
		})
	}
}

// TestRDMAStays: nothing is moved in shared mode, nor with rdma=no, nor that of a container whose namespace is not there, unless the user
// insists on it.
func TestRDMAStays(t *testing.T) {
	for _, c := range []struct {
		exclusive, oldEngine bool
		option, refused      string
	}{
		{false, false, "", ""},
		{false, false, "rdma=no", ""},
		{false, false, "rdma=yes", ""},
		{true, false, "rdma=no", ""},
		{true, true, "", ""},
		{true, true, "rdma=yes", `rdma device mlx5_\d of vf 0 of ens1f0 \(0000:01:10.0\) cannot be moved into the container: network namespace ` +
			`/var/run/docker/netns/a is not seen by the plugin, or does not exist yet, as with engines before 28.*; see docs/hpc.md; the option rdma is yes$`},
	} {
		onConnectX(t, c.exclusive, func(m *machine) {
			m.oldEngine = c.oldEngine
			m.mustCreate("n", append([]string{"netdevice=ens1f0"}, strings.Fields(c.option)...)...)
			_, _, err := m.run("a", "n")
			if (err == nil) != (c.refused == "") || err != nil && !regexp.MustCompile(c.refused).MatchString(err.Error()) {
				t.Errorf("%+v: %v", c, err)
			}
			if got := m.rdmaDevices(); got != "mlx5_0, mlx5_1, mlx5_2" {
				t.Errorf("%+v: %s", c, got)
			}
			if err == nil {
				m.end("a")
			} else {
				m.deleteQuietly("a", "n")
			}
			if got := m.rdmaDevices(); got != "mlx5_0, mlx5_1, mlx5_2" {
				t.Errorf("%+v: afterwards %s", c, got)
			}
		})
	}
}

// TestRDMARefused: what a network with the option rdma cannot have is refused when it is created, with what to do.
func TestRDMARefused(t *testing.T) {
	for _, c := range []struct {
		pf        hwtest.PF
		exclusive bool
		option    string
		want      string
	}{
		{igb(), false, "rdma=yes", "option rdma: ens1f0 (0000:01:00.0) has no rdma device; is its rdma driver loaded, such as mlx5_ib? passthroughctl nics shows rdma devices"},
		{igb(), true, "rdma=require", "option rdma: ens1f0 (0000:01:00.0) has no rdma device"},
		{connectX(), false, "rdma=require", "option rdma: this host shares rdma devices between all network namespaces, and require is for a device of its own; " +
			"write options ib_core netns_mode=0 to /etc/modprobe.d/ib_core.conf and restart the machine, or say rdma=yes"},
		{hca(), true, "rdma=yes", "option rdma: ib0 (0000:01:00.0) is an infiniband pf"},
		{connectX(), true, "rdma=true", `option rdma: "true" is not allowed; allowed: yes, no or require`},
	} {
		story(t, func(m *machine) {
			m.kernel.RDMAExclusive = c.exclusive
			m.kernel.AddPF(c.pf)
			m.settled()
			if err := m.create("n", "netdevice="+c.pf.Name, c.option); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s %s: %v\nwant %s", c.pf.Name, c.option, err, c.want)
			}
		})
	}
}

// TestRDMARejoined: a container that the engine joins once more keeps its RDMA device, and the plugin's end does not matter.
func TestRDMARejoined(t *testing.T) {
	onConnectX(t, true, func(m *machine) {
		m.mustCreate("n", "netdevice=ens1f0", "rdma=yes")
		join, _, err := m.attach("a", "n", plugin.EndpointInterface{Address: addressOf("a")})
		m.must(err)
		m.stop()
		m.start(m.store)
		_, err = m.join("a", "n")
		m.must(err)
		if got := m.kernel.RDMANamespaces(); len(got) != 1 || !strings.HasSuffix(got[0], " in a") {
			t.Errorf("after the second join: %q", got)
		}
		m.must(m.kernel.MoveToNS("a", join.InterfaceName.SrcName, "eth0"))
		m.kernel.KillNS("a", 0)
		m.deleteQuietly("a", "n")
		if got := m.rdmaDevices(); got != "mlx5_0, mlx5_1, mlx5_2" {
			t.Error(got)
		}
	})
}
