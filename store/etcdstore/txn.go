package etcdstore

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/mellanox/passthrough/store"
)

const (
	condsMax = 100     // etcd takes 128 operations a level (--max-txn-ops); the token and the fence need some
	opsMax   = 60      // operations in a nested transaction; etcd's bound holds for both levels together
	sizeMax  = 5 << 18 // bytes; etcd takes 1.5 MiB (--max-request-bytes), headers included

	tokenApplied = "1" // the value of the token of a transaction that was applied
	tokenFenced  = "0" // the value of the token of a transaction that will never be applied
)

// A transaction is one write. A request whose answer is lost may have been applied, or may be applied seconds later, and the client retries
// some requests by itself (etcd issue 18424). So each transaction has a token, a key that it creates: a retry is applied at most once, and
// the token shows whether the transaction was applied.
//
//	If    conditions hold, token absent
//	Then  the operations, token = applied
//	Else  read token and conditions; if a request is unanswered: token = fenced, if it is absent
//
// After a fence no request of the transaction that is still in flight can be applied.
//
// A release has no token, see [fencesItself]: etcd refuses tokens once its quota is used up, but not deletes.
//
//	If    conditions hold
//	Then  the deletes
//	Else  read conditions
type transaction struct {
	store      *etcd
	token      string // "" for none
	conds      []store.Cond
	then       []store.Op
	unanswered bool // a request was sent and not answered
}

// Txn implements [store.Store].
func (e *etcd) Txn(ctx context.Context, conds []store.Cond, then []store.Op) (store.Result, error) {
	if err := store.CheckTxn(conds, then); err != nil {
		return store.Result{}, err
	}
	if err := checkFits(conds, then); err != nil {
		return store.Result{}, err
	}
	if err := e.usable(ctx, "write"); err != nil {
		return store.Result{}, err
	}
	r, ctx, cancel := e.retrier(ctx, "write")
	defer cancel()
	if len(then) == 0 {
		return e.verify(ctx, r, conds)
	}
	w := &transaction{store: e, conds: conds, then: lastOf(then)}
	switch token := store.TokenOf(ctx); {
	case token != "":
		w.token = e.keys.token(token)
	case !fencesItself(conds, w.then):
		w.token = e.keys.token(rand.Text())
	}
	return w.run(ctx, r)
}

// fencesItself returns true for a transaction that is applied once at most without a token: it deletes only, and deletes a key on the
// condition that the key has a certain revision, which it never has again. etcd applies such a transaction also while it has the alarm
// NOSPACE (etcd 3.6, server/etcdserver/apply, applierV3Capped).
func fencesItself(conds []store.Cond, then []store.Op) bool {
	if slices.ContainsFunc(then, func(op store.Op) bool { return op.Value != nil }) {
		return false
	}
	return slices.ContainsFunc(conds, func(c store.Cond) bool { return ends(c, then) })
}

// ends returns true if c is the revision of a record that the operations delete: it does not hold any more once they were applied.
func ends(c store.Cond, then []store.Op) bool {
	return !c.NotNewer && c.Rev > 0 && slices.ContainsFunc(then, func(op store.Op) bool { return op.Key == c.Key })
}

// checkFits refuses a transaction that is too large for etcd.
func checkFits(conds []store.Cond, then []store.Op) error {
	size := 0
	for _, op := range then {
		size += len(op.Key) + len(op.Value)
	}
	switch {
	case len(conds) > condsMax:
		return fmt.Errorf("%d conditions in one transaction: etcd takes %d", len(conds), condsMax)
	case len(then) > opsMax*opsMax:
		return fmt.Errorf("%d operations in one transaction: etcd takes %d", len(then), opsMax*opsMax)
	case size > sizeMax:
		return fmt.Errorf("%d bytes in one transaction: etcd takes %d", size, sizeMax)
	}
	return nil
}

