package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/store"
)

// FuzzParseDevices: any text is a list of devices that can be written and read again, or is refused. No name can be mistaken for a PCI
// address, a path or a pattern.
func FuzzParseDevices(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		named, err := parseDevices(text)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "devices: ") || named != nil {
				t.Errorf("%q: %v, %v", text, named, err)
			}
			return
		}
		var lines []string
		for name, devices := range named {
			if strings.ContainsAny(name, ":/*?[]\\ \x00") || name == "." || name == ".." || len(devices) == 0 || slices.Contains(devices, "") {
				t.Errorf("%q: %q is %q", text, name, devices)
			}
			lines = append(lines, name+" = "+strings.Join(devices, ", "))
		}
		again, err := parseDevices(strings.Join(lines, "\n"))
		if diff := cmp.Diff(named, again); err != nil || diff != "" {
			t.Errorf("%q: read again: %v\n%s", text, err, diff)
		}
	})
}

// FuzzParseStore: any text is this node's ledger, an etcd with all that it needs, or is refused. Its text for the log has no password.
func FuzzParseStore(f *testing.F) {
	f.Fuzz(func(t *testing.T, text string) {
		const dir = "/var/lib/state"
		c, err := parseStore(text, dir)
		if err != nil || c == nil {
			if err == nil && text != "bolt" {
				t.Errorf("%q: neither etcd nor bolt nor refused", text)
			}
			return
		}
		if len(c.Endpoints) == 0 || !strings.HasPrefix(c.Prefix, "/") || strings.Contains(c.Prefix, "//") {
			t.Errorf("%q: %+v", text, c)
		}
		for _, file := range []string{c.CA, c.Cert, c.Key, c.PasswordFile} {
			if file != "" && !filepath.IsAbs(file) {
				t.Errorf("%q: file %q is relative", text, file)
			}
		}
		if shown := withoutPassword(text); withoutPassword(shown) != shown {
			t.Errorf("%q: is shown as %q, and what is shown of that is %q", text, shown, withoutPassword(shown))
		}
	})
}

// FuzzPassword: a password in any other part of STORE is refused, and the error does not show it.
func FuzzPassword(f *testing.F) {
	f.Fuzz(func(t *testing.T, before, after string) {
		const secret = "hunter2hunter2"
		if strings.ContainsAny(before, "?&/@#=") || strings.ContainsAny(after, "?&/@#=\n") || strings.Contains(before, "\n") {
			t.Skip("the shape of the URL is the test's")
		}
		for _, text := range []string{
			"etcd://" + before + ":" + secret + after + "@h:2379", "etcd://h:2379?password=" + before + secret + after,
			"etcd://h:2379?prefix=/p&pass=" + secret + after + "&ca=x",
		} {
			_, err := configFrom(nil, env("STORE="+text))
			if err == nil || strings.Contains(err.Error(), secret) {
				t.Errorf("%q: %v", text, err)
			}
		}
	})
}

// FuzzSettings: any value of any variable is within the bounds that the table states, or is refused with the variable's name.
func FuzzSettings(f *testing.F) {
	f.Fuzz(func(t *testing.T, which uint8, value string) {
		name := settings[int(which)%len(settings)].name
		if value == "" {
			t.Skip("as if it was not set")
		}
		c, err := configFrom(nil, func(n string) string {
			if n == name {
				return value
			}
			return ""
		})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "environment: "+name+"=") {
				t.Errorf("%s=%q: %v", name, value, err)
			}
			return
		}
		if c.handlerTimeout < time.Second || c.handlerTimeout > 25*time.Second || !filepath.IsAbs(c.stateDir) ||
			!filepath.IsAbs(c.socket) || len(c.socket) > socketPathMax {
			t.Errorf("%s=%q: %+v", name, value, c)
		}
	})
}

// FuzzImport: any file is imported, and exported again as the same records, or is refused and nothing is written.
func FuzzImport(f *testing.F) {
	f.Fuzz(func(t *testing.T, file []byte) {
		path := filepath.Join(t.TempDir(), "file")
		if err := os.WriteFile(path, file, 0o600); err != nil {
			t.Fatal(err)
		}
		s := store.NewMemory()
		n, err := importFile(t.Context(), s, path)
		var out bytes.Buffer
		m, exportErr := exportTo(t.Context(), s, &out)
		switch {
		case exportErr != nil:
			t.Error(exportErr)
		case err != nil && m > 0 && n < importBatch:
			t.Errorf("%q: was refused (%v), and wrote %d records", file, err, m)
		case err == nil && m > n:
			t.Errorf("%q: %d records were read and %d written", file, n, m)
		}
		records, err := readExport(&out)
		if err == nil {
			err = importTo(t.Context(), store.NewMemory(), records)
		}
		if err != nil {
			t.Errorf("%q: what was exported cannot be imported: %v", file, err)
		}
	})
}
