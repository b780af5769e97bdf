package store

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	condsMax = 100     // etcd takes 128 operations a level (--max-txn-ops); the token and the fence need some
	group    = 60      // operations in a nested transaction; the bound holds for the levels together
	sizeMax  = 5 << 18 // bytes; etcd takes 1.5 MiB (--max-request-bytes), with what is around them

	// tokenTTL is how long a token is kept at least twice over, in seconds. It is far longer than any call: what a
	// request that is still under way could do, it can no more when the lease of its token has ended.
	tokenTTL = 600

	tokenApplied = "1" // the value of the token of a transaction that was applied
	tokenFenced  = "0" // the value of one that will never be
)

// etcdWrite is one transaction. A request whose answer is lost may have been applied, or may be applied seconds later,
// and the client repeats some requests on its own (etcd 18424). So each transaction carries a token, a key that it
// makes: repeated it is applied once at most, and the token tells that it was.
//
//	If    conditions hold, token absent
//	Then  the operations, token = applied
//	Else  read token and conditions; once there is doubt: token = fenced, if it is absent
//
// After a fence no request of the transaction that is still under way can be applied.
type etcdWrite struct {
	store *etcd
	token string
	conds []Cond
	then  []Op
	doubt bool // a request left and was not answered
}

// Txn implements [Store].
func (e *etcd) Txn(ctx context.Context, conds []Cond, then []Op) (Result, error) {
	if err := checkTxn(conds, then); err != nil {
		return Result{}, err
	}
	if err := checkFits(conds, then); err != nil {
		return Result{}, err
	}
	if err := e.usable(ctx, "write"); err != nil {
		return Result{}, err
	}
	t, ctx, cancel := e.trial(ctx, "write")
	defer cancel()
	if len(then) == 0 {
		return e.verify(ctx, t, conds)
	}
	token := TokenOf(ctx)
	if token == "" {
		token = rand.Text()
	}
	w := &etcdWrite{store: e, token: e.config.Prefix + etcdTokens + token, conds: conds, then: lastOf(then)}
	return w.run(ctx, t)
}

// checkFits refuses what etcd would.
func checkFits(conds []Cond, then []Op) error {
	size := 0
	for _, op := range then {
		size += len(op.Key) + len(op.Value)
	}
	switch {
	case len(conds) > condsMax:
		return fmt.Errorf("%d conditions in one transaction: etcd takes %d", len(conds), condsMax)
	case len(then) > group*group:
		return fmt.Errorf("%d operations in one transaction: etcd takes %d", len(then), group*group)
	case size > sizeMax:
		return fmt.Errorf("%d bytes in one transaction: etcd takes %d", size, sizeMax)
	}
	return nil
}

// lastOf keeps the last operation on each key: etcd refuses a transaction that writes one twice.
func lastOf(then []Op) []Op {
	seen := map[string]bool{}
	var kept []Op
	for _, op := range slices.Backward(then) {
		if !seen[op.Key] {
			seen[op.Key] = true
			kept = append(kept, op)
		}
	}
	slices.Reverse(kept)
	return kept
}

// run makes attempts until one is answered or time is up.
func (w *etcdWrite) run(ctx context.Context, t *trial) (Result, error) {
	for {
		result, done, err := w.attempt(ctx, t)
		if done {
			return result, err
		}
		if !t.wait(ctx) {
			return Result{}, w.fail(ctx, t)
		}
	}
}

// attempt sends the transaction once; done is false when another attempt may help. When little time is left it is but a
// fence: with that the caller still learns for sure that nothing was done.
func (w *etcdWrite) attempt(ctx context.Context, t *trial) (result Result, done bool, err error) {
	lease, err := w.store.tokenLease(ctx, t)
	if err == nil {
		err = w.store.look(ctx, t)
	}
	if err != nil {
		if !final(err) {
			return Result{}, false, err
		}
		return Result{}, true, w.fail(ctx, t)
	}
	fence := w.doubt && t.left() < 0.3
	var resp *clientv3.TxnResponse
	departed, err := t.attempt(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = w.store.commit(ctx, w.txn(client.Txn(ctx), lease, fence))
		return err
	})
	switch {
	case err == nil && fence:
		result, err = w.fenced(t, resp)
		return result, true, err
	case err == nil:
		result, err = w.result(resp)
		return result, true, err
	case !final(err):
		w.doubt = w.doubt || departed
		return Result{}, false, err
	case errors.Is(err, rpctypes.ErrLeaseNotFound) && !w.doubt:
		w.store.dropLease(ctx, lease)
		return Result{}, false, err
	case errors.Is(err, ErrPast): // its answer says so: it may have been done there
		w.doubt = w.doubt || departed
	}
	return Result{}, true, w.fail(ctx, t)
}