// lastOf keeps the last operation on each key: etcd refuses a transaction that writes one twice.
func lastOf(then []store.Op) []store.Op {
	seen := map[string]bool{}
	var kept []store.Op
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
func (w *transaction) run(ctx context.Context, r *retrier) (store.Result, error) {
	for {
		result, done, err := w.attempt(ctx, r)
		if done {
			return result, err
		}
		if !r.pause(ctx) {
			return store.Result{}, w.fail(ctx, r)
		}
	}
}

// attempt sends the transaction once; done is false if another attempt may help. If little time is left, it sends a fence in place of the
// transaction, so that the caller still learns whether something was written.
func (w *transaction) attempt(ctx context.Context, r *retrier) (result store.Result, done bool, err error) {
	lease, err := w.lease(ctx, r)
	if err == nil {
		err = w.store.checkBeforeWrite(ctx, r)
	}
	if err != nil {
		if !permanent(err) {
			return store.Result{}, false, err
		}
		return store.Result{}, true, w.fail(ctx, r)
	}
	fence := w.token != "" && w.unanswered && r.timeLeft() < 0.3
	var resp *clientv3.TxnResponse
	sent, err := r.attempt(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = w.store.commit(ctx, w.txn(client.Txn(ctx), lease, fence))
		return err
	})
	switch {
	case err == nil && fence:
		result, err = w.fenced(r, resp)
		return result, true, err
	case err == nil:
		result, err = w.result(ctx, r, resp)
		return result, true, err
	case !permanent(err):
		w.unanswered = w.unanswered || sent
		return store.Result{}, false, err
	case errors.Is(err, rpctypes.ErrLeaseNotFound) && !w.unanswered:
		w.store.lease.drop(lease)
		return store.Result{}, false, err
	case errors.Is(err, store.ErrRolledBack): // the answer itself shows it: etcd may have applied the transaction
		w.unanswered = w.unanswered || sent
	}
	return store.Result{}, true, w.fail(ctx, r)
}

// lease returns the etcd lease of the transaction's token.
func (w *transaction) lease(ctx context.Context, r *retrier) (clientv3.LeaseID, error) {
	if w.token == "" {
		return clientv3.NoLease, nil
	}
	return w.store.lease.get(ctx, r)
}

// fail returns the error of a transaction that is given up.
func (w *transaction) fail(ctx context.Context, r *retrier) error {
	if !w.unanswered {
		return r.fail(ctx, store.ErrUnavailable)
	}
	return r.fail(ctx, store.ErrAmbiguous)
}

// Fence implements [store.Fencer]. If the token's lease has ended, the token is gone; then no request with that lease can be applied either.
func (e *etcd) Fence(ctx context.Context, token string) error {
	if err := store.CheckKey(token); err != nil {
		return err
	}
	if err := e.usable(ctx, "fence"); err != nil {
		return err
	}
	r, ctx, cancel := e.retrier(ctx, "fence")
	defer cancel()
	w := &transaction{store: e, token: e.keys.token(token)}
	for {
		lease, err := e.lease.get(ctx, r)
		if err == nil {
			_, err = r.attempt(ctx, func(ctx context.Context, client *clientv3.Client) error {
				_, err := e.commit(ctx, w.txn(client.Txn(ctx), lease, true))
				return err
			})
		}
		switch {
		case err == nil:
			return nil
		case errors.Is(err, rpctypes.ErrLeaseNotFound):
			e.lease.drop(lease)
		case permanent(err):
			return r.fail(ctx, store.ErrUnavailable)
		}
		if !r.pause(ctx) {
			return r.fail(ctx, store.ErrUnavailable)
		}
	}
}

// commit sends a transaction, and checks the answer for a rollback.
func (e *etcd) commit(ctx context.Context, txn clientv3.Txn) (*clientv3.TxnResponse, error) {
	before, err := e.before()
	if err != nil {
		return nil, err
	}
	resp, err := txn.Commit()
	if err != nil {
		return nil, err
	}
	return resp, e.check(before, resp.Header.ClusterId, resp.Header.Revision)
}

