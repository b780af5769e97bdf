//go:build cluster

package etcdstore_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/etcdstore"
	"github.com/mellanox/passthrough/store/storetest"
	"github.com/mellanox/passthrough/test/harness/etcdtest"
)

// within returns a context for one call.
func within(t *testing.T, d time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// openCluster opens a store in the cluster. It is closed when the test ends.
func openCluster(t *testing.T, c *etcdtest.Cluster) store.Store {
	t.Helper()
	s := mustOpenEtcd(t, etcdstore.Config{Endpoints: c.Endpoints(), Prefix: "/p"})
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// wantText compares the text of an error, with E0, E1... for the endpoints.
func wantText(t *testing.T, c *etcdtest.Cluster, err, kind error, want string) {
	t.Helper()
	if !errors.Is(err, kind) {
		t.Errorf("error %v does not match %v", err, kind)
	}
	got := fmt.Sprint(err)
	for i, e := range c.Endpoints() {
		got = strings.ReplaceAll(got, e, fmt.Sprintf("E%d", i))
	}
	if got != want {
		t.Errorf("error\n got: %s\nwant: %s", got, want)
	}
}

func TestEtcdThatDoesNotListen(t *testing.T) {
	s := mustOpenEtcd(t, etcdstore.Config{Endpoints: []string{"127.0.0.1:1"}})
	defer s.Close()
	const remedy = "dial tcp 127.0.0.1:1: connect: connection refused; check that etcd runs and can be reached from this " +
		"host; running containers are not affected"
	_, err := s.Txn(within(t, 300*time.Millisecond), nil, []store.Op{store.Put("a", nil)})
	if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) {
		t.Errorf("Txn: %v", err)
	}
	if want := "ledger in etcd 127.0.0.1:1: write: " + remedy; err.Error() != want {
		t.Errorf("error\n got: %s\nwant: %s", err, want)
	}
	_, err = s.Get(within(t, 300*time.Millisecond), "a")
	if want := "ledger in etcd 127.0.0.1:1: read: " + remedy; err == nil || err.Error() != want {
		t.Errorf("error\n got: %s\nwant: %s", err, want)
	}
}

// TestEtcdGoesDown: a request that did not leave this host is not ambiguous.
func TestEtcdGoesDown(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	storetest.Put(t, s, "warm", "up")
	c.Members[0].Kill()
	c.Members[0].Heal() // the relay closes the connection, as the kernel does when a process ends
	if _, err := s.Get(within(t, time.Second), "warm"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Get: %v", err)
	}
	c.Members[0].Refuse()
	_, err := s.Txn(within(t, time.Second), nil, []store.Op{store.Put("a", nil)})
	if !errors.Is(err, store.ErrUnavailable) || errors.Is(err, store.ErrAmbiguous) {
		t.Errorf("Txn: %v, want it not to be ambiguous", err)
	}
}

// TestEtcdLostAnswer: a write whose answer is lost is applied once, and its caller gets the right result.
func TestEtcdLostAnswer(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	storetest.Put(t, s, "warm", "up")
	for i := range 5 {
		key := fmt.Sprintf("k/%d", i)
		c.Members[0].Mute()
		heal := time.AfterFunc(time.Duration(300+400*i)*time.Millisecond, c.Members[0].Heal)
		r, err := s.Txn(within(t, 8*time.Second), []store.Cond{store.Absent(key)}, []store.Op{store.Put(key, []byte("1"))})
		heal.Stop()
		c.Members[0].Heal()
		if err != nil || !r.OK {
			t.Fatalf("%s: %+v, %v", key, r, err)
		}
		kv, err := s.Get(within(t, 5*time.Second), key)
		if err != nil || kv.Rev != r.Rev {
			t.Errorf("%s has revision %d, the answer said %d, %v", key, kv.Rev, r.Rev, err)
		}
	}
}

// TestEtcdLostForGood: if no answer comes, the caller gets ErrAmbiguous before its deadline has long passed.
func TestEtcdLostForGood(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	storetest.Put(t, s, "warm", "up")
	c.Members[0].Mute()
	start := time.Now()
	_, err := s.Txn(within(t, time.Second), nil, []store.Op{store.Put("a", []byte("1"))})
	wantText(t, c, err, store.ErrAmbiguous, "ledger in etcd E0: write: no answer in time; it may or may not have been done; "+
		"check that etcd runs and can be reached from this host")
	if took := time.Since(start); took > 2*time.Second {
		t.Errorf("the answer took %v, the deadline was 1s", took)
	}
	c.Members[0].Heal()
	if kv, err := s.Get(within(t, 5*time.Second), "a"); err != nil || string(kv.Value) != "1" {
		t.Errorf("a = %q, %v; the request reached etcd", kv.Value, err)
	}
}

// TestEtcdFence: after a fence the record does not change, however late the request arrives; here at a server that was stopped meanwhile.
func TestEtcdFence(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	storetest.Put(t, s, "warm", "up")
	for i := range 5 {
		key := fmt.Sprintf("k/%d", i)
		c.Members[0].Freeze()
		token := fmt.Sprintf("token-%d", i)
		_, err := s.Txn(store.WithToken(within(t, 500*time.Millisecond), token), nil, []store.Op{store.Put(key, nil)})
		if !errors.Is(err, store.ErrAmbiguous) {
			t.Fatalf("Txn: %v", err)
		}
		c.Members[0].Thaw()
		if err := store.Fence(within(t, 5*time.Second), s, token); err != nil {
			t.Fatal(err)
		}
		_, first := s.Get(within(t, 5*time.Second), key)
		for range 20 {
			storetest.Put(t, s, "other", "x")
		}
		_, again := s.Get(within(t, 5*time.Second), key)
		if errors.Is(first, store.ErrNotFound) != errors.Is(again, store.ErrNotFound) {
			t.Errorf("%s: %v, then %v", key, first, again)
		}
	}
	if err := store.Fence(t.Context(), s, "no token"); err == nil {
		t.Error("an invalid token was accepted")
	}
}

// TestEtcdCutOff: a request that did not reach etcd is not ambiguous once etcd can be reached.
func TestEtcdCutOff(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	storetest.Put(t, s, "warm", "up")
	c.Members[0].Cut()
	heal := time.AfterFunc(500*time.Millisecond, c.Members[0].Heal)
	defer heal.Stop()
	r, err := s.Txn(within(t, 5*time.Second), []store.Cond{store.Absent("warm")}, []store.Op{store.Put("a", []byte("1"))})
	if err != nil || r.OK || r.Failed != store.Absent("warm") {
		t.Errorf("Txn = %+v, %v, want the condition to fail", r, err)
	}
}

func TestEtcdLosesALeader(t *testing.T) {
	c := etcdtest.Start(t, 3)
	s := openCluster(t, c)
	storetest.Put(t, s, "n", "0")
	for i, m := range c.Members {
		m.Kill()
		key := fmt.Sprintf("k/%d", i)
		r, err := s.Txn(within(t, 10*time.Second), []store.Cond{store.Absent(key)}, []store.Op{store.Put(key, []byte("1"))})
		if err != nil || !r.OK {
			t.Errorf("%s with a member down: %+v, %v", key, r, err)
		}
		m.Start()
		c.Await()
	}
}

func TestEtcdWithoutQuorum(t *testing.T) {
	c := etcdtest.Start(t, 3)
	s := openCluster(t, c)
	storetest.Put(t, s, "n", "0")
	c.Members[0].Kill()
	c.Members[1].Kill()
	start := time.Now()
	_, err := s.Txn(within(t, 2*time.Second), nil, []store.Op{store.Put("a", nil)})
	if !errors.Is(err, store.ErrAmbiguous) && !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Txn: %v", err)
	}
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("the answer took %v, the deadline was 2s", took)
	}
	c.Members[0].Start()
	c.Members[1].Start()
	c.Await()
	storetest.Put(t, s, "b", "1")
}

