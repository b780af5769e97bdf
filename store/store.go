package store

import (
	"context"
	"errors"
	"fmt"
)

// Store is a durable map from keys to values with compare-and-swap transactions.
//
// Keys are non-empty printable ASCII paths such as "net/<id>". All methods may be called concurrently. After Close
// every method returns [ErrUnavailable].
type Store interface {
	// Txn applies every operation of then if every comparison of conds holds, and none of them otherwise. When it
	// returns with Result.OK the writes are durable. An error that matches [ErrAmbiguous] means that they may or may
	// not have been applied; any other error means that they were not. Up to 100 conditions, 3000 operations and 1 MiB fit
	// into a transaction of every store; some take more.
	Txn(ctx context.Context, conds []Cond, then []Op) (Result, error)

	// Get returns one record. The error matches [ErrNotFound] when the key is absent.
	Get(ctx context.Context, key string) (KV, error)

	// Range calls fn for every record whose key starts with prefix, in key order, from one consistent view of the
	// store. It stops at fn's first error and returns it. fn must not call the store.
	Range(ctx context.Context, prefix string, fn func(KV) error) error

	// Close releases the store. Writes that were acknowledged stay.
	Close() error
}

// KV is one record. Rev is the revision of its last write: it grows with every write to the store and is never 0.
type KV struct {
	Key   string
	Value []byte
	Rev   int64
}

// Cond is a condition on one key: its record has revision Rev, or there is none (Rev 0).
type Cond struct {
	Key string
	Rev int64
	// NotNewer: Key is a prefix, and the condition is that no record whose key begins with it has a revision above Rev.
	NotNewer bool
}

// Absent is the condition that key has no record.
func Absent(key string) Cond { return Cond{Key: key} }

// Unchanged is the condition that kv is still the newest version of its record.
func Unchanged(kv KV) Cond { return Cond{Key: kv.Key, Rev: kv.Rev} }

// NotNewer is the condition that no record whose key begins with prefix has a revision above rev: since rev none was made or changed there.
// A record that was deleted does not count.
func NotNewer(prefix string, rev int64) Cond { return Cond{Key: prefix, Rev: rev, NotNewer: true} }

// Holds returns true if the condition holds for the record of the key, or for one of those under the prefix, that has revision rev.
func (c Cond) Holds(rev int64) bool { return rev == c.Rev || c.NotNewer && rev < c.Rev }

// Op is one write of a transaction: Put when Value is not nil, otherwise a delete. Deleting an absent key is no error.
type Op struct {
	Key   string
	Value []byte
}

// Put writes value under key; a nil value is stored as an empty one.
func Put(key string, value []byte) Op {
	if value == nil {
		value = []byte{}
	}
	return Op{Key: key, Value: value}
}

// Del removes key.
func Del(key string) Op { return Op{Key: key} }

// Result says what a transaction did.
type Result struct {
	// OK is true when all conditions held and the operations were applied.
	OK bool
	// Rev is the revision given to the records written, 0 when OK is false.
	Rev int64
	// Failed is, when OK is false, the first condition that did not hold.
	Failed Cond
}

// Errors that callers can match with errors.Is.
var (
	// ErrNotFound: the key has no record.
	ErrNotFound = errors.New("not found")
	// ErrUnavailable: the store cannot be used now; nothing was written.
	ErrUnavailable = errors.New("ledger unavailable")
	// ErrAmbiguous: the answer was lost; the transaction may have been applied.
	ErrAmbiguous = errors.New("ledger write not confirmed")
	// ErrRolledBack: the store shows an older state than before, or is another store. It comes with one of the two above.
	ErrRolledBack = errors.New("ledger shows an older state than before")
	// ErrCorrupt: the file is not a ledger, or is damaged. It was kept and not changed.
	ErrCorrupt = errors.New("ledger is damaged")
	// ErrNewer: the file was written by a newer version. It was kept and not changed.
	ErrNewer = errors.New("ledger was written by a newer version")
	// ErrClosed: the store is closed. It comes with ErrUnavailable.
	ErrClosed = errors.New("the ledger is closed")
	// ErrNoSpace: the store refuses all writes but deletes. It comes with ErrUnavailable.
	ErrNoSpace = errors.New("ledger out of space")
)

// maxKey is the length of the longest key in bytes.
const maxKey = 1024

// errKey is the error of [CheckKey].
var errKey = errors.New("a key is 1 to 1024 printable ASCII characters")

// CheckKey refuses keys that not every store can hold. All implementations call it, so that a key that works with one works with all.
func CheckKey(key string) error {
	if key == "" || len(key) > maxKey {
		return fmt.Errorf("key %.40q: %w", key, errKey)
	}
	for i := range len(key) {
		if key[i] <= ' ' || key[i] > '~' {
			return fmt.Errorf("key %.40q: %w", key, errKey)
		}
	}
	return nil
}

// CheckTxn applies [CheckKey] to every key of a transaction.
func CheckTxn(conds []Cond, then []Op) error {
	for _, c := range conds {
		if err := CheckKey(c.Key); err != nil {
			return err
		}
	}
	for _, op := range then {
		if err := CheckKey(op.Key); err != nil {
			return err
		}
	}
	return nil
}
