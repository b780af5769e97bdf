package opttable_test

import (
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/internal/opttable"
)

type config struct {
	vlan int
	name string
}

var table = opttable.Table[config]{Noun: "option", Options: []opttable.Option[config]{
	{Name: "vlan", Values: "0 to 4094", Default: "none", Help: "the VLAN", Parse: func(c *config, v string) (err error) {
		c.vlan, err = strconv.Atoi(v)
		return err
	}},
	{Name: "name", Values: "a letter", Parse: func(c *config, v string) error {
		if c.name = v; len(v) != 1 {
			return opttable.ErrNotAllowed
		}
		return nil
	}},
}}

func TestParse(t *testing.T) {
	for _, test := range []struct {
		name, value string
		want        config
		err         string
	}{
		{name: "vlan", value: "100", want: config{vlan: 100}},
		{name: "VLAN", value: "100", want: config{vlan: 100}},
		{name: "vlan", value: "x", err: `option vlan: "x" is not allowed; allowed: 0 to 4094`},
		{name: "Name", value: strings.Repeat("é", 100), err: `option name: "` + strings.Repeat("é", 64) + `" is not allowed; allowed: a letter`},
		{name: "vln", value: "100", err: `option "vln": unknown; did you mean vlan?`},
		{name: "VLNA", value: "100", err: `option "VLNA": unknown; did you mean vlan?`},
		{name: "blue", value: "100", err: `option "blue": unknown; known are vlan, name`},
		{name: "va", value: "100", err: `option "va": unknown; known are vlan, name`},
		{name: strings.Repeat("v", 100), err: `option "` + strings.Repeat("v", 64) + `": unknown; known are vlan, name`},
	} {
		var c config
		err := table.Parse(&c, test.name, test.value)
		switch {
		case err == nil && test.err != "" || err != nil && err.Error() != test.err:
			t.Errorf("%s=%s: got error %v, want %q", test.name, test.value, err, test.err)
		case err == nil && c != test.want:
			t.Errorf("%s=%s: got %+v, want %+v", test.name, test.value, c, test.want)
		}
	}
}

func TestSorted(t *testing.T) {
	if got, want := table.Sorted().Names(), []string{"name", "vlan"}; !slices.Equal(got, want) {
		t.Errorf("sorted names are %v, want %v", got, want)
	}
	if got, want := table.Names(), []string{"vlan", "name"}; !slices.Equal(got, want) {
		t.Errorf("names are %v after Sorted, want %v", got, want)
	}
}