// fail is the error for giving up now.
func (w *etcdWrite) fail(ctx context.Context, t *trial) error {
	if !w.doubt {
		return t.fail(ctx, ErrUnavailable)
	}
	return t.fail(ctx, ErrAmbiguous)
}

// Settle implements [Settler]. It fences the transaction. Its token may have ended, together with the last request that
// could be applied: the one for the lease ends with it.
func (e *etcd) Settle(ctx context.Context, token string) error {
	if err := checkKey(token); err != nil {
		return err
	}
	if err := e.usable(ctx, "settle"); err != nil {
		return err
	}
	t, ctx, cancel := e.trial(ctx, "settle")
	defer cancel()
	w := &etcdWrite{store: e, token: e.config.Prefix + etcdTokens + token}
	for {
		lease, err := e.tokenLease(ctx, t)
		if err == nil {
			_, err = t.attempt(ctx, func(ctx context.Context, client *clientv3.Client) error {
				_, err := e.commit(ctx, w.txn(client.Txn(ctx), lease, true))
				return err
			})
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			e.dropLease(ctx, lease)
		case final(err):
			return t.fail(ctx, ErrUnavailable)
		}
		if !t.wait(ctx) {
			return t.fail(ctx, ErrUnavailable)
		}
	}
}

// commit sends a transaction, and looks whether the answer is newer than those before.
func (e *etcd) commit(ctx context.Context, txn clientv3.Txn) (*clientv3.TxnResponse, error) {
	before, err := e.before(ctx)
	if err != nil {
		return nil, err
	}
	resp, err := txn.Commit()
	if err != nil {
		return nil, err
	}
	return resp, e.check(ctx, before, resp.Header.ClusterId, resp.Header.Revision)
}

// txn fills a transaction in.
func (w *etcdWrite) txn(txn clientv3.Txn, lease clientv3.LeaseID, fence bool) clientv3.Txn {
	absent := clientv3.Compare(clientv3.ModRevision(w.token), "=", 0)
	put := func(value string) clientv3.Op { return clientv3.OpPut(w.token, value, clientv3.WithLease(lease)) }
	if fence {
		return txn.If(absent).Then(put(tokenFenced)).Else(clientv3.OpGet(w.token))
	}
	then := append(nested(w.operations()), put(tokenApplied))
	otherwise := append([]clientv3.Op{clientv3.OpGet(w.token)}, w.store.reads(w.conds)...)
	if w.doubt {
		otherwise = append(otherwise, clientv3.OpTxn([]clientv3.Cmp{absent}, []clientv3.Op{put(tokenFenced)}, nil))
	}
	return txn.If(append(w.store.compares(w.conds), absent)...).Then(then...).Else(otherwise...)
}

// operations are the writes.
func (w *etcdWrite) operations() []clientv3.Op {
	var ops []clientv3.Op
	for _, op := range w.then {
		if op.Value == nil {
			ops = append(ops, clientv3.OpDelete(w.store.record(op.Key)))
		} else {
			ops = append(ops, clientv3.OpPut(w.store.record(op.Key), string(op.Value)))
		}
	}
	return ops
}

// nested puts many operations into transactions inside the transaction: etcd bounds their number for each level, and all
// of them are applied at once with one revision.
func nested(ops []clientv3.Op) []clientv3.Op {
	if len(ops) <= group {
		return ops
	}
	var groups []clientv3.Op
	for chunk := range slices.Chunk(ops, group) {
		groups = append(groups, clientv3.OpTxn(nil, chunk, nil))
	}
	return groups
}