// TestEtcdLeaseGone: if etcd does not know the tokens' lease any more, the next write gets a new one.
func TestEtcdLeaseGone(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	storetest.Put(t, s, "a", "1")
	client := c.Client(t)
	leases, err := client.Leases(t.Context())
	if err != nil || len(leases.Leases) != 1 {
		t.Fatalf("%d leases, %v, want the tokens'", len(leases.Leases), err)
	}
	if _, err := client.Revoke(t.Context(), leases.Leases[0].ID); err != nil {
		t.Fatal(err)
	}
	storetest.Put(t, s, "a", "2")
	// Records have no etcd lease: only a release frees an address.
	if resp, err := client.Get(t.Context(), "/p/r/a"); err != nil || len(resp.Kvs) != 1 || resp.Kvs[0].Lease != 0 {
		t.Errorf("a: %+v, %v", resp, err)
	}
}

// TestEtcdCompaction: a list of several pages shows one revision, also if etcd is compacted between two pages.
func TestEtcdCompaction(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	var ops []store.Op
	for i := range 3000 {
		ops = append(ops, store.Put(fmt.Sprintf("k/%05d", i), []byte("x")))
	}
	if r, err := s.Txn(t.Context(), nil, ops); err != nil || !r.OK {
		t.Fatalf("3000 records: %+v, %v", r, err)
	}
	client := c.Client(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			resp, err := client.Put(ctx, "/other", "x")
			if err == nil {
				_, _ = client.Compact(ctx, resp.Header.Revision) // another compaction may be under way
			}
		}
	}()
	for range 10 {
		n := 0
		err := s.Range(t.Context(), "k/", func(store.KV) error {
			n++
			return nil
		})
		// Under permanent compactions it may give up. It must not show a part of the list.
		if err == nil && n != 3000 || err != nil && n != 0 {
			t.Errorf("%d records, %v", n, err)
		}
	}
	stop()
	<-done
}

