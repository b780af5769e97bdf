//go:build kernel

package rtnl_test

import (
	"errors"
	"net"
	"os"
	"reflect"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/test/harness/bpfprog"
	"github.com/mellanox/passthrough/test/harness/sandbox"
)

// handOver hands one end of a veth pair over to a container as a whole device.
func handOver(t *testing.T) (*world, *hw.Host, hw.Netdev, hw.Snapshot) {
	t.Helper()
	w := newWorld(t)
	w.Add(t, "veth", "ct0", "ct1")
	h := openHost(t)
	n, err := h.Netdev("ct0")
	if err != nil {
		t.Fatal(err)
	}
	was, err := h.SnapshotNetdev(n)
	err = errors.Join(err, h.SnapshotUses(n, &was))
	if err == nil {
		_, err = h.PrepareNetdev(n.ID, "")
	}
	if err == nil {
		_, err = h.HandOver(n, was)
	}
	if err != nil {
		t.Fatal(err)
	}
	away, err := h.Find(n.ID)
	if err == nil {
		err = w.MoveToNS("tenant", away.Name, "eth0")
	}
	if err != nil {
		t.Fatal(err)
	}
	return w, h, n, was
}

// home brings the device back, as docker network disconnect does.
func (w *world) home(t *testing.T) {
	t.Helper()
	if err := w.MoveHome("tenant", "eth0", "ct0"); err != nil {
		t.Fatal(err)
	}
}

// TestChildLeftBehind: a container that is disconnected while it runs has a child on its device. It is removed in its namespace.
func TestChildLeftBehind(t *testing.T) {
	w, h, n, was := handOver(t)
	in := w.spaces["tenant"].NL
	addChild(t, in)
	w.home(t)
	if err := h.CleanNetdev(n.ID, was); err != nil {
		t.Fatal(err)
	}
	if l, err := in.LinkByName("left"); err == nil {
		t.Errorf("the container still has %+v", l.Attrs())
	}
	if err := h.RestoreNetdev(n.ID, was); err != nil {
		t.Error(err)
	}
}

// addChild makes a macvlan on eth0 in a namespace.
func addChild(t *testing.T, in *netlink.Handle) netlink.Link {
	t.Helper()
	eth0, err := in.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.ParentIndex = "left", eth0.Attrs().Index
	l := &netlink.Macvlan{LinkAttrs: attrs, Mode: netlink.MACVLAN_MODE_BRIDGE}
	if err := errors.Join(in.LinkAdd(l), in.LinkSetUp(l)); err != nil {
		t.Fatal(err)
	}
	return l
}

// TestChildOutOfReach: a child in a namespace that the host does not know is found all the same, and named.
func TestChildOutOfReach(t *testing.T) {
	w, h, n, was := handOver(t)
	in := w.spaces["tenant"].NL
	deep, err := sandbox.New()
	if err != nil {
		t.Fatal(err)
	}
	if err := in.LinkSetNsFd(addChild(t, in), int(deep.FD)); err != nil {
		t.Fatal(err)
	}
	w.home(t)
	const want = "its container has left a macvlan or ipvlan on it, in a namespace that the host does not know"
	if err := h.CleanNetdev(n.ID, was); err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("error is %v", err)
	}
	deep.End() // the kernel takes a while
	if err := retry.Poll(t.Context(), 20*time.Millisecond, 10*time.Second, func() (bool, error) {
		err = h.CleanNetdev(n.ID, was)
		return err == nil, nil
	}); err != nil {
		t.Error(err)
	}
	if links, err := net.Interfaces(); err != nil || len(links) != 3 {
		t.Errorf("the host has %v, %v", links, err)
	}
}

