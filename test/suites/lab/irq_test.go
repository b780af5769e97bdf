//go:build lab

package lab

import (
	"regexp"
	"strings"
	"testing"
	"time"

	. "github.com/mellanox/passthrough/test/harness/dockertest"
)

// interrupts are where those of a PCI function go, in order of their numbers, "-" for one that was never requested.
func interrupts(t *testing.T, pci string) string {
	t.Helper()
	return Sh(t, `for i in $(ls /sys/bus/pci/devices/`+pci+`/msi_irqs | sort -n); do
cat /proc/irq/$i/smp_affinity_list 2>/dev/null || echo -; done | xargs`)
}

// inside runs ethtool on a container's device.
func inside(t *testing.T, container string, args ...string) string {
	t.Helper()
	pid := Inspect(t, container, "{{.State.Pid}}")
	return Run(t, "nsenter", append([]string{"--net=/proc/" + pid + "/ns/net", "ethtool"}, args...)...)
}

// TestCores: a VF's interrupts go to the CPUs that were asked for while the container has it, also after it has been
// moved, brought up and used. When it is back it is bound again, also after the engine was killed: its interrupts are others, which are not
// requested before it is brought up.
func TestCores(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=2", "-o", "cores=0,1")
	Container(t, "one1", "--net", "n")
	Container(t, "two2", "--network", "name=n,driver-opt=cores=1")
	one, two := deviceOf(t, "one1"), deviceOf(t, "two2")
	placed := func(when string) {
		t.Helper()
		Reaches(t, "one1", Address(t, "two2", "n"), 5*time.Second)
		if a, b := interrupts(t, one), interrupts(t, two); a != "0 1 0" || b != "1 1 1" {
			t.Errorf("%s: interrupts go to %q and %q", when, a, b)
		}
	}
	placed("lent")
	Docker(t, "stop", "-t1", "one1")
	home := func() string {
		if got := interrupts(t, one); got != "- - -" {
			return "interrupts of the vf that is back go to " + got
		}
		return ""
	}
	Within(t, 10*time.Second, home)
	Docker(t, "start", "one1")
	one = deviceOf(t, "one1")
	placed("lent again")
	Run(t, "engine", "kill")
	Run(t, "engine", "start")
	Within(t, 30*time.Second, home)
	for value, want := range map[string]string{
		"7":    "option cores: cpu 7 does not exist or is offline; online are 0-1",
		"many": `option cores: "many" is not allowed; allowed: CPUs such as 2,4-7, numa or none`,
	} {
		Refused(t, want, "network", "create", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.9.0.0/24", "-o", "netdevice="+pf,
			"-o", "cores="+value, "refused")
	}
}

// TestTuning: what igbvf supports is set, and restored when the VF is back; what it does not support is an error.
func TestTuning(t *testing.T) {
	asBefore(t)
	sriov(t, "n", "10.1.0.0/24", "-o", "numvfs=2", "-o", "ring_rx=512", "-o", "ethtool=gro=off,tso=off")
	Container(t, "one1", "--network", "name=n,driver-opt=ring_tx=2048")
	rings, features := strings.Join(strings.Fields(inside(t, "one1", "-g", "eth0")), " "), inside(t, "one1", "-k", "eth0")
	if _, now, _ := strings.Cut(rings, "Current"); !strings.Contains(now, "RX: 512 ") || !strings.Contains(now, "TX: 2048 ") {
		t.Errorf("rings are %s", rings)
	}
	for _, want := range []string{"generic-receive-offload: off\n", "tcp-segmentation-offload: off\n",
		"generic-segmentation-offload: on\n"} {
		if !strings.Contains(features, want) {
			t.Errorf("want %s of %s", want, features)
		}
	}
	Docker(t, "rm", "-f", "one1")
	Within(t, 10*time.Second, func() string {
		now, err := Try("sh", "-c", "ethtool -g "+pf+"v0 | tail -12 | xargs; ethtool -k "+pf+"v0")
		if err != nil { // its driver is bound anew
			return err.Error()
		}
		for _, want := range []string{"RX: 1024 ", "TX: 1024 ", "generic-receive-offload: on\n", "tcp-segmentation-offload: on\n"} {
			if !strings.Contains(now, want) {
				return "want " + want + " of " + now
			}
		}
		return ""
	})
	vf := pf + "v0 (igbvf): "
	for option, want := range map[string]string{
		"queues=2":        vf + "set queues 2: their number cannot be changed: not supported by the driver",
		"ring_rx=5000":    vf + "set rings 5000 rx, 1024 tx: they can be at most 4096 rx, 4096 tx",
		"ring_rx=100":     vf + "set rings 100 rx, 1024 tx: the device says 104 rx, 1024 tx",
		"ethtool=lro=on":  vf + "set features lro=on: lro is always off; what can be changed is rx, tx, sg, tso, gso, gro",
		"ethtool=wifi=on": vf + "set features wifi=on: the kernel knows no wifi; ethtool -k lists the names",
	} {
		Refused(t, want, "run", "--rm", "--network", "name=n,driver-opt="+option, "lab", "true")
	}
}

// TestWholeDeviceTuned: igb takes other interrupts for another number of queues, and those are spread. The device is down
// before, so that it has requested none.
func TestWholeDeviceTuned(t *testing.T) {
	asBefore(t)
	pci := Sh(t, "basename $(readlink /sys/class/net/"+another+"/device)")
	queues := func() string { return Sh(t, "ethtool -l "+another+" | tail -1 | xargs") }
	before := queues()
	if before != "Combined: 2" {
		t.Fatalf("%s has %s", another, before)
	}
	Refused(t, another+" (igb): set queues 9: it can have at most 8", "network", "create", "-d", Plugin,
		"--ipam-driver", Plugin, "--subnet", "10.9.0.0/24", "-o", "netdevice="+another, "-o", "mode=passthrough", "-o", "queues=9",
		"refused")
	Network(t, "whole", "-d", Plugin, "--ipam-driver", Plugin, "--subnet", "10.7.0.0/24", "-o", "netdevice="+another,
		"-o", "mode=passthrough", "-o", "queues=1", "-o", "ethtool=rxvlan=off", "-o", "cores=numa",
		"-o", "private_flags=legacy-rx=on")
	Container(t, "db1", "--net", "whole")
	if got := inside(t, "db1", "-l", "eth0"); !strings.HasSuffix(strings.Join(strings.Fields(got), " "), "Combined: 1") {
		t.Errorf("in the container: %s", got)
	}
	if got := interrupts(t, pci); got != "0 1 0" {
		t.Errorf("interrupts go to %s", got)
	}
	if got := inside(t, "db1", "--show-priv-flags", "eth0"); !regexp.MustCompile(`legacy-rx *: on`).MatchString(got) {
		t.Errorf("in the container: %s", got)
	}
	Docker(t, "rm", "-f", "db1")
	Within(t, 10*time.Second, func() string {
		now := queues() + Sh(t, "ethtool -k "+another+" | grep rx-vlan-offload; ethtool --show-priv-flags "+another+" | grep -o 'legacy-rx *: on' || true")
		if now != before+"rx-vlan-offload: on" {
			return "back it has " + now
		}
		return ""
	})
}