func TestEtcdUser(t *testing.T) {
	c := etcdtest.Start(t, 1)
	withUser(t, c.Client(t))
	open := func(prefix, user, password string) error {
		s := mustOpenEtcd(t, etcdstore.Config{Endpoints: c.Endpoints(), Prefix: prefix, User: user,
			PasswordFile: fileOf(t, password), Insecure: true})
		defer s.Close()
		_, err := s.Txn(within(t, 3*time.Second), nil, []store.Op{store.Put("a", nil)})
		return err
	}
	if err := open("/p", "plugin", "secret\n"); err != nil {
		t.Error(err)
	}
	wantText(t, c, open("/p", "plugin", "wrong"), store.ErrUnavailable, "ledger in etcd E0: write: authentication failed, "+
		`invalid user ID or password; check user and password-file of STORE, and that this user may read and write `+
		`everything under "/p/"`)
	wantText(t, c, open("/q", "plugin", "secret"), store.ErrUnavailable, "ledger in etcd E0: write: permission denied; "+
		`check user and password-file of STORE, and that this user may read and write everything under "/q/"`)
}

func TestEtcdTLS(t *testing.T) {
	a := etcdtest.NewAuthority(t)
	c := a.StartTLS()
	cert, key := a.Sign("plugin")
	open := func(ca, cert, key string) error {
		s := mustOpenEtcd(t, etcdstore.Config{Endpoints: c.Endpoints(), CA: ca, Cert: cert, Key: key})
		defer s.Close()
		_, err := s.Txn(within(t, 4*time.Second), nil, []store.Op{store.Put("a", nil)})
		return err
	}
	if err := open(a.CA, cert, key); err != nil {
		t.Error(err)
	}
	other := etcdtest.NewAuthority(t)
	wantText(t, c, open(other.CA, cert, key), store.ErrUnavailable, "ledger in etcd E0: write: tls: failed to verify "+
		"certificate: x509: certificate signed by unknown authority (possibly because of \"x509: ECDSA verification failure\" "+
		"while trying to verify candidate authority certificate \"authority\"); check ca, cert and key of STORE")
	wantText(t, c, open(a.CA, "", ""), store.ErrUnavailable, "ledger in etcd E0: write: remote error: tls: certificate "+
		"required; check ca, cert and key of STORE")
	wantText(t, c, open("", "", ""), store.ErrUnavailable, "ledger in etcd E0: write: EOF; if etcd speaks TLS, STORE needs ca")
}

