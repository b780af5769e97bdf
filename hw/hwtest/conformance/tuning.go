package conformance

import (
	"io/fs"
	"path"
	"strconv"
	"syscall"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// tuning reads how a link is tuned.
func (m machine) tuning(t *testing.T, name string) hw.Tuning {
	t.Helper()
	tuning, err := m.Tuning(m.link(t, name).Index)
	done(t, "read tuning", err)
	return tuning
}

// tune changes how a link is tuned, which has to succeed.
func (m machine) tune(t *testing.T, name string, want hw.Tuning, attrs ...hw.TuningAttr) {
	t.Helper()
	for _, a := range attrs {
		done(t, a.Op(want), m.SetTuning(m.link(t, name).Index, a, want))
	}
}

func testQueues(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	was := m.tuning(t, "ct0")
	if was.Queues != (hw.Queues{Rx: 1, Tx: 1}) || was.MaxQueues.Combined != 0 || was.MaxQueues.Rx < 2 || was.MaxQueues.Tx < 2 {
		t.Fatalf("a veth end has queues %+v of %+v", was.Queues, was.MaxQueues)
	}
	if was.Rings != (hw.Rings{}) || was.MaxRings != (hw.Rings{}) {
		t.Errorf("a veth end has rings %+v of %+v", was.Rings, was.MaxRings)
	}
	for _, q := range []hw.Queues{{Rx: 2, Tx: 2}, {Rx: 1, Tx: 1}} {
		m.tune(t, "ct0", hw.Tuning{Queues: q}, hw.TuningQueues)
		if now := m.tuning(t, "ct0").Queues; now != q {
			t.Errorf("queues are %v, want %v", now, q)
		}
	}
	if now := m.tuning(t, "ct1").Queues; now != was.Queues {
		t.Errorf("the other end has %v, but it was not changed", now)
	}
}

func testFeatures(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	was := m.tuning(t, "ct0").Features
	for name, want := range map[string]hw.Feature{
		"tx-tcp-segmentation": {Active: true, Wanted: true}, "tx-scatter-gather": {Active: true, Wanted: true},
		"tx-generic-segmentation": {Active: true, Wanted: true}, "rx-lro": {Fixed: true},
	} {
		if got, ok := was[name]; !ok || got != want {
			t.Errorf("%s is %+v, %v; want %+v", name, got, ok, want)
		}
	}
	gro := !was["rx-gro"].Active
	m.tune(t, "ct0", hw.Tuning{Features: map[string]hw.Feature{"rx-gro": {Wanted: gro}, "tx-tcp-segmentation": {Wanted: false}}}, hw.TuningFeatures)
	now := m.tuning(t, "ct0").Features
	if now["rx-gro"].Active != gro || now["tx-tcp-segmentation"] != (hw.Feature{}) || !now["tx-tcp6-segmentation"].Active {
		t.Errorf("features are %+v", now)
	}
	m.tune(t, "ct0", hw.Tuning{Features: map[string]hw.Feature{"rx-gro": {Wanted: !gro}, "tx-tcp-segmentation": {Wanted: true}}}, hw.TuningFeatures)
	for name, f := range m.tuning(t, "ct0").Features {
		if f != was[name] {
			t.Errorf("%s is %+v, was %+v", name, f, was[name])
		}
	}
}

func testNeeds(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.tune(t, "ct0", hw.Tuning{Features: map[string]hw.Feature{"tx-scatter-gather": {Wanted: false}}}, hw.TuningFeatures)
	now := m.tuning(t, "ct0").Features
	if now["tx-tcp-segmentation"] != (hw.Feature{Wanted: true}) || now["tx-generic-segmentation"] != (hw.Feature{Wanted: true}) {
		t.Errorf("without scatter-gather: %+v, %+v", now["tx-tcp-segmentation"], now["tx-generic-segmentation"])
	}
	m.tune(t, "ct0", hw.Tuning{Features: map[string]hw.Feature{"tx-scatter-gather": {Wanted: true}}}, hw.TuningFeatures)
	if f := m.tuning(t, "ct0").Features["tx-tcp-segmentation"]; !f.Active {
		t.Errorf("with it again: %+v", f)
	}
}

func testTuningRefused(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.Add(t, "bridge", "ctbr", "")
	index := m.link(t, "ct0").Index
	most := m.tuning(t, "ct0").MaxQueues
	refused(t, "too many queues", m.SetTuning(index, hw.TuningQueues, hw.Tuning{Queues: hw.Queues{Rx: most.Rx + 1}}), hw.ErrInvalid,
		syscall.EINVAL)
	refused(t, "rings of a veth", m.SetTuning(index, hw.TuningRings, hw.Tuning{Rings: hw.Rings{Rx: 64}}), hw.ErrUnsupported,
		syscall.EOPNOTSUPP)
	refused(t, "queues of a bridge", m.SetTuning(m.link(t, "ctbr").Index, hw.TuningQueues, hw.Tuning{Queues: hw.Queues{Rx: 1}}),
		hw.ErrUnsupported)
	refused(t, "a feature that there is not", m.SetTuning(index, hw.TuningFeatures, hw.Tuning{Features: map[string]hw.Feature{"rx-magic": {Wanted: true}}}))
	done(t, "a fixed feature", m.SetTuning(index, hw.TuningFeatures, hw.Tuning{Features: map[string]hw.Feature{"rx-lro": {Wanted: true}}}))
	if f := m.tuning(t, "ct0").Features["rx-lro"]; f.Active {
		t.Errorf("a fixed feature is %+v", f)
	}
	for _, index := range []int{-1, 0, 987654} {
		_, err := m.Tuning(index)
		refused(t, "read the tuning of no link", err, hw.ErrNotFound, syscall.ENODEV)
		refused(t, "tune no link", m.SetTuning(index, hw.TuningQueues, hw.Tuning{Queues: hw.Queues{Rx: 1}}), hw.ErrNotFound, syscall.ENODEV)
	}
}

func testTuningMoves(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	m.tune(t, "ct0", hw.Tuning{Queues: hw.Queues{Rx: 2, Tx: 2}, Features: map[string]hw.Feature{"tx-tcp-segmentation": {Wanted: false}}}, hw.TuningQueues, hw.TuningFeatures)
	done(t, "move to a namespace", m.MoveToNS("c1", "ct0", "eth0"))
	done(t, "move home", m.MoveHome("c1", "eth0", "ct0"))
	now := m.tuning(t, "ct0")
	if now.Queues != (hw.Queues{Rx: 2, Tx: 2}) || now.Features["tx-tcp-segmentation"].Active {
		t.Errorf("back home: queues %v, %+v", now.Queues, now.Features["tx-tcp-segmentation"])
	}
}

func testNoControls(t *testing.T, m machine) {
	m.Add(t, "veth", "ct0", "ct1")
	index := m.link(t, "ct0").Index
	if got, err := m.Controls(index); err != nil || len(got) > 0 {
		t.Errorf("a veth end has %v, %v", got, err)
	}
	for _, c := range []hw.Control{
		{Kind: hw.ControlPrivateFlag, Name: "none", Body: []byte{1}}, {Kind: hw.ControlRSS, Body: make([]byte, 20)},
		{Kind: hw.ControlFlowRule, Name: "1", Body: make([]byte, 168)}, {Kind: hw.ControlFlowRule, Name: "1"},
	} {
		refused(t, "set "+c.String(), m.SetControl(index, c), hw.ErrUnsupported, syscall.EOPNOTSUPP)
	}
	refused(t, "detach a program that is not there", m.SetControl(index, hw.Control{Kind: hw.ControlTCX, Name: "1 (egress)"}), syscall.ENOENT)
	refused(t, "attach a program", m.SetControl(index, hw.Control{Kind: hw.ControlTCX, Name: "1 (egress)", Body: []byte{1}}), syscall.EINVAL)
	_, err := m.Controls(987654)
	refused(t, "read those of no link", err, hw.ErrNotFound)
	refused(t, "set one of no link", m.SetControl(987654, hw.Control{Kind: hw.ControlRSS}), hw.ErrNotFound)
}

func testNoIRQ(t *testing.T, m machine) {
	const unused = 1<<31 - 1
	_, err := m.Affinity(unused)
	refused(t, "look where it goes", err, hw.ErrNotFound, syscall.ENOENT)
	refused(t, "send it elsewhere", m.SetAffinity(unused, "0"), hw.ErrNotFound, syscall.ENOENT)
}

// irqs are the vectors of a function.
func (d TestPF) irqs(t *testing.T, pci string) []int {
	t.Helper()
	entries, err := fs.ReadDir(d.Sys, path.Join("bus/pci/devices", pci, "msi_irqs"))
	done(t, "list vectors", err)
	var all []int
	for _, e := range entries {
		n, err := strconv.Atoi(e.Name())
		done(t, "read the number of a vector", err)
		all = append(all, n)
	}
	return all
}

func testVFInterrupts(t *testing.T, d TestPF) {
	d.createVFs(t, 1)
	vf := d.vf(t, 0)
	d.bind(t, vf)
	irqs := d.irqs(t, vf)
	if len(irqs) != 3 {
		t.Fatalf("vectors are %v, want 3", irqs)
	}
	for _, irq := range irqs {
		_, err := d.Kernel.Affinity(irq)
		refused(t, "look at one that was never requested", err, hw.ErrNotFound, syscall.ENOENT)
	}
	done(t, "set it up", d.setUp(t, vf, true))
	done(t, "set it down", d.setUp(t, vf, false))
	where := func(when, want string) {
		t.Helper()
		for _, irq := range irqs {
			if got, err := d.Kernel.Affinity(irq); err != nil || want != "" && got != want || got == "" {
				t.Errorf("%s: interrupt %d goes to %q, %v; want %s", when, irq, got, err, want)
			}
		}
	}
	where("down again", "")
	for _, cpu := range []string{"0", "1"} {
		for _, irq := range irqs {
			done(t, "send it to a cpu", d.Kernel.SetAffinity(irq, cpu))
		}
		where("sent while down", cpu)
	}
	done(t, "set it up", d.setUp(t, vf, true))
	where("up", "1")
	done(t, "set it down", d.setUp(t, vf, false))
	where("down", "1")
	refused(t, "send it to a cpu that there is not", d.Kernel.SetAffinity(irqs[0], "4000"), hw.ErrInvalid)
	d.unbind(t, vf)
	_, err := d.Kernel.Affinity(irqs[0])
	refused(t, "look at one that has been given back", err, hw.ErrNotFound)
}

func testVFRings(t *testing.T, d TestPF) {
	d.createVFs(t, 1)
	index := d.bind(t, d.vf(t, 0)).Index
	was, err := d.Kernel.Tuning(index)
	done(t, "read tuning", err)
	fresh, most := hw.Rings{Rx: 1024, Tx: 1024}, hw.Rings{Rx: 4096, Tx: 4096}
	if was.MaxQueues != (hw.Queues{}) || was.Rings != fresh || was.MaxRings != most {
		t.Errorf("a VF has queues %v of %v, rings %v of %v", was.Queues, was.MaxQueues, was.Rings, was.MaxRings)
	}
	done(t, "set rings", d.Kernel.SetTuning(index, hw.TuningRings, hw.Tuning{Rings: hw.Rings{Rx: 100, Tx: 512}}))
	now, err := d.Kernel.Tuning(index)
	if done(t, "read tuning", err); now.Rings != (hw.Rings{Rx: 104, Tx: 512}) {
		t.Errorf("rings are %v; the driver rounds up to a multiple of 8", now.Rings)
	}
	refused(t, "rings that are too large", d.Kernel.SetTuning(index, hw.TuningRings, hw.Tuning{Rings: hw.Rings{Rx: 8192}}), hw.ErrInvalid)
	refused(t, "queues of igbvf", d.Kernel.SetTuning(index, hw.TuningQueues, hw.Tuning{Queues: hw.Queues{Combined: 2}}), hw.ErrUnsupported)
}