// txn builds the etcd transaction.
func (w *transaction) txn(txn clientv3.Txn, lease clientv3.LeaseID, fence bool) clientv3.Txn {
	if w.token == "" {
		return txn.If(w.store.keys.compares(w.conds)...).Then(nested(w.store.keys.writes(w.then))...).Else(w.store.keys.reads(w.conds)...)
	}
	absent := clientv3.Compare(clientv3.ModRevision(w.token), "=", 0)
	put := func(value string) clientv3.Op { return clientv3.OpPut(w.token, value, clientv3.WithLease(lease)) }
	if fence {
		return txn.If(absent).Then(put(tokenFenced)).Else(clientv3.OpGet(w.token))
	}
	then := append(nested(w.store.keys.writes(w.then)), put(tokenApplied))
	otherwise := append([]clientv3.Op{clientv3.OpGet(w.token)}, w.store.keys.reads(w.conds)...)
	if w.unanswered {
		otherwise = append(otherwise, clientv3.OpTxn([]clientv3.Cmp{absent}, []clientv3.Op{put(tokenFenced)}, nil))
	}
	return txn.If(append(w.store.keys.compares(w.conds), absent)...).Then(then...).Else(otherwise...)
}

// nested groups many operations into nested transactions: etcd limits their number for each level. All are applied at once with one
// revision.
func nested(ops []clientv3.Op) []clientv3.Op {
	if len(ops) <= opsMax {
		return ops
	}
	var groups []clientv3.Op
	for chunk := range slices.Chunk(ops, opsMax) {
		groups = append(groups, clientv3.OpTxn(nil, chunk, nil))
	}
	return groups
}

// result decodes the answer to a transaction.
func (w *transaction) result(ctx context.Context, r *retrier, resp *clientv3.TxnResponse) (store.Result, error) {
	if resp.Succeeded {
		return store.Result{OK: true, Rev: resp.Header.Revision}, nil
	}
	if w.token == "" {
		return w.withoutToken(ctx, r, resp.Responses)
	}
	if r, ok := applied(resp.Responses[0]); ok {
		return r, nil
	}
	return failed(w.conds, resp.Responses[1:])
}

// withoutToken returns the result of a transaction without a token whose conditions do not hold. If an earlier request was not answered, and
// the record that it deletes is not there in that revision, either this transaction or another one has deleted it.
func (w *transaction) withoutToken(ctx context.Context, r *retrier, reads []*pb.ResponseOp) (store.Result, error) {
	for i, c := range w.conds {
		if w.unanswered && ends(c, w.then) && !c.Holds(revOf(reads[i])) {
			return store.Result{}, w.fail(ctx, r)
		}
	}
	return failed(w.conds, reads)
}

// fenced decodes the answer to a fence.
func (w *transaction) fenced(r *retrier, resp *clientv3.TxnResponse) (store.Result, error) {
	if !resp.Succeeded {
		if r, ok := applied(resp.Responses[0]); ok {
			return r, nil
		}
	}
	return store.Result{}, &callError{config: &w.store.config, attempt: r.what, kind: store.ErrUnavailable, cause: r.lastErr}
}

// applied returns true, and the result, if a token shows that its transaction was applied.
func applied(token *pb.ResponseOp) (store.Result, bool) {
	for _, kv := range token.GetResponseRange().GetKvs() {
		if string(kv.Value) == tokenApplied {
			return store.Result{OK: true, Rev: kv.ModRevision}, true
		}
	}
	return store.Result{}, false
}

// failed returns the first condition that did not hold.
func failed(conds []store.Cond, reads []*pb.ResponseOp) (store.Result, error) {
	for i, c := range conds {
		if !c.Holds(revOf(reads[i])) {
			return store.Result{Failed: c}, nil
		}
	}
	return store.Result{}, errors.New("etcd refused a transaction whose conditions hold")
}

// revOf returns the revision of the record that was read for a condition, 0 for none.
func revOf(read *pb.ResponseOp) (rev int64) {
	for _, kv := range read.GetResponseRange().GetKvs() {
		rev = kv.ModRevision
	}
	return rev
}

// verify runs a transaction without writes.
func (e *etcd) verify(ctx context.Context, r *retrier, conds []store.Cond) (store.Result, error) {
	var resp *clientv3.TxnResponse
	err := r.read(ctx, func(ctx context.Context, client *clientv3.Client) (err error) {
		resp, err = e.commit(ctx, client.Txn(ctx).If(e.keys.compares(conds)...).Else(e.keys.reads(conds)...))
		return err
	})
	switch {
	case err != nil:
		return store.Result{}, err
	case resp.Succeeded:
		return store.Result{OK: true, Rev: resp.Header.Revision}, nil
	}
	return failed(conds, resp.Responses)
}
