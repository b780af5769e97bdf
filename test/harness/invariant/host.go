package invariant

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Host is the network devices in the namespace of the host, and the PFs' VFs wherever they are.
type Host struct {
	Devices map[string]Device // by name
	PFs     map[string]PF     // by PCI address
}

// Device is a link.
type Device struct {
	Name, Kind, Alias, MAC string
	PCI                    string // "" for one that is no PCI function
	Master, On             string // names of the bond or bridge, and of the device below; "" for none
	MTU, TxQLen            int
	GSOMaxSize, GROMaxSize int
	Up, Promisc, AllMulti  bool
	XDP                    bool // an XDP program is attached
	Addrs, Routes          []string
	announced              []string // destinations of the plugin's own routes
}

// PF is a PCI function that can have VFs.
type PF struct {
	Name      string
	NumVFs    int
	Autoprobe string
	VFs       []VF
}

// VF is one of a PF's VFs.
type VF struct {
	PCI, Driver, Override string
	Netdev                string // its name in the host; "" while it has none here
	MAC                   string // as the PF has it
	VLAN, QoS             int
	MaxRate, MinRate      int
	Spoofchk, Trust       bool
	LinkState             string
}

// away returns whether a VF is in another namespace.
func (v VF) away() bool { return v.Driver != "" && v.Netdev == "" && v.Driver != "vfio-pci" }

// ipLink has the fields of "ip -j -d link" that are used here.
type ipLink struct {
	Name   string   `json:"ifname"`
	Flags  []string `json:"flags"`
	Master string   `json:"master"`
	On     string   `json:"link"`
	MTU    int      `json:"mtu"`
	TxQLen int      `json:"txqlen"`
	GSO    int      `json:"gso_max_size"`
	GRO    int      `json:"gro_max_size"`
	MAC    string   `json:"address"`
	Alias  string   `json:"ifalias"`
	XDP    any      `json:"xdp"`
	Info   struct {
		Kind string `json:"info_kind"`
	} `json:"linkinfo"`
	VFs []ipVF `json:"vfinfo_list"`
}

// ipVF is a VF in an ipLink.
type ipVF struct {
	VF    int    `json:"vf"`
	MAC   string `json:"address"`
	VLANs []struct {
		ID  int `json:"vlan"`
		QoS int `json:"qos"`
	} `json:"vlan_list"`
	Rate struct {
		Max int `json:"max_tx"`
		Min int `json:"min_tx"`
	} `json:"rate"`
	Spoofchk  bool   `json:"spoofchk"`
	Trust     bool   `json:"trust"`
	LinkState string `json:"link_state"`
}

// ipAddrs has the fields of "ip -j addr" that are used here.
type ipAddrs struct {
	Name  string `json:"ifname"`
	Addrs []struct {
		Local  string `json:"local"`
		Len    int    `json:"prefixlen"`
		Family string `json:"family"`
		Scope  string `json:"scope"`
	} `json:"addr_info"`
}

// ipRoute has the fields of "ip -j route" that are used here.
type ipRoute struct {
	Dst      string `json:"dst"`
	Gateway  string `json:"gateway"`
	Dev      string `json:"dev"`
	Protocol string `json:"protocol"`
	Metric   int    `json:"metric"`
	Table    string `json:"table"` // "" for the main one
}

// ReadHost reads the host whose namespace this thread is in, with its sysfs at /sys.
func ReadHost() (*Host, error) {
	var links []ipLink
	var addrs []ipAddrs
	var routes []ipRoute
	err := ip(question{"link show", &links}, question{"addr show", &addrs}, question{"route show table all", &routes})
	if err != nil {
		return nil, err
	}
	h := &Host{Devices: map[string]Device{}, PFs: map[string]PF{}}
	for _, l := range links {
		d := Device{Name: l.Name, Kind: l.Info.Kind, Alias: l.Alias, MAC: l.MAC, Master: l.Master, On: l.On, MTU: l.MTU,
			TxQLen: l.TxQLen, GSOMaxSize: l.GSO, GROMaxSize: l.GRO, Up: slices.Contains(l.Flags, "UP"), Promisc: slices.Contains(l.Flags, "PROMISC"),
			AllMulti: slices.Contains(l.Flags, "ALLMULTI"), XDP: l.XDP != nil}
		if d.Kind == "veth" { // its other end, which may be elsewhere at times
			d.On = ""
		}
		if dir, err := filepath.EvalSymlinks("/sys/class/net/" + l.Name + "/device"); err == nil {
			d.PCI = lastPCI(dir)
		}
		h.Devices[l.Name] = d
		if pf, ok := readPF(d, l.VFs); ok {
			h.PFs[d.PCI] = pf
		}
	}
	h.addAddrs(addrs)
	h.addRoutes(routes)
	return h, nil
}

// question is a command of iproute2 and the destination of its output.
type question struct {
	command string
	into    any
}

