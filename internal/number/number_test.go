package number_test

import (
	"math"
	"slices"
	"testing"
	"time"

	"github.com/mellanox/passthrough/internal/number"
)

func TestParse(t *testing.T) {
	for text, want := range map[string]int{"0": 0, "7": 7, "100": 100, "4094": 4094} {
		if got, ok := number.Parse(text, 0, 4094); !ok || got != want {
			t.Errorf("%q: %d, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "00", "01", "0100", "+1", "-1", "-0", "+0", " 1", "1 ", "1\n", "\n1", "1\t", "1_0", "0x1", "0b1", "0o7", "1e1", "1.0", "1,0",
		"4095", "99999999999999999999", "١", "１", "x", "1\x00"} {
		if got, ok := number.Parse(text, 0, 4094); ok {
			t.Errorf("%q is %d", text, got)
		}
	}
	if got, ok := number.Parse("1", 2, math.MaxInt); ok {
		t.Errorf("1 from 2 on is %d", got)
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{"1s": time.Second, "90s": 90 * time.Second, "1h30m": 90 * time.Minute, "1h0m10s": time.Hour + 10*time.Second,
		"1500ms": 1500 * time.Millisecond, "1.5h": 90 * time.Minute, "8760h": 8760 * time.Hour} {
		if got, ok := number.ParseDuration(text, time.Second, 8760*time.Hour); !ok || got != want {
			t.Errorf("%q: %v, %v", text, got, ok)
		}
	}
	for _, text := range []string{"", "0", "0s", "30", "+30s", "-30s", "030s", "1h030m", " 30s", "30s ", "30s\n", "3 0s", ".5h", "5.h", "30sec", "1h-30m", "999ms",
		"8760h1s", "9999999999999h", "٣s"} {
		if got, ok := number.ParseDuration(text, time.Second, 8760*time.Hour); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestCanonical(t *testing.T) {
	for text, want := range map[string]string{"0100": "100", "+100": "100", "100": "100", "-0": "0", " 7\n": "7", "+30s": "30s", "030s": "30s", "90s": "1m30s",
		"": "", "x": "x", "1 2": "1 2", "yes": "yes"} {
		if got := number.Canonical(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}

func TestParseList(t *testing.T) {
	for text, want := range map[string][]int{"0": {0}, "2,4-7": {2, 4, 5, 6, 7}, "7, 3,2,  4": {7, 3, 2, 4}, "1-3,2,0-1": {1, 2, 3, 0}, "99": {99}, "5-5": {5}} {
		if got, ok := number.ParseList(text, 99); !ok || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v; want %v", text, got, ok, want)
		}
	}
	for _, text := range []string{"", ",", "1,", "3-1", "-1", "1-", "01", "0-03", "+1", "1-+3", " 1", "1 ", "1 2", "1 ,2", "1,\n2", "1\n", "1 -2", "1- 2", "0x1", "100", "1.5",
		"0-1:2", "0--1"} {
		if got, ok := number.ParseList(text, 99); ok {
			t.Errorf("%q is %v", text, got)
		}
	}
}

func TestCanonicalList(t *testing.T) {
	for text, want := range map[string]string{"0-3,7": "0-3,7", " 00 - +3 ,07\n": "0-3,7", "": "", "x": "x", "1-": "1-", "numa": "numa"} {
		if got := number.CanonicalList(text); got != want {
			t.Errorf("%q: %q, want %q", text, got, want)
		}
	}
}
