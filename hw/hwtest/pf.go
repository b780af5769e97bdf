package hwtest

import (
	"cmp"
	"fmt"
	"path"
	"strconv"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/hw"
)

// A PF describes a network function on the PCI bus. What is not given is as on an igb.
type PF struct {
	Behaviour // of its driver; the zero value is IGB()

	Name      string // of its netdev
	PCI       string // "0000:01:00.0"
	MAC       hw.MAC // drawn if ""
	Up        bool   // set up from the start, with carrier unless Unplugged
	NUMANode  int    // -1 as on machines that have no nodes
	Behind    string // what is between the processor and it: "pci0000:00/0000:00:01.0", a root complex and a root port
	Unplugged bool   // it has no cable, and never has carrier
	Switchdev bool   // its eswitch is in switchdev mode: each VF has a representor, called as the PF with "n" and its PortForm behind it
	PortForm  string // of the phys_port_name of representors, such as "c1pf0vf%d"; "pf0vf%d" if ""
	Apart     bool   // representors have no parent device
	Reporters []hw.HealthReporter
	OneGroup  bool // the bus does not isolate it (no ACS): it and its VFs are in one IOMMU group

	Vendor   string // "0x8086"
	Device   string // "0x10c9"
	VFDevice string // "0x10ca"
	Driver   string // "igb"
	VFDriver string // "igbvf"
	TotalVFs int    // 0: no SR-IOV
	VFs      int    // how many there are from the start, made and probed as at boot
	VFOffset int    // of the first VF's PCI address, 0x80
	VFStride int    // 2
	PortName string // phys_port_name; "" for a driver that has none
	Port     int    // dev_port of its netdev and of its VFs'

	VFFlags   []string // private flags of a VF's netdev, off when its driver makes it
	VFQueues  int      // combined queues that a VF has and that can be reduced; 0 if they cannot be changed, as with igbvf
	LocalCPUs string   // of its NUMA node, "0-3"

	VFMAC func(vf int) hw.MAC // MAC that the firmware has set for a VF
	// ResetForgets: a reset of the PF loses what it had set for its VFs. It is the worst that a driver could do.
	ResetForgets bool
	DeadProbes   int   // how many times a VF comes up dead when it is probed
	BadVFs       []int // never have carrier

	CarrierAfter   time.Duration // from the PF being up to its carrier
	VFCarrierAfter time.Duration // from a VF being up to its carrier
	ResetTakes     time.Duration // from the number of VFs being changed to the PF's carrier being back; igb: some 0.3 s
	VFsRecover     time.Duration // from the PF's carrier to that of VFs that stayed up when it went down; igb: 10 s
	DriverAfter    time.Duration // from its being there to its driver being bound to it: only then does the host set it up
	ProbeTakes     time.Duration // from a driver being bound to its netdev
	VFDriverAfter  time.Duration // from VFs being made to their driver being loaded; less than 0 for never
	// VFOpensAfter is how long a VF cannot be set up (EBUSY) after the PF has changed its MAC, VLAN or trust: iavf resets itself for
	// each, asynchronously (iavf_open: EBUSY unless __IAVF_DOWN; net/ethernet/intel/iavf/iavf_main.c, Linux 6.12).
	VFOpensAfter time.Duration
}

// defaults returns the PF with the values of an igb for what is not given.
func (c PF) defaults() PF {
	if c.Behaviour == (Behaviour{}) {
		c.Behaviour = IGB()
	}
	if c.Virtio {
		c.Driver, c.VFDriver = cmp.Or(c.Driver, "virtio-pci"), cmp.Or(c.VFDriver, "virtio-pci")
	}
	if c.Source.Kind == SourceComposed { // of which no driver is known to refuse anything
		c.Driver, c.VFDriver = cmp.Or(c.Driver, "ice"), cmp.Or(c.VFDriver, "iavf")
	}
	c.Driver, c.VFDriver = cmp.Or(c.Driver, "igb"), cmp.Or(c.VFDriver, "igbvf")
	c.Vendor, c.Device, c.VFDevice = cmp.Or(c.Vendor, "0x8086"), cmp.Or(c.Device, "0x10c9"), cmp.Or(c.VFDevice, "0x10ca")
	c.Behind = cmp.Or(c.Behind, "pci0000:00/0000:00:01.0")
	c.LocalCPUs = cmp.Or(c.LocalCPUs, "0-3")
	c.PortForm = cmp.Or(c.PortForm, "pf0vf%d")
	c.VFOffset, c.VFStride = cmp.Or(c.VFOffset, 0x80), cmp.Or(c.VFStride, 2)
	return c
}

