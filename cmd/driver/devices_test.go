package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestDevices(t *testing.T) {
	c := config{stateDir: t.TempDir(), deviceNames: "fabric-a=0000:82:00.0, 0000:82:00.1 ; fabric-b=ens1f*"}
	want := map[string][]string{"fabric-a": {"0000:82:00.0", "0000:82:00.1"}, "fabric-b": {"ens1f*"}}
	check := func() {
		t.Helper()
		got, err := c.devices()
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%v\n%s", err, diff)
		}
	}
	check()
	file := filepath.Join(c.stateDir, "devices")
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("# the storage network\nstorage = driver:ice # both ports\n\n")
	want["storage"] = []string{"driver:ice"}
	check()
	for text, wrong := range map[string]string{
		"a b=ens1":       file + `: devices: "a b=ens1" is not NAME=DEVICE,DEVICE`,
		"a:b=ens1":       file + `: devices: "a:b=ens1" is not NAME=DEVICE,DEVICE`,
		"a":              file + `: devices: "a" is not NAME=DEVICE,DEVICE`,
		"a=ens1,,ens2":   file + `: devices: a has an empty device in "ens1,,ens2"`,
		"a=ens1\na=ens2": file + ": devices: a is there twice",
		"fabric-a=ens3":  file + ": devices: fabric-a is in the variable DEVICES as well",
	} {
		write(text)
		if _, err := c.devices(); err == nil || err.Error() != wrong {
			t.Errorf("%q:\ngot  %v\nwant %s", text, err, wrong)
		}
	}
}
