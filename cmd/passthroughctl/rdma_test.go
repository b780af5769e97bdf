package main

import (
	"fmt"
	"net/netip"
	"os"
	"regexp"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/hw/rdma"
	"github.com/mellanox/passthrough/internal/admin"
)

// connectX returns a machine with a ConnectX that has two VFs, and an igb.
func connectX(t *testing.T, exclusive, noFiles bool) (*hwtest.Kernel, *hw.Host, *rdma.Host) {
	t.Helper()
	k := hwtest.New(t)
	k.RDMAExclusive, k.NoRDMAFiles = exclusive, noFiles
	k.AddPF(hwtest.PF{Name: "ens1f0np0", PCI: "0000:01:00.0", Behaviour: hwtest.MLX5(), Driver: "mlx5_core", VFDriver: "mlx5_core", TotalVFs: 2, VFs: 2, Up: true})
	k.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", TotalVFs: 7, Up: true})
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "test"})
	if err != nil {
		t.Fatal(err)
	}
	return k, host, rdma.New(k.Sys, k.RDMA())
}

// TestRDMAShown: NICs, VFs and networks have their RDMA devices; the one of a VF that is in a container is away in exclusive mode.
func TestRDMAShown(t *testing.T) {
	k, host, r := connectX(t, true, false)
	k.MoveRDMA("mlx5_2", "c1")
	nics, err := nicRows(host, r)
	if err != nil {
		t.Fatal(err)
	}
	vfs, err := (&view{}).vfRows(host, r, nil)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, n := range nics {
		got = append(got, n.Name+": "+rdmaText(n.RDMA))
	}
	for _, vf := range vfs {
		got = append(got, fmt.Sprintf("vf %d: %s", vf.VF, vf.rdma()))
	}
	report := statusReport{Networks: []networkRow{{Devices: []string{"ens1f0np0", "ens2f0", "gone"}}, {Devices: []string{"ens2f0"}}}}
	if err := report.addRDMA(host, r); err != nil {
		t.Fatal(err)
	}
	got = append(got, fmt.Sprint(report.RDMANetns, report.Networks[0].RDMA, report.Networks[1].RDMA))
	want := []string{"ens1f0np0: mlx5_0", "ens2f0: ", "vf 0: mlx5_1 down", "vf 1: away", "exclusive[mlx5_0] []"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestPageHasFindings: docs/hpc.md has the findings and the remedies of the command doctor, and no others.
func TestPageHasFindings(t *testing.T) {
	page, err := os.ReadFile("../../docs/hpc.md")
	if err != nil {
		t.Fatal(err)
	}
	source, err := os.ReadFile("rdma.go")
	if err != nil {
		t.Fatal(err)
	}
	warnings := strings.Count(string(source), "{warning,")
	_, table, _ := strings.Cut(string(page), "\n## What doctor says\n")
	table, _, _ = strings.Cut(table, "\n## ")
	code := regexp.MustCompile("`([^`]+)`")
	rows := 0
	for line := range strings.Lines(table) {
		if !strings.HasPrefix(line, "| `") {
			continue
		}
		rows++
		cells := strings.Split(line, " | ")
		finding := strings.Replace(code.FindStringSubmatch(cells[0])[1], "8.0 MiB", "%s", 1)
		if !strings.Contains(string(source), finding) {
			t.Errorf("no finding has %q", finding)
		}
		if remedy := code.FindStringSubmatch(cells[2]); remedy != nil && !strings.Contains(string(source), remedy[1]) {
			t.Errorf("no finding has the remedy %q", remedy[1])
		}
	}
	if rows != warnings {
		t.Errorf("the page has %d findings, the command %d", rows, warnings)
	}
}

// TestOptionalColumns: a table has a column of RDMA devices, or of reasons, only if a row has one.
func TestOptionalColumns(t *testing.T) {
	columns := func() []column[string] {
		return []column[string]{{"NAME", func(string) string { return "n" }}, {rdmaColumn, func(r string) string { return r }}}
	}
	for rows, want := range map[string]string{"": "NAME\nn\n", "mlx5_0": "NAME  RDMA\nn     mlx5_0\n"} {
		var out strings.Builder
		if err := writeTable(&out, []string{rows}, used([]string{rows}, columns(), rdmaColumn)); err != nil || out.String() != want {
			t.Errorf("%q: %q, %v", rows, out.String(), err)
		}
	}
}

// TestDoctorKnowsRDMA: shared mode, missing files and a small limit of locked memory are warnings if a network has RDMA devices, and nothing is
// said about a machine that has none.
func TestDoctorKnowsRDMA(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte(text)} }
	const limits = "Limit                     Soft Limit           Hard Limit           Units     \nMax locked memory         %s              %s              bytes     \n"
	containerd := func(limit string) fstest.MapFS {
		return fstest.MapFS{"dev/infiniband/rdma_cm": file(""), "proc/1/comm": file("systemd\n"), "proc/7/comm": file("containerd\n"),
			"proc/7/limits": file(fmt.Sprintf(limits, limit, limit))}
	}
	inEngine := containerd("8388608")
	inEngine["etc/docker/daemon.json"] = file(`{"default-ulimits": {"memlock": {"Name": "memlock", "Hard": -1, "Soft": -1}}}`)
	uses := []admin.Network{{Name: "fast", Devices: []string{"ens1f0np0"}}, {Name: "slow", Devices: []string{"ens2f0"}}}
	noFile := func(n int) string {
		return fmt.Sprintf("warn mlx5_%d has no file uverbs in /dev/infiniband: no program can use it; modprobe ib_uverbs", n)
	}
	const exclusive = "ok 3 devices, netns mode exclusive: a container has that of its VF alone, if the plugin sees the engine's network namespaces (docs/hpc.md); "
	const shared = "warn netns mode is shared: with /dev/infiniband, containers of network fast see all 3 RDMA devices of the host, and not only their own; " +
		"docs/hpc.md says how to set exclusive mode"
	for _, c := range []struct {
		exclusive, noFiles bool
		root               fstest.MapFS
		networks           []admin.Network
		want               []string
	}{
		{false, false, fstest.MapFS{}, uses[1:], []string{"ok 3 devices, netns mode shared; no network uses them; "}},
		{true, false, containerd("unlimited"), uses, []string{exclusive}},
		{true, true, inEngine, uses, []string{exclusive, noFile(0), noFile(1), noFile(2)}},
		{true, false, inEngine, uses, []string{exclusive}},
		{false, false, containerd("8388608"), uses, []string{shared,
			"warn containers may lock 8.0 MiB of memory, and RDMA programs lock their buffers; docker run --ulimit memlock=-1"}},
		{false, false, fstest.MapFS{}, uses, []string{shared, "warn /dev/infiniband/rdma_cm is missing: programs cannot connect by IP address; modprobe rdma_ucm"}},
	} {
		_, host, r := connectX(t, c.exclusive, c.noFiles)
		found, err := checkRDMA(host, r, c.root, nil, c.networks)
		if err != nil {
			t.Fatal(err)
		}
		var got []string
		for _, f := range found {
			got = append(got, f.Severity+" "+f.Text+"; "+f.Remedy)
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%+v (-want +got):\n%s", c, diff)
		}
	}
	k := hwtest.New(t)
	k.AddPF(hwtest.PF{Name: "ens2f0", PCI: "0000:02:00.0", TotalVFs: 7, Up: true})
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if found, err := checkRDMA(host, rdma.New(k.Sys, k.RDMA()), fstest.MapFS{}, nil, uses); found != nil || err != nil {
		t.Errorf("without RDMA: %+v, %v", found, err)
	}
}

