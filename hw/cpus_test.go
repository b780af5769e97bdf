package hw_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/mellanox/passthrough/hw"
)

// TestParseCPUs: lists of users and of the kernel, in the given order, and back.
func TestParseCPUs(t *testing.T) {
	for text, want := range map[string]struct {
		cpus hw.CPUs
		back string
	}{
		"0":         {hw.CPUs{0}, "0"},
		"2,4-7":     {hw.CPUs{2, 4, 5, 6, 7}, "2,4-7"},
		"7, 3,2,4":  {hw.CPUs{7, 3, 2, 4}, "2-4,7"},
		"1-3,2,0-1": {hw.CPUs{1, 2, 3, 0}, "0-3"},
		"16383":     {hw.CPUs{16383}, "16383"},
	} {
		got, err := hw.ParseCPUs(text)
		if err != nil || !slices.Equal(got, want.cpus) || got.String() != want.back {
			t.Errorf("%q is %v (%s), %v; want %v (%s)", text, []int(got), got, err, []int(want.cpus), want.back)
		}
	}
	for _, text := range []string{"", ",", "3-1", "-1", "1-", "0x1", "16384", "1.5", "0-1:2"} {
		if got, err := hw.ParseCPUs(text); !errors.Is(err, hw.ErrInvalid) {
			t.Errorf("%q is %v, %v; want an error", text, got, err)
		}
	}
}
