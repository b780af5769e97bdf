package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
)

// fileOf returns the path of a file with that text.
func fileOf(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestEtcdConfigRefusals(t *testing.T) {
	for want, c := range map[string]etcdstore.Config{
		"etcd: no endpoint":                                          {},
		"etcd: a certificate and its key go together":                {Endpoints: []string{"e:1"}, Cert: "c", CA: "a"},
		"etcd: a certificate of our own needs the CA of etcd's, too": {Endpoints: []string{"e:1"}, Cert: "c", Key: "k"},
		"etcd: a user and the file of its password go together":      {Endpoints: []string{"e:1"}, User: "u"},
	} {
		if _, err := etcdstore.Open(c); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}
}

// TestPasswordInClear: a password that others could read, in the network or on the host, is refused before it is used.
func TestPasswordInClear(t *testing.T) {
	c := etcdstore.Config{Endpoints: []string{"127.0.0.1:1"}, User: "u", PasswordFile: fileOf(t, "secret")}
	const want = "etcd: without TLS the password crosses the network in clear: give etcd a certificate and set ca, or set insecure=yes " +
		"if this network is trusted"
	if _, err := etcdstore.Open(c); err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	c.Insecure = true
	for _, mode := range []os.FileMode{0o604, 0o644, 0o602, 0o400, 0o600, 0o640} {
		if err := os.Chmod(c.PasswordFile, mode); err != nil {
			t.Fatal(err)
		}
		s, err := etcdstore.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		_, err = s.Get(ctx, "a")
		cancel()
		want := fmt.Sprintf("ledger in etcd 127.0.0.1:1: read: password: %s can be read or written by every user of the host "+
			"(mode %#o); set its mode to 0600", c.PasswordFile, mode)
		if open := mode&0o007 != 0; open != (err.Error() == want) {
			t.Errorf("mode %#o: %v", mode, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestEtcdFiles: the first call returns the error about a file, without a wait.
func TestEtcdFiles(t *testing.T) {
	const remedy = "; put the file into the plugin's state directory, or correct STORE"
	noPEM, empty := fileOf(t, "x"), fileOf(t, "\nsecret")
	for want, c := range map[string]etcdstore.Config{
		"ca: open /nowhere/ca: no such file or directory":       {CA: "/nowhere/ca"},
		"ca: " + noPEM + " has no certificate in PEM":           {CA: noPEM},
		"password: open /nowhere/pw: no such file or directory": {User: "u", PasswordFile: "/nowhere/pw", Insecure: true},
		"password: the first line of " + empty + " is empty":    {User: "u", PasswordFile: empty, Insecure: true},
	} {
		c.Endpoints = []string{"127.0.0.1:1"}
		s, err := etcdstore.Open(c)
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Get(t.Context(), "a")
		if !errors.Is(err, store.ErrUnavailable) || err.Error() != "ledger in etcd 127.0.0.1:1: read: "+want+remedy {
			t.Errorf("got  %v\nwant %s", err, want)
		}
		if strings.Contains(err.Error(), "secret") {
			t.Error("the error shows the password")
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