// TestXDPLeftBehind: an XDP program that a container has attached is detached; one of the host stays.
func TestXDPLeftBehind(t *testing.T) {
	for name, mode := range map[string]int{"skb": nl.XDP_FLAGS_SKB_MODE, "driver": nl.XDP_FLAGS_DRV_MODE} {
		t.Run(name, func(t *testing.T) {
			w, h, n, was := handOver(t)
			w.attachXDP(t, mode)
			w.home(t)
			before, err := h.Find(n.ID)
			if err != nil || before.XDP == (hw.XDP{}) {
				t.Fatalf("attached: %+v, %v", before, err)
			}
			ofHost := was
			ofHost.XDP = before.XDP
			if err := h.CleanNetdev(n.ID, ofHost); err != nil {
				t.Fatal(err)
			}
			if now, err := h.Find(n.ID); err != nil || now.XDP != before.XDP {
				t.Errorf("that of the host: %+v, %v", now, err)
			}
			if err := h.CleanNetdev(n.ID, was); err != nil {
				t.Fatal(err)
			}
			if now, err := h.Find(n.ID); err != nil || now.XDP != (hw.XDP{}) {
				t.Errorf("that of the container: %+v, %v", now, err)
			}
		})
	}
}

// attachXDP attaches an XDP program to the tenant's eth0.
func (w *world) attachXDP(t *testing.T, mode int) {
	t.Helper()
	program, err := loadProgram(t, unix.BPF_PROG_TYPE_XDP)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.spaces["tenant"].NL.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	w.inTenant(t, func() error { return netlink.LinkSetXdpFdWithFlags(l, int(program.Fd()), mode) })
}

// inTenant calls do on a thread that is in the tenant's namespace.
func (w *world) inTenant(t *testing.T, do func() error) {
	t.Helper()
	err := errors.New("it called FailNow")
	done := make(chan struct{})
	go func() { // the thread ends with the goroutine
		defer close(done)
		runtime.LockOSThread()
		if set := netns.Set(w.spaces["tenant"].FD); set != nil {
			err = set
			return
		}
		err = do()
	}()
	if <-done; err != nil {
		t.Fatal(err)
	}
}

// loadProgram loads a program that returns 2. It may be called outside of the test's goroutine.
func loadProgram(t *testing.T, kind uint32) (*os.File, error) {
	f, err := bpfprog.Load(kind)
	if err == nil {
		t.Cleanup(func() { f.Close() })
	}
	return f, err
}

// attachTCX attaches a tcx program that drops to a link in the calling thread's namespace: after the others, or held by the file that it
// returns, as a process of the container does.
func attachTCX(t *testing.T, index int, kind uint32, held bool) (link *os.File, _ error) {
	program, err := loadProgram(t, unix.BPF_PROG_TYPE_SCHED_CLS)
	if err != nil {
		return nil, err
	}
	attr := struct{ ifindex, program, kind, flags uint32 }{uint32(index), uint32(program.Fd()), kind, 0}
	command := uintptr(unix.BPF_PROG_ATTACH)
	if held {
		command, attr.ifindex, attr.program = unix.BPF_LINK_CREATE, attr.program, attr.ifindex
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, command, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	if errno != 0 {
		return nil, errno
	}
	if held {
		link = os.NewFile(fd, "link")
		t.Cleanup(func() { link.Close() })
	}
	return link, nil
}

// withNetAdmin calls do on a thread that has CAP_NET_ADMIN and no other capability, as the plugin.
func withNetAdmin(do func() error) error {
	done := make(chan error)
	go func() { // the thread ends with the goroutine
		runtime.LockOSThread()
		only := [2]unix.CapUserData{{Effective: 1 << unix.CAP_NET_ADMIN, Permitted: 1 << unix.CAP_NET_ADMIN}}
		err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &only[0])
		if err == nil {
			err = do()
		}
		done <- err
	}()
	return <-done
}