// TestEtcdRaisedSchema: a node goes on with the schema that etcd has, and an operator can raise it. When a newer version raises it further, this
// one is refused at each call, also on the connection that it has.
func TestEtcdRaisedSchema(t *testing.T) {
	c := etcdtest.Start(t, 1)
	etcd := c.Client(t)
	set := func(version string) {
		if _, err := etcd.Put(t.Context(), "/p/schema", version); err != nil {
			t.Fatal(err)
		}
	}
	set("1")
	s := openCluster(t, c)
	if version, err := store.Schema(t.Context(), s); err != nil || version != store.SchemaOldest {
		t.Errorf("the schema is %d, %v, want 1", version, err)
	}
	if err := s.(store.Gate).RaiseSchema(t.Context()); err != nil {
		t.Error(err)
	}
	etcdstore.ForgetSchema(s)
	if version, err := store.Schema(t.Context(), s); err != nil || version != store.SchemaNewest {
		t.Errorf("the raised schema is %d, %v", version, err)
	}
	if _, err := s.Txn(t.Context(), nil, []store.Op{store.Put("a", nil)}); err != nil {
		t.Error(err)
	}
	set("3")
	etcdstore.ForgetSchema(s) // a minute passes
	for range 2 {
		_, err := s.Txn(within(t, 3*time.Second), nil, []store.Op{store.Put("a", nil)})
		wantText(t, c, err, store.ErrNewer, "ledger in etcd E0: write: ledger was written by a newer version: it has schema 3, "+
			"this version knows 2; upgrade the plugin on this node")
	}
	if err := s.(store.Gate).RaiseSchema(within(t, 3*time.Second)); !errors.Is(err, store.ErrNewer) {
		t.Errorf("an older version raises the schema: %v", err)
	}
	set("2")
	if _, err := s.Get(t.Context(), "a"); err != nil {
		t.Errorf("with its own schema again: %v", err)
	}
}

func TestEtcdNewerSchema(t *testing.T) {
	c := etcdtest.Start(t, 1)
	if _, err := c.Client(t).Put(t.Context(), "/p/schema", "3"); err != nil {
		t.Fatal(err)
	}
	_, err := openCluster(t, c).Get(within(t, 3*time.Second), "a")
	wantText(t, c, err, store.ErrNewer, "ledger in etcd E0: read: ledger was written by a newer version: it has schema 3, "+
		"this version knows 2; upgrade the plugin on this node")
}