// compares are the conditions as etcd checks them. A key that is absent has revision 0 there as here.
func (e *etcd) compares(conds []Cond) []clientv3.Cmp {
	var cmps []clientv3.Cmp
	for _, c := range conds {
		cmps = append(cmps, clientv3.Compare(clientv3.ModRevision(e.record(c.Key)), "=", c.Rev))
	}
	return cmps
}

// reads ask for what the conditions are about.
func (e *etcd) reads(conds []Cond) []clientv3.Op {
	var ops []clientv3.Op
	for _, c := range conds {
		ops = append(ops, clientv3.OpGet(e.record(c.Key), clientv3.WithKeysOnly()))
	}
	return ops
}

// result is what an answer says.
func (w *etcdWrite) result(resp *clientv3.TxnResponse) (Result, error) {
	if resp.Succeeded {
		return Result{OK: true, Rev: resp.Header.Revision}, nil
	}
	if r, ok := applied(resp.Responses[0]); ok {
		return r, nil
	}
	return failed(w.conds, resp.Responses[1:])
}

// fenced is what the answer to a fence says.
func (w *etcdWrite) fenced(t *trial, resp *clientv3.TxnResponse) (Result, error) {
	if !resp.Succeeded {
		if r, ok := applied(resp.Responses[0]); ok {
			return r, nil
		}
	}
	return Result{}, &etcdError{config: &w.store.config, attempt: t.what, kind: ErrUnavailable, cause: t.last}
}

// applied says whether a token that was read tells that its transaction was applied.
func applied(token *pb.ResponseOp) (Result, bool) {
	for _, kv := range token.GetResponseRange().GetKvs() {
		if string(kv.Value) == tokenApplied {
			return Result{OK: true, Rev: kv.ModRevision}, true
		}
	}
	return Result{}, false
}

// failed finds the first condition that did not hold.
func failed(conds []Cond, reads []*pb.ResponseOp) (Result, error) {
	for i, c := range conds {
		var rev int64
		for _, kv := range reads[i].GetResponseRange().GetKvs() {
			rev = kv.ModRevision
		}
		if rev != c.Rev {
			return Result{Failed: c}, nil
		}
	}
	return Result{}, errors.New("etcd refused a transaction whose conditions hold")
}

// verify answers a transaction without writes.
func (e *etcd) verify(ctx context.Context, t *trial, conds []Cond) (Result, error) {
	var resp *clientv3.TxnResponse
	err := t.read(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = e.commit(ctx, client.Txn(ctx).If(e.compares(conds)...).Else(e.reads(conds)...))
		return err
	})
	switch {
	case err != nil:
		return Result{}, err
	case resp.Succeeded:
		return Result{OK: true, Rev: resp.Header.Revision}, nil
	}
	return failed(conds, resp.Responses)
}

// tokenLease is the lease that tokens hang on. It is not kept alive: when half of its time is over, the next one is made.
func (e *etcd) tokenLease(ctx context.Context, t *trial) (clientv3.LeaseID, error) {
	if err := e.take(ctx); err != nil {
		return 0, err
	}
	lease, fresh := e.lease, time.Since(e.since) < tokenTTL*time.Second/2
	<-e.turn
	if lease != 0 && fresh {
		return lease, nil
	}
	granted := time.Now()
	_, err := t.attempt(ctx, func(ctx context.Context, client *clientv3.Client) error {
		resp, err := client.Grant(ctx, tokenTTL)
		if err == nil {
			lease = resp.ID
		}
		return err
	})
	if err != nil {
		return 0, err
	}
	if err := e.take(ctx); err != nil {
		return 0, err
	}
	e.lease, e.since = lease, granted
	<-e.turn
	return lease, nil
}

// dropLease forgets a lease that etcd does not know, as when this host slept.
func (e *etcd) dropLease(ctx context.Context, lease clientv3.LeaseID) {
	if e.take(ctx) != nil {
		return
	}
	if e.lease == lease {
		e.lease = 0
	}
	<-e.turn
}