// ip runs several commands of iproute2 in one process: in the lab a process takes long to start. Routes are of both families.
func ip(questions ...question) error {
	cmd := exec.Command("ip", "-j", "-d", "-batch", "-")
	var ask strings.Builder
	for _, q := range questions {
		ask.WriteString(q.command + "\n")
	}
	cmd.Stdin = strings.NewReader(ask.String())
	out, err := cmd.Output()
	answers := json.NewDecoder(bytes.NewReader(out))
	for _, q := range questions {
		if err == nil {
			err = answers.Decode(q.into)
		}
		if err != nil {
			return fmt.Errorf("ip %s: %w", q.command, err)
		}
	}
	return nil
}

// pciAddress matches a PCI address in a path of sysfs.
var pciAddress = regexp.MustCompile(`[0-9a-f]{4}:[0-9a-f]{2}:[0-9a-f]{2}\.[0-7]`)

// lastPCI returns the last PCI address in a path; those before it are bridges.
func lastPCI(path string) string {
	if all := pciAddress.FindAllString(path, -1); len(all) > 0 {
		return all[len(all)-1]
	}
	return ""
}

// readPF reads a device's VFs; ok is false if it cannot have VFs.
func readPF(d Device, states []ipVF) (pf PF, ok bool) {
	dir := "/sys/bus/pci/devices/" + d.PCI
	if d.PCI == "" || attribute(dir+"/sriov_totalvfs") == "" {
		return PF{}, false
	}
	pf = PF{Name: d.Name, Autoprobe: attribute(dir + "/sriov_drivers_autoprobe")}
	pf.NumVFs, _ = strconv.Atoi(attribute(dir + "/sriov_numvfs"))
	for i := range pf.NumVFs {
		target, err := os.Readlink(fmt.Sprintf("%s/virtfn%d", dir, i))
		if err != nil {
			break // it is being created or removed
		}
		vf := VF{PCI: filepath.Base(target)}
		vfDir := "/sys/bus/pci/devices/" + vf.PCI
		if driver, err := os.Readlink(vfDir + "/driver"); err == nil {
			vf.Driver = filepath.Base(driver)
		}
		if vf.Override = attribute(vfDir + "/driver_override"); vf.Override == "(null)" {
			vf.Override = ""
		}
		if names, err := filepath.Glob(vfDir + "/net/*"); err == nil && len(names) > 0 {
			vf.Netdev = filepath.Base(names[0])
		}
		if names, err := filepath.Glob(vfDir + "/virtio*/net/*"); err == nil && len(names) > 0 {
			vf.Netdev = filepath.Base(names[0])
		}
		for _, s := range states {
			if s.VF == i {
				vf.set(s)
			}
		}
		pf.VFs = append(pf.VFs, vf)
	}
	return pf, true
}

// set copies what the PF reports about a VF.
func (v *VF) set(s ipVF) {
	v.MAC, v.Spoofchk, v.Trust, v.LinkState = s.MAC, s.Spoofchk, s.Trust, s.LinkState
	v.MaxRate, v.MinRate = s.Rate.Max, s.Rate.Min
	for _, vlan := range s.VLANs {
		v.VLAN, v.QoS = vlan.ID, vlan.QoS
	}
}

// attribute reads a file of sysfs; "" if there is none.
func attribute(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// addAddrs adds the addresses that the kernel did not set itself.
func (h *Host) addAddrs(all []ipAddrs) {
	for _, l := range all {
		d, ok := h.Devices[l.Name]
		if !ok {
			continue
		}
		for _, a := range l.Addrs {
			if a.Family == "inet" || a.Scope == "global" {
				d.Addrs = append(d.Addrs, fmt.Sprintf("%s/%d", a.Local, a.Len))
			}
		}
		slices.Sort(d.Addrs)
		h.Devices[l.Name] = d
	}
}

// ownNumber is the plugin's routing table, and the protocol of the routes that it adds there.
const ownNumber = "117"

// addRoutes adds the routes that the kernel did not set itself. Those that it does have protocol kernel and no metric, or 256 with IPv6;
// NetworkManager sets connected routes with protocol kernel and a metric of its own.
func (h *Host) addRoutes(all []ipRoute) {
	for _, r := range all {
		own := r.Protocol == "ra" || r.Protocol == "kernel" && (r.Metric == 0 || r.Metric == 256)
		d, ok := h.Devices[r.Dev]
		switch {
		case ok && r.Table == ownNumber && r.Protocol == ownNumber:
			d.announced = append(d.announced, r.Dst)
			h.Devices[r.Dev] = d
		case ok && !own:
			d.Routes = append(d.Routes, fmt.Sprintf("%s via %s metric %d", r.Dst, r.Gateway, r.Metric))
			slices.Sort(d.Routes)
			h.Devices[r.Dev] = d
		}
	}
}
