package store

import (
	"errors"
	"fmt"
)

// maxKey is the length of the longest key in bytes.
const maxKey = 1024

// errKey is returned for keys that no record may have.
var errKey = errors.New("a key is 1 to 1024 printable ASCII characters")

// checkKey refuses keys that a store need not be able to hold. All implementations apply it, so that a key that works
// with one works with all.
func checkKey(key string) error {
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

// checkTxn applies checkKey to every key of a transaction.
func checkTxn(conds []Cond, then []Op) error {
	for _, c := range conds {
		if err := checkKey(c.Key); err != nil {
			return err
		}
	}
	for _, op := range then {
		if err := checkKey(op.Key); err != nil {
			return err
		}
	}
	return nil
}