// TestEtcdRollback: an etcd that shows an older state than before is refused.
func TestEtcdRollback(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s := openCluster(t, c)
	for range 5 {
		storetest.Put(t, s, "a", "1")
	}
	c.Members[0].Wipe()
	c.Await()
	_, err := s.Get(within(t, 10*time.Second), "a")
	wantText(t, c, err, store.ErrUnavailable, "ledger in etcd E0: read: its state went back from revision 7 to 1; it seems to "+
		"be restored from a backup, which may show addresses as free that are in use; once that is put right, tell this node with "+
		"driver accept")
	if _, err := s.Txn(within(t, 10*time.Second), nil, []store.Op{store.Put("b", nil)}); err == nil {
		t.Error("a write was accepted")
	}
	client := c.Client(t)
	for range 10 { // writes of other clients, with which the revision passes the watermark
		if _, err := client.Put(t.Context(), "/other", "x"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Get(within(t, 10*time.Second), "a"); !errors.Is(err, store.ErrRolledBack) {
		t.Errorf("Get above the watermark: %v, want ErrRolledBack", err)
	}

	// With the watermark the next process refuses it, too.
	next := openCluster(t, c)
	if err := next.(store.RollbackDetector).SetWatermark(s.(store.RollbackDetector).Watermark()); err != nil {
		t.Fatal(err)
	}
	if _, err := next.Get(within(t, 10*time.Second), "a"); !errors.Is(err, store.ErrUnavailable) {
		t.Errorf("Get of the next process: %v, want ErrUnavailable", err)
	}
	if err := next.(store.RollbackDetector).SetWatermark([]byte("x")); !errors.Is(err, store.ErrCorrupt) {
		t.Errorf("a watermark that is none: %v, want ErrCorrupt", err)
	}
}

// TestEtcdNoSpace: an etcd whose quota is used up refuses writes with a remedy, but still deletes a record that has not changed, also for a
// client that has just connected. Its status says so until it has space again.
func TestEtcdNoSpace(t *testing.T) {
	c := etcdtest.Start(t, 1, "--quota-backend-bytes=8388608")
	s := openCluster(t, c)
	var records []store.KV
	for _, key := range []string{"a", "b"} {
		storetest.Put(t, s, key, "1")
		kv, err := s.Get(t.Context(), key)
		if err != nil {
			t.Fatal(err)
		}
		records = append(records, kv)
	}
	wantServer(t, c, s, false)
	c.FillUp()
	wantServer(t, c, s, true)
	_, err := s.Txn(within(t, 5*time.Second), nil, []store.Op{store.Put("c", nil)})
	wantText(t, c, err, store.ErrUnavailable, "ledger in etcd E0: write: mvcc: database space exceeded; compact and defragment etcd or "+
		"raise its quota, then disarm its alarm")
	if !errors.Is(err, store.ErrNoSpace) {
		t.Errorf("%v, want ErrNoSpace", err)
	}
	for i, s := range []store.Store{s, openCluster(t, c)} {
		kv := records[i]
		if r, err := s.Txn(within(t, 5*time.Second), []store.Cond{store.Unchanged(kv)}, []store.Op{store.Del(kv.Key)}); err != nil || !r.OK {
			t.Errorf("release of %s: %+v, %v", kv.Key, r, err)
		}
		r, err := s.Txn(within(t, 5*time.Second), []store.Cond{store.Unchanged(kv)}, []store.Op{store.Del(kv.Key)})
		if err != nil || r.OK || r.Failed != store.Unchanged(kv) {
			t.Errorf("second release of %s: %+v, %v", kv.Key, r, err)
		}
	}
	c.MakeSpace()
	storetest.Put(t, s, "c", "1")
	wantServer(t, c, s, false)
}

// wantServer compares the status of the only member.
func wantServer(t *testing.T, c *etcdtest.Cluster, s store.Store, full bool) {
	t.Helper()
	all := store.Servers(t.Context(), s)
	if len(all) != 1 || all[0].Err != nil {
		t.Fatalf("servers %+v", all)
	}
	kind, text := all[0].Problem()
	if kind != map[bool]string{true: "NOSPACE"}[full] || (text != "") != full {
		t.Errorf("problem %q: %q, full: %v", kind, text, full)
	}
	if got := all[0]; got.Endpoint != c.Endpoints()[0] || got.Version == "" || got.Quota != 8<<20 || got.Size == 0 || got.InUse > got.Size {
		t.Errorf("status %+v", got)
	}
}

// TestEtcdLostAnswerOfRelease: a release whose answer is lost is applied once, and its caller learns that it is ambiguous at worst. If it
// was refused, its caller learns that.
func TestEtcdLostAnswerOfRelease(t *testing.T) {
	c := etcdtest.Start(t, 1)
	s, other := openCluster(t, c), openCluster(t, c)
	storetest.Put(t, s, "guard", "1")
	guard, err := s.Get(t.Context(), "guard")
	if err != nil {
		t.Fatal(err)
	}
	for name, lost := range map[string]struct {
		lose    func(*etcdtest.Member)
		guard   store.Cond
		refused bool
	}{
		"answer":           {(*etcdtest.Member).Mute, store.Unchanged(guard), false},
		"request":          {(*etcdtest.Member).Freeze, store.Unchanged(guard), false},
		"answer, refused":  {(*etcdtest.Member).Mute, store.Absent("guard"), true},
		"request, refused": {(*etcdtest.Member).Freeze, store.Absent("guard"), true},
	} {
		storetest.Put(t, s, "lease", name)
		kv, err := s.Get(t.Context(), "lease")
		if err != nil {
			t.Fatal(err)
		}
		m := c.Members[0]
		lost.lose(m)
		heal := time.AfterFunc(700*time.Millisecond, func() { m.Thaw(); m.Heal() })
		r, err := s.Txn(within(t, 8*time.Second), []store.Cond{lost.guard, store.Unchanged(kv)}, []store.Op{store.Del("lease")})
		heal.Stop()
		_, gone := other.Get(within(t, 5*time.Second), "lease")
		switch {
		case lost.refused && (err != nil || r.OK || r.Failed != lost.guard || gone != nil):
			t.Errorf("%s: %+v, %v; then %v; want it refused", name, r, err, gone)
		case !lost.refused && (err == nil && !r.OK || err != nil && !errors.Is(err, store.ErrAmbiguous) || !errors.Is(gone, store.ErrNotFound)):
			t.Errorf("%s: %+v, %v; then %v; want the record to be gone", name, r, err, gone)
		}
	}
}