// A device is a function on the PCI bus, physical or virtual.
type device struct {
	addr      string
	path      string // in the tree
	netParent string // path of what its net directory is in: the function, or the virtio device on it
	conf      PF     // its own, or its PF's
	driver    string // bound to it; "" for none
	override  string // driver_override
	group     int    // its IOMMU group, from 1; 0 for none
	alone     bool   // its group is one that only vfio has made
	opened    bool   // a program has it open through vfio-pci
	net       *link  // nil while no driver has made one
	probes    int
	rdma      *rdmaDevice // nil for none
	guid      hw.GUID     // of its InfiniBand port, since it was bound
	served    bool        // the subnet manager has seen its port

	vfs       []*device // of a PF
	autoprobe bool      // of a PF

	pf       *device // of a VF
	port     *link   // of a VF: its representor; nil for none
	index    int
	state    hw.VFState // as the PF reports it
	counters hw.Counters
	adminMAC bool // state.MAC has been set by the PF, not by the VF
	off      bool // its PF has switched its link off
	dead     bool // it was probed when the PF could not serve it
	cutOff   bool // it was bound when its PF was reset, and masters the bus no more; see functionResetLocked

	resetting bool      // see ResetVFs
	opens     time.Time // a VF's netdev cannot be set up before
}

// AddPF adds a PF, bound to its driver, and its VFs.
func (k *Kernel) AddPF(c PF) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	c = c.defaults()
	if c.Source.Kind == 0 {
		k.t.Fatalf("hwtest: the behaviour of %s starts from no preset, such as IGB()", c.Name)
	}
	k.tree.file("devices/system/cpu/online", k.CPUs, nil)
	if c.MAC == "" {
		c.MAC = k.drawMAC()
		if c.InfiniBand {
			c.MAC = ipoibMAC(k, "02:c9:03:00:00:a1:b2:c3")
		}
	}
	if c.DriverAfter == 0 {
		k.loadLocked(c.Driver)
	}
	if c.TotalVFs > 0 && c.VFDriverAfter == 0 {
		k.loadLocked(c.VFDriver)
	}
	d := &device{addr: c.PCI, path: path.Join("devices", c.Behind, c.PCI), conf: c, autoprobe: true}
	k.addDeviceLocked(d)
	if c.DriverAfter > 0 {
		if c.TotalVFs > 0 {
			k.sriovFilesLocked(d)
		}
		k.afterLocked(c.DriverAfter, func() { k.loadLocked(c.Driver) })
		return
	}
	k.boundLocked(d, c.Driver)
	d.net = &link{dev: d, port: c.Port, cable: !c.Unplugged, trained: c.Up && !c.Unplugged, assign: nameRenamed, udevName: c.Name,
		Link: hw.Link{Name: c.Name, Type: "ether", MAC: c.MAC, PermMAC: c.MAC, MTU: 1500, TxQLen: 1000, Up: c.Up, Segments: segments}}
	if c.InfiniBand {
		d.net.Type, d.net.PermMAC, d.net.MTU, d.net.TxQLen = "infiniband", "", 2044, 256
	}
	k.addRDMALocked(d)
	k.registerLocked(d.net)
	k.requeueLocked(d.net, tunedLocked(d.net).Queues)
	if c.TotalVFs == 0 {
		return
	}
	k.sriovFilesLocked(d)
	if c.VFs > 0 {
		if err := k.setNumVFsLocked(d, c.VFs); err != nil {
			k.t.Errorf("hwtest: make %d VFs of %s: %v", c.VFs, c.Name, err)
		}
	}
}

// needPFLocked is the PF at a PCI address; the test ends when there is none.
func (k *Kernel) needPFLocked(pci string) *device {
	k.t.Helper()
	d := k.deviceLocked(pci)
	if d == nil {
		k.t.Fatalf("hwtest: no PF %s", pci)
	}
	return d
}

// RemovePF takes a PF off the bus, as a hot-unplug does, and its VFs with it wherever they are.
func (k *Kernel) RemovePF(pci string) {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	for len(d.vfs) > 0 {
		k.removeDeviceLocked(d.vfs[len(d.vfs)-1])
	}
	k.removeDeviceLocked(d)
}

// NumVFs is how many VFs a PF has; the test ends when there is no such PF.
func (k *Kernel) NumVFs(pci string) int {
	k.t.Helper()
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.needPFLocked(pci)
	return len(d.vfs)
}

// Netdev is where the netdev of a PCI function is: its namespace ("" is the host) and its state. ok is false when it
// has none.
func (k *Kernel) Netdev(pci string) (ns string, l hw.Link, ok bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := k.deviceLocked(pci)
	if d == nil || d.net == nil {
		return "", hw.Link{}, false
	}
	return d.net.ns, d.net.shown(), true
}

// registerLocked gives a link its ifindex and shows it.
func (k *Kernel) registerLocked(l *link) {
	k.indexes++
	l.Index = k.indexes
	k.links = append(k.links, l)
	k.appearLocked(l)
}

