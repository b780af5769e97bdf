package hw_test

import (
	"errors"
	"reflect"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
)

// filled is a change of every field.
func filled[C any]() C {
	var c C
	v := reflect.ValueOf(&c).Elem()
	for i := range v.NumField() {
		v.Field(i).Set(reflect.New(v.Field(i).Type().Elem()))
	}
	return c
}

// order checks that each hands out every field once, alone, in the order of the declaration.
func order[C any](t *testing.T, each func(func(string, C) error) error) {
	t.Helper()
	var want, got []string
	for i := range reflect.TypeFor[C]().NumField() {
		want = append(want, reflect.TypeFor[C]().Field(i).Name)
	}
	err := each(func(op string, one C) error {
		v := reflect.ValueOf(one)
		for i := range v.NumField() {
			if !v.Field(i).IsNil() {
				got = append(got, v.Type().Field(i).Name)
			}
		}
		if op == "" {
			t.Errorf("no words for %+v", one)
		}
		return nil
	})
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestEachInOrder(t *testing.T) {
	order(t, filled[hw.LinkChange]().Each)
	order(t, filled[hw.VFChange]().Each)
}

func TestEachWords(t *testing.T) {
	on, off, name, number := true, false, "x", 7
	mac, vlan, tagged := hw.MAC("02:00:00:00:00:01"), hw.VLAN{ID: 100}, hw.VLAN{ID: 5, QoS: 3}
	var got []string
	link := func(op string, _ hw.LinkChange) error { got = append(got, op); return nil }
	vf := func(op string, _ hw.VFChange) error { got = append(got, op); return nil }
	err := errors.Join(
		hw.LinkChange{DelAltName: &name, Up: &on, Master: &number, Name: &name, Alias: &name, MAC: &mac, MTU: &number,
			TxQLen: &number, Promisc: &on, AllMulti: &off}.Each(link),
		hw.LinkChange{Up: &off, Promisc: &off, AllMulti: &on}.Each(link),
		hw.VFChange{MAC: &mac, VLAN: &vlan, Spoofchk: &on, Trust: &off}.Each(vf),
		hw.VFChange{VLAN: &tagged, Spoofchk: &off, Trust: &on}.Each(vf),
	)
	want := []string{"remove altname x", "set up", "set master 7", "set name x", `set alias "x"`,
		"set mac 02:00:00:00:00:01",
		"set mtu 7", "set txqueuelen 7", "set promisc on", "set allmulti off",
		"set down", "set promisc off", "set allmulti on",
		`set mac "02:00:00:00:00:01"`, "set vlan 100", "set spoofchk on", "set trust off",
		"set vlan 5 qos 3", "set spoofchk off", "set trust on"}
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("%v %s", err, diff)
	}
}

func TestEachStops(t *testing.T) {
	boom, calls, mtu := errors.New("boom"), 0, 9000
	fail := func(string, hw.LinkChange) error { calls++; return boom }
	err := hw.LinkChange{MTU: &mtu, TxQLen: &mtu}.Each(fail)
	if !errors.Is(err, boom) || err.Error() != "set mtu 9000: boom" || calls != 1 {
		t.Errorf("error is %v after %d calls", err, calls)
	}
	if err := (hw.LinkChange{MTU: &mtu}).Each(fail); err != boom {
		t.Errorf("the error of a single change is %v, want it bare: the caller knows what it was", err)
	}
}
