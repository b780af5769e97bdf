package crashpoint

import (
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// reads are the methods of [hw.Kernel] that change nothing.
var reads = []string{"Links", "LinkAt", "LinkNamed", "NetNSImmutable", "Watch", "VFs", "Switchdev", "PortVLANs", "Addrs", "Routes", "RoutesIn", "Entries", "LeftOut",
	"HealthReporters", "ChildrenElsewhere", "VFCounters", "Sysctls", "Sessions", "Neighbour", "Tuning", "DriverInfo", "Controls", "Affinity"}

// TestEveryChangeHasPoints: each method of the kernel that is not known to change nothing passes a point before the change.
func TestEveryChangeHasPoints(t *testing.T) {
	methods := reflect.TypeFor[hw.Kernel]()
	for i := range methods.NumMethod() {
		name := methods.Method(i).Name
		p := New("", io.Discard, nil)
		callOnNothing(p.Kernel(nil), name)
		if want := !slices.Contains(reads, name); want != (len(p.count) == 1) {
			t.Errorf("%s: passes points %v, want some: %v", name, p.count, want)
		}
	}
}

// callOnNothing calls a method of a kernel that there is not, with some arguments. The panic comes after the first point.
func callOnNothing(k hw.Kernel, method string) {
	defer func() { _ = recover() }()
	fn := reflect.ValueOf(k).MethodByName(method)
	var args []reflect.Value
	for i := range fn.Type().NumIn() {
		arg := reflect.Zero(fn.Type().In(i))
		switch arg.Interface().(type) {
		case hw.LinkAttr:
			arg = reflect.ValueOf(hw.LinkMTU)
		case hw.VFAttr:
			arg = reflect.ValueOf(hw.VFVLAN)
		case hw.TuningAttr:
			arg = reflect.ValueOf(hw.TuningQueues)
		}
		args = append(args, arg)
	}
	fn.Call(args)
	panic(fmt.Sprintf("%s of a kernel that there is not returned", method))
}