func (k *Kernel) deviceLocked(addr string) *device {
	for _, d := range k.devices {
		if d.addr == addr {
			return d
		}
	}
	return nil
}

// addDeviceLocked shows a function in the tree.
func (k *Kernel) addDeviceLocked(d *device) {
	k.devices = append(k.devices, d)
	d.netParent = d.path
	id := d.conf.Device
	if d.pf != nil {
		id = d.conf.VFDevice
	}
	k.tree.files(d.path, map[string]string{
		"vendor": d.conf.Vendor, "device": id, "class": "0x020000", "numa_node": strconv.Itoa(d.conf.NUMANode),
		"local_cpulist":    d.conf.LocalCPUs,
		"subsystem_vendor": d.conf.Vendor, "subsystem_device": "0xa03c",
	})
	k.tree.file(d.path+"/driver_override", "(null)", func(v string) error {
		d.override = v
		k.tree.file(d.path+"/driver_override", cmp.Or(v, "(null)"), nil)
		return nil
	})
	k.tree.link(d.path+"/subsystem", "bus/pci")
	k.tree.link("bus/pci/devices/"+d.addr, d.path)
	if !k.NoIOMMU {
		k.groupLocked(d, "")
	}
	k.showConfigLocked(d)
	if d.pf == nil {
		k.tree.file(d.path+"/reset", "", func(v string) error {
			if v != "1" {
				return syscall.EINVAL
			}
			k.functionResetLocked(d)
			return nil
		})
	}
}

// AddGPU adds a PCI function that is no NIC, of a class such as "0x030200". behind is as in [PF].
func (k *Kernel) AddGPU(pci, behind, class string, node int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	d := path.Join("devices", behind, pci)
	k.tree.files(d, map[string]string{"vendor": "0x10de", "device": "0x2330", "class": class, "numa_node": strconv.Itoa(node)})
	k.tree.link("bus/pci/devices/"+pci, d)
}

// removeDeviceLocked takes a function off the bus, with its netdev wherever that is.
func (k *Kernel) removeDeviceLocked(d *device) {
	k.unbindLocked(d)
	if d.port != nil {
		k.deleteLocked(d.port)
	}
	k.tree.remove("bus/pci/devices/" + d.addr)
	k.ungroupLocked(d)
	k.tree.remove(d.path)
	if pf := d.pf; pf != nil {
		k.tree.remove(fmt.Sprintf("%s/virtfn%d", pf.path, d.index))
		k.tree.remove(fmt.Sprintf("%s/sriov/%d", pf.path, d.index))
		pf.vfs = pf.vfs[:len(pf.vfs)-1]
	}
	for i, o := range k.devices {
		if o == d {
			k.devices = append(k.devices[:i:i], k.devices[i+1:]...)
			return
		}
	}
}

// boundLocked links a function and its driver; a virtio function gets its second level.
func (k *Kernel) boundLocked(d *device, name string) {
	d.driver, d.cutOff = name, false
	k.showConfigLocked(d)
	k.tree.link(d.path+"/driver", "bus/pci/drivers/"+name)
	k.tree.link("bus/pci/drivers/"+name+"/"+d.addr, d.path)
	if !d.conf.Virtio || name == vfioPCI {
		return
	}
	virtio := fmt.Sprintf("virtio%d", k.virtios)
	k.virtios++
	d.netParent = path.Join(d.path, virtio)
	k.tree.files(d.netParent, map[string]string{"vendor": "0x1af4", "device": "0x0001"})
	k.tree.dir("bus/virtio/drivers/virtio_net")
	k.tree.link(d.netParent+"/subsystem", "bus/virtio")
	k.tree.link(d.netParent+"/driver", "bus/virtio/drivers/virtio_net")
}

// unbindLocked takes a function from its driver; its netdev ends.
func (k *Kernel) unbindLocked(d *device) {
	if d.net != nil {
		k.deleteLocked(d.net)
	}
	if d.driver == "" {
		return
	}
	k.removeRDMALocked(d)
	k.tree.remove(d.path + "/driver")
	k.tree.remove("bus/pci/drivers/" + d.driver + "/" + d.addr)
	k.tree.remove(d.netParent + "/net")
	if d.netParent != d.path {
		k.tree.remove(d.netParent)
		d.netParent = d.path
	}
	k.takeIRQsLocked(d)
	if d.noIOMMU() {
		k.ungroupLocked(d)
	}
	d.driver, d.dead, d.cutOff, d.alone = "", false, false, false
	k.showConfigLocked(d)
}

// trainingTime is how long a link that has been set up has no carrier.
func (l *link) trainingTime() time.Duration {
	switch {
	case l.dev == nil:
		return 0
	case l.dev.pf != nil:
		return l.dev.conf.VFCarrierAfter
	default:
		return l.dev.conf.CarrierAfter
	}
}