// TestTCXLeftBehind: tcx programs that a container has attached are detached, from any place between those of the host. One that a
// process of the container holds keeps the device out of use until that ends. CAP_NET_ADMIN is enough.
func TestTCXLeftBehind(t *testing.T) {
	w := newWorld(t)
	w.Add(t, "veth", "ct0", "ct1")
	h, k := openHost(t), openKernel(t, sys, "")
	n, err := h.Netdev("ct0")
	if err != nil {
		t.Fatal(err)
	}
	attach := func(index int, kind uint32) {
		t.Helper()
		if _, err := attachTCX(t, index, kind, false); err != nil {
			t.Error(err)
		}
	}
	attached := func(index int) []hw.Control {
		t.Helper()
		controls, err := k.Controls(index)
		if err != nil {
			t.Fatal(err)
		}
		return slices.DeleteFunc(controls, func(c hw.Control) bool { return c.Kind != hw.ControlTCX })
	}
	attach(n.Index, unix.BPF_TCX_INGRESS)
	was, err := h.SnapshotNetdev(n)
	if err = errors.Join(err, h.SnapshotUses(n, &was)); err != nil {
		t.Fatal(err)
	}
	of := attached(n.Index)
	if len(of) != 1 || !strings.HasSuffix(of[0].Name, " (ingress)") {
		t.Fatalf("of the host: %v", of)
	}
	if err := w.MoveToNS("tenant", "ct0", "eth0"); err != nil {
		t.Fatal(err)
	}
	eth0, err := w.spaces["tenant"].NL.LinkByName("eth0")
	if err != nil {
		t.Fatal(err)
	}
	var held *os.File
	w.inTenant(t, func() (err error) {
		inside := eth0.Attrs().Index
		for _, kind := range []uint32{unix.BPF_TCX_INGRESS, unix.BPF_TCX_INGRESS, unix.BPF_TCX_EGRESS, unix.BPF_TCX_EGRESS} {
			attach(inside, kind)
		}
		held, err = attachTCX(t, inside, unix.BPF_TCX_EGRESS, true)
		return err
	})
	w.home(t)
	if n, err = h.Netdev("ct0"); err != nil {
		t.Fatal(err)
	}
	if all := attached(n.Index); len(all) != 6 {
		t.Fatalf("the move has changed %v", all)
	}
	err = withNetAdmin(func() error { return h.CleanNetdev(n.ID, was) })
	if err == nil || !strings.Contains(err.Error(), "(egress), which its container has left: ") || !errors.Is(err, hw.ErrBusy) {
		t.Errorf("error is %v", err)
	}
	if all := attached(n.Index); len(all) != 2 {
		t.Errorf("left is %v", all)
	}
	held.Close()
	if err := retry.Poll(t.Context(), 20*time.Millisecond, 10*time.Second, func() (bool, error) { // the kernel takes a while
		return h.CleanNetdev(n.ID, was) == nil, nil
	}); err != nil {
		t.Error(err)
	}
	if all := attached(n.Index); len(all) != 1 || all[0].Name != of[0].Name {
		t.Errorf("left is %v, want %v", all, of)
	}
}

// TestTuningLeftBehind: what a container has set with ethtool, and no option, is as before.
func TestTuningLeftBehind(t *testing.T) {
	w, h, n, was := handOver(t)
	k := openKernel(t, sys, "")
	w.home(t)
	now, err := h.Find(n.ID)
	if err != nil {
		t.Fatal(err)
	}
	before, err := k.Tuning(now.Index)
	if err != nil {
		t.Fatal(err)
	}
	for a, to := range map[hw.TuningAttr]hw.Tuning{
		hw.TuningQueues: {Queues: hw.Queues{Rx: 2, Tx: 2}},
		hw.TuningFeatures: {Features: map[string]hw.Feature{"rx-gro": {Wanted: !before.Features["rx-gro"].Wanted},
			"tx-tcp-segmentation": {}}},
	} {
		if err := k.SetTuning(now.Index, a, to); err != nil {
			t.Fatal(err)
		}
	}
	if err := h.CleanNetdev(n.ID, was); err != nil {
		t.Fatal(err)
	}
	if after, err := k.Tuning(now.Index); err != nil || !reflect.DeepEqual(after, before) {
		t.Errorf("%+v, %v\nwant %+v", after, err, before)
	}
}
