package option_test

import (
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/netdrv/option"
)

// numbers are the options whose values are numbers or lists of numbers, in the order of the table, each with a value.
var numbers = []struct{ name, value string }{{"vlan", "1"}, {"vlan_qos", "1"}, {"min_tx_rate", "1"}, {"max_tx_rate", "1"}, {"mtu", "100"}, {"txqlen", "1"},
	{"queues", "1"}, {"ring_rx", "1"}, {"ring_tx", "1"}, {"cores", "1"}, {"vf", "1"}, {"vfs", "1"}, {"trunk", "1"}, {"numa", "1"}, {"numvfs", "1"}, {"pkey", "1"}}

// around returns the options that an option needs.
func around(o option.Option) map[string]string {
	given := map[string]string{"netdevice": "ens1f0", "mode": option.ModeSRIOV}
	if len(o.Modes) > 0 {
		given["mode"] = o.Modes[0]
	}
	if o.Name == "vlan_qos" {
		given["vlan"] = "5"
	}
	return given
}

// accepts reports whether an option has a value.
func accepts(t *testing.T, o option.Option, value string) bool {
	t.Helper()
	given := around(o)
	if o.For != option.ForContainer {
		given[o.Name] = value
	}
	n, err := option.Parse(given)
	if o.For != option.ForContainer {
		return err == nil
	}
	if err != nil {
		t.Fatal(err)
	}
	_, err = n.ForContainer(map[string]string{o.Name: value})
	return err == nil
}

// TestNumbersAreStrict: a number is written in one way. What strconv accepts and a user may have meant otherwise is refused for every option.
func TestNumbersAreStrict(t *testing.T) {
	t.Parallel()
	var found []struct{ name, value string }
	for _, o := range option.Options() {
		if accepts(t, o, "yes") || accepts(t, o, "x") { // a boolean or a text
			if o.Name != "vf" {
				continue
			}
		}
		i := slices.IndexFunc([]string{"1", "100", "0x8001"}, func(v string) bool { return accepts(t, o, v) })
		if i < 0 {
			continue
		}
		v := []string{"1", "100", "0x8001"}[i]
		found = append(found, struct{ name, value string }{o.Name, v})
		for _, odd := range []string{"0" + v, "00" + v, "+" + v, "-" + v, " " + v, v + " ", v + "\n", "\n" + v, "\t" + v, v + "_0", v + " 0"} {
			if accepts(t, o, odd) && !(o.Name == "vf" && slices.Contains([]string{v + "_0", v + " 0"}, odd)) { // may be a name
				t.Errorf("%s=%q is accepted", o.Name, odd)
			}
		}
	}
	if d := cmp.Diff(numbers, found, cmp.AllowUnexported(struct{ name, value string }{})); d != "" {
		t.Errorf("options that are numbers: want -, got +\n%s", d)
	}
}

// TestStoredNumbers: the record of a network of an older version is understood as it was then.
func TestStoredNumbers(t *testing.T) {
	t.Parallel()
	for _, o := range option.Options() {
		i := slices.IndexFunc(numbers, func(n struct{ name, value string }) bool { return n.name == o.Name })
		if i < 0 || o.For == option.ForContainer {
			continue
		}
		v, given := numbers[i].value, around(o)
		given[o.Name] = v
		want, err := option.Parse(given)
		if err != nil {
			t.Fatal(err)
		}
		odds := []string{"0" + v, "+" + v, " " + v, v + "\n"}
		if o.Name == "pkey" {
			odds = []string{"0x8_001", "0b1000000000000001", " 0X8001"}
		}
		for _, odd := range odds {
			given[o.Name] = odd
			got, err := option.ParseStored(given)
			if err != nil {
				t.Errorf("%s=%q: %v", o.Name, odd, err)
			} else if d := cmp.Diff(want, got); d != "" {
				t.Errorf("%s=%q: want -, got +\n%s", o.Name, odd, d)
			}
		}
	}
	for label, value := range map[string]string{"MTU": "0100", option.LabelMTU: "+100"} {
		n, err := option.ParseStored(map[string]string{"netdevice": "ens1f0", label: value})
		if err != nil || *n.MTU != 100 {
			t.Errorf("%s=%s: %v", label, value, err)
		}
	}
}