// TestDoctorKnowsGIDs: a device of the host with GIDs of network devices in other namespaces is a warning. Those that all devices have of
// their MAC do not count, nor those of InfiniBand and of devices that are in a container themselves.
func TestDoctorKnowsGIDs(t *testing.T) {
	k, _, r := connectX(t, false, false)
	k.AddPF(hwtest.PF{Name: "ib0", PCI: "0000:03:00.0", Behaviour: hwtest.IPoIB(), Driver: "mlx5_core", Up: true})
	devices, err := r.Devices()
	if err != nil {
		t.Fatal(err)
	}
	_, vf, _ := k.Netdev(devices[2].PCI)
	if err = k.MoveToNS("c1", vf.Name, "eth0"); err != nil {
		t.Fatal(err)
	}
	for device, gids := range map[string][]string{
		"mlx5_0": {"fe80:0000:0000:0000:0202:c9ff:fe00:0001 ens1f0np0", "0000:0000:0000:0000:0000:ffff:c0a8:0001 ens1f0np0",
			"0000:0000:0000:0000:0000:0000:0000:0000 ", "0000:0000:0000:0000:0000:ffff:0a09:0002 eth0", "2001:0db8:0000:0000:0000:0000:0000:0002 eth0"},
		"mlx5_2": {"0000:0000:0000:0000:0000:ffff:0a09:0003 eth0"},
		"mlx5_3": {"fec0:0000:0000:0000:0002:c903:00a1:0003 "},
	} {
		for i, gid := range gids {
			text, netdev, _ := strings.Cut(gid, " ")
			k.AddGID(device, i, text, netdev)
		}
	}
	if devices, err = r.Devices(); err != nil {
		t.Fatal(err)
	}
	here := []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("192.168.0.1")}
	found, err := checkGIDs(r, devices, here)
	want := []finding{{warning, "rdma", "mlx5_0 has 2 GIDs of other network namespaces, such as 3, 10.9.0.2 of eth0: a program that takes one by its index " +
		"from outside of its namespace transfers nothing", "choose one by gid_attrs/ndevs and its address, or connect with rdma_cm"}}
	if diff := cmp.Diff(want, found); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

// TestDoctorKnowsNamespaces: in exclusive mode a managed plugin that was not given the engine's network namespaces is a warning.
func TestDoctorKnowsNamespaces(t *testing.T) {
	for _, c := range []struct {
		exclusive bool
		source    string
		want      int
	}{{true, "/proc/irq", 1}, {true, "/var/run/docker/netns", 0}, {true, netnsFolder, 0}, {false, "/proc/irq", 0}} {
		_, _, r := connectX(t, c.exclusive, false)
		if found := checkNamespaces(r, c.source); len(found) != c.want {
			t.Errorf("%+v: %+v", c, found)
		}
	}
}
