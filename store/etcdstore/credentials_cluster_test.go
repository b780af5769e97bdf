//go:build cluster

package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/storetest"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// withUser makes the user "plugin" with the password "secret", who may use the prefix /p, and switches authentication on.
func withUser(t *testing.T, client *clientv3.Client) {
	t.Helper()
	ctx := t.Context()
	for _, step := range []func() error{
		func() error { _, err := client.UserAdd(ctx, "root", "r"); return err },
		func() error { _, err := client.UserGrantRole(ctx, "root", "root"); return err },
		func() error { _, err := client.UserAdd(ctx, "plugin", "secret"); return err },
		func() error { _, err := client.RoleAdd(ctx, "plugin"); return err },
		func() error {
			_, err := client.RoleGrantPermission(ctx, "plugin", "/p/", clientv3.GetPrefixRangeEnd("/p/"),
				clientv3.PermissionType(clientv3.PermReadWrite))
			return err
		},
		func() error { _, err := client.UserGrantRole(ctx, "plugin", "plugin"); return err },
		func() error { _, err := client.AuthEnable(ctx); return err },
	} {
		if err := step(); err != nil {
			t.Fatal(err)
		}
	}
}

// asRoot returns a client of etcd's root.
func asRoot(t *testing.T, c *etcdtest.Cluster) *clientv3.Client {
	t.Helper()
	client, err := clientv3.New(clientv3.Config{Endpoints: c.Endpoints(), Username: "root", Password: "r"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// replaceFile replaces a file as an administrator does it.
func replaceFile(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.WriteFile(path+".new", []byte(text), 0o600), os.Rename(path+".new", path)); err != nil {
		t.Fatal(err)
	}
}

// writeN makes writes at once, each with a call's time, and returns their errors.
func writeN(t *testing.T, s store.Store, n int) error {
	t.Helper()
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() {
			_, errs[i] = s.Txn(within(t, 5*time.Second), nil, []store.Op{store.Put(fmt.Sprintf("w/%d", i), []byte("1"))})
		})
	}
	all.Wait()
	return errors.Join(errs...)
}

// watched is what a watch of the store told.
func watched(t *testing.T, s store.Store, prefix string) (seen func(key string) bool) {
	t.Helper()
	var mu sync.Mutex
	keys := map[string]bool{}
	ctx, stop := context.WithCancel(t.Context())
	started, ended := make(chan struct{}), make(chan struct{})
	var once sync.Once
	go func() {
		defer close(ended)
		_ = store.Watch(ctx, s, prefix, 0, func(c store.Changes) error {
			once.Do(func() { close(started) })
			mu.Lock()
			defer mu.Unlock()
			for _, e := range c.Events {
				keys[e.Key] = true
			}
			return nil
		})
	}()
	t.Cleanup(func() { stop(); <-ended })
	<-started
	return func(key string) bool {
		mu.Lock()
		defer mu.Unlock()
		return keys[key]
	}
}

// eventually waits for a condition.
func eventually(t *testing.T, what string, done func() bool) {
	t.Helper()
	if err := retry.Poll(t.Context(), 20*time.Millisecond, 10*time.Second, func() (bool, error) { return done(), nil }); err != nil {
		t.Errorf("%s: %v", what, err)
	}
}

// TestEtcdNewPassword: after a change of the password in etcd and in the file the store goes on, with the calls that are under way, and its
// watches too.
func TestEtcdNewPassword(t *testing.T) {
	c := etcdtest.Start(t, 1, "--bcrypt-cost=4")
	withUser(t, c.Client(t))
	file := fileOf(t, "secret\n")
	s := mustOpenEtcd(t, etcdstore.Config{Endpoints: c.Endpoints(), Prefix: "/p", User: "plugin", PasswordFile: file, Insecure: true})
	defer s.Close()
	storetest.Put(t, s, "a", "1")
	seen := watched(t, s, "w/")
	root := asRoot(t, c)
	for n := range 3 {
		password := fmt.Sprintf("secret%d", n)
		if n == 1 { // first etcd and then the file, or the reverse
			replaceFile(t, file, password+"\n")
			storetest.Put(t, s, "a", "1") // the old one is still good
		}
		if _, err := root.UserChangePassword(t.Context(), "plugin", password); err != nil {
			t.Fatal(err)
		}
		if n != 1 {
			_, err := s.Txn(within(t, 5*time.Second), nil, []store.Op{store.Put("a", nil)})
			if err == nil || !strings.Contains(err.Error(), "check user and password-file of STORE") {
				t.Errorf("a write with the old password: %v", err)
			}
			replaceFile(t, file, password+"\n")
			eventually(t, "a write", func() bool { return writeN(t, s, 1) == nil })
		}
		if err := writeN(t, s, 20); err != nil {
			t.Error(err)
		}
	}
	storetest.Put(t, s, "w/last", "1")
	eventually(t, "the watch goes on", func() bool { return seen("w/last") })
}

// TestEtcdNewCA: after a change of etcd's CA, and of the plugin's files, the store goes on.
func TestEtcdNewCA(t *testing.T) {
	first, next := etcdtest.NewAuthority(t), etcdtest.NewAuthority(t)
	c := first.StartTLS()
	files := [3]string{}
	install := func(a *etcdtest.Authority, name string) {
		cert, key := a.Sign(name)
		for i, from := range []string{a.CA, cert, key} {
			text, err := os.ReadFile(from)
			if err != nil {
				t.Fatal(err)
			}
			replaceFile(t, files[i], string(text))
		}
	}
	dir := t.TempDir()
	for i, name := range []string{"ca.pem", "cert.pem", "key.pem"} {
		files[i] = filepath.Join(dir, name)
	}
	install(first, "plugin")
	s := mustOpenEtcd(t, etcdstore.Config{Endpoints: c.Endpoints(), Prefix: "/p", CA: files[0], Cert: files[1], Key: files[2]})
	defer s.Close()
	storetest.Put(t, s, "a", "1")
	seen := watched(t, s, "w/")
	first.Rotate(c, next)
	_, err := s.Txn(within(t, 3*time.Second), nil, []store.Op{store.Put("a", nil)})
	if err == nil || !strings.Contains(err.Error(), "check ca, cert and key of STORE") {
		t.Errorf("a write with the old CA: %v", err)
	}
	install(next, "plugin")
	eventually(t, "a write", func() bool { return writeN(t, s, 1) == nil })
	if err := writeN(t, s, 20); err != nil {
		t.Error(err)
	}
	storetest.Put(t, s, "w/last", "1")
	eventually(t, "the watch goes on", func() bool { return seen("w/last") })
}
