package boltstore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"
	"time"

	"go.etcd.io/bbolt"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/mellanox/passthrough/store"
)

// Option changes how [Open] opens a ledger.
type Option func(*options)

// options are the settings behind [Option].
type options struct {
	lockTimeout time.Duration
	maxSize     int
}

// LockTimeout bounds the wait for another process that has the ledger open; the default is 2 seconds.
func LockTimeout(d time.Duration) Option { return func(o *options) { o.lockTimeout = d } }

// MaxSize bounds the file in bytes: writes that would make it larger fail and change nothing. 0, the default, is no
// bound.
func MaxSize(bytes int) Option { return func(o *options) { o.maxSize = bytes } }

const (
	dirMode  = 0o700
	fileMode = 0o600

	defaultLockTimeout = 2 * time.Second
	lockRetry          = 20 * time.Millisecond

	suffixNew     = ".new-"     // a ledger that is being built; removed at the next open
	suffixDamaged = ".damaged-" // a damaged ledger; the time at which it was renamed follows
)

// Open opens the ledger in the file at path. It makes the file and its directory if there are none.
//
// A file that is not a ledger or is damaged is renamed aside, and the error matches [store.ErrCorrupt]. Every later open fails, too, until
// an administrator has removed or restored the kept file: an empty ledger would hand out devices and addresses that are in use. A file of
// a newer version is left in place; the error matches [store.ErrNewer]. If another process has the ledger open, the error matches
// [store.ErrUnavailable].
func Open(path string, opts ...Option) (store.Store, error) {
	o := options{lockTimeout: defaultLockTimeout}
	for _, opt := range opts {
		opt(&o)
	}
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if err := create(path); err != nil {
			return nil, err
		}
	}
	file, err := lockFile(path, o.lockTimeout)
	if err != nil {
		return nil, err
	}
	if err := check(file); err != nil {
		return nil, errors.Join(refuse(path, err), file.Close())
	}
	removeLeftovers(path)
	return openLocked(path, file, o)
}

// openLocked passes the locked and checked file to bbolt, which locks the same descriptor again: no other process can lock it in between.
func openLocked(path string, file *os.File, o options) (store.Store, error) {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{
		Timeout:  o.lockTimeout,
		MaxSize:  o.maxSize,
		OpenFile: func(string, int, os.FileMode) (*os.File, error) { return file, nil },
	})
	if err != nil {
		return nil, &fileError{path: path, attempt: "open", kind: store.ErrUnavailable, cause: err}
	}
	return &bolt{path: path, db: db, queue: newQueue()}, nil
}

// lockFile opens path and takes the lock that bbolt uses. It waits at most timeout for another process.
func lockFile(path string, timeout time.Duration) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR, fileMode)
	if err != nil {
		return nil, &fileError{path: path, attempt: "open", kind: store.ErrUnavailable, cause: err}
	}
	if err := waitForLock(file, timeout); err != nil {
		return nil, errors.Join(&fileError{path: path, attempt: "lock", kind: store.ErrUnavailable, cause: err,
			remedy: "another instance of the plugin has it open; stop that one first"}, file.Close())
	}
	// During the wait the process with the lock may have renamed the file aside.
	held, err := file.Stat()
	if err == nil {
		var named fs.FileInfo
		if named, err = os.Stat(path); err == nil && !os.SameFile(held, named) {
			err = errors.New("the file was replaced meanwhile")
		}
	}
	if err != nil {
		return nil, errors.Join(&fileError{path: path, attempt: "open", kind: store.ErrUnavailable, cause: err}, file.Close())
	}
	return file, nil
}

// waitForLock takes the exclusive lock on file within timeout.
func waitForLock(file *os.File, timeout time.Duration) error {
	err := retry.Poll(context.Background(), lockRetry, timeout, func() (bool, error) {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if errors.Is(err, syscall.EWOULDBLOCK) || errors.Is(err, syscall.EINTR) {
			return false, nil
		}
		return true, err
	})
	if errors.Is(err, retry.ErrTimeout) {
		return fmt.Errorf("still locked after %v", timeout)
	}
	return err
}

// refuse turns an error of [check] into the error for the user, and renames a damaged file aside.
func refuse(path string, found error) error {
	switch {
	case errors.Is(found, store.ErrNewer):
		return &fileError{path: path, attempt: "open", cause: found,
			remedy: "upgrade the plugin, or go back to the version that wrote it"}
	case errors.Is(found, store.ErrCorrupt):
		kept, err := setAside(path)
		if err != nil {
			return &fileError{path: path, attempt: "set the damaged file aside", kind: store.ErrCorrupt,
				cause: fmt.Errorf("%w (%w)", err, found)}
		}
		return damaged(path, kept, found)
	}
	return &fileError{path: path, attempt: "read", kind: store.ErrUnavailable, cause: found}
}

// damaged returns the error for a ledger that was renamed aside.
func damaged(path, kept string, why error) error {
	return &fileError{path: path, attempt: "open", kind: store.ErrCorrupt, cause: why,
		remedy: fmt.Sprintf("the file was kept as %s; put a good copy at %s, or move the kept file to another directory "+
			"to start empty, once no container uses a device or an address of this plugin", kept, path)}
}

// setAside renames a damaged ledger and returns its new name.
func setAside(path string) (string, error) {
	base := path + suffixDamaged + time.Now().UTC().Format("20060102T150405Z")
	kept := base
	for n := 2; ; n++ {
		if _, err := os.Lstat(kept); errors.Is(err, fs.ErrNotExist) {
			break
		} else if err != nil {
			return "", err
		}
		kept = fmt.Sprintf("%s-%d", base, n)
	}
	if err := os.Rename(path, kept); err != nil {
		return "", err
	}
	return kept, syncDir(filepath.Dir(path))
}

// create makes an empty ledger at path, unless a damaged one was renamed aside there. It builds the file under another name and links it
// into place, so that a crash leaves either no ledger or a good one; link, unlike rename, does not replace a file that another process
// made meanwhile.
func create(path string) error {
	fail := func(cause error) error {
		return &fileError{path: path, attempt: "create", kind: store.ErrUnavailable, cause: cause}
	}
	kept, err := siblings(path, suffixDamaged)
	if err != nil {
		return fail(err)
	}
	if len(kept) > 0 {
		return damaged(path, kept[len(kept)-1], fmt.Errorf("an earlier %w", store.ErrCorrupt))
	}
	dir := filepath.Dir(path)
	if err := makeDir(dir); err != nil {
		return fail(err)
	}
	file, err := os.CreateTemp(dir, filepath.Base(path)+suffixNew+"*")
	if err != nil {
		return fail(err)
	}
	built := file.Name()
	err = errors.Join(file.Close(), initialize(built))
	if err == nil {
		err = os.Link(built, path)
	}
	if err = errors.Join(err, os.Remove(built)); err != nil && !errors.Is(err, fs.ErrExist) {
		return fail(err)
	}
	if err := syncDir(dir); err != nil {
		return fail(err)
	}
	return nil
}

// initialize makes an empty ledger of the empty file at path and syncs it.
func initialize(path string) error {
	db, err := bbolt.Open(path, fileMode, &bbolt.Options{Timeout: defaultLockTimeout})
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		meta, err := tx.CreateBucket([]byte(bucketMeta))
		if err != nil {
			return err
		}
		if _, err := tx.CreateBucket([]byte(bucketRecords)); err != nil {
			return err
		}
		return meta.Put([]byte(metaSchema), fmt.Append(nil, schemaVersion))
	})
	return errors.Join(err, db.Sync(), db.Close())
}

// makeDir makes dir durably, accessible for its owner alone. It restricts an existing empty directory likewise: engines make the state
// directory of a managed plugin readable for all. It leaves a directory with files as it is.
func makeDir(dir string) error {
	if entries, err := os.ReadDir(dir); err == nil {
		if len(entries) > 0 {
			return nil
		}
		return os.Chmod(dir, dirMode)
	}
	if err := os.MkdirAll(dir, dirMode); err != nil {
		return err
	}
	return syncDir(filepath.Dir(dir))
}

// syncDir makes the names in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// siblings lists the files named path, suffix and more, in name order.
func siblings(path, suffix string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Dir(path))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	var found []string
	prefix := filepath.Base(path) + suffix
	for _, e := range entries {
		if len(e.Name()) > len(prefix) && e.Name()[:len(prefix)] == prefix {
			found = append(found, filepath.Join(filepath.Dir(path), e.Name()))
		}
	}
	return found, err
}

// removeLeftovers removes half-built ledgers that a crash during creation left. A failure is harmless.
func removeLeftovers(path string) {
	left, err := siblings(path, suffixNew)
	if err != nil {
		return
	}
	for _, name := range left {
		_ = os.Remove(name)
	}
}

// Build makes a ledger with these records at path, in place of one that is there and not open. After a crash there is the old one or the new
// one, in whole. Revisions are new.
func Build(path string, records []store.KV) error {
	file, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+suffixNew+"*")
	if err != nil {
		return err
	}
	built := file.Name()
	defer func() { _ = os.Remove(built) }() // it is not there any more if all went well
	if err := errors.Join(file.Close(), initialize(built)); err != nil {
		return err
	}
	s, err := Open(built)
	if err != nil {
		return err
	}
	for batch := range slices.Chunk(records, buildBatch) {
		var ops []store.Op
		for _, kv := range batch {
			ops = append(ops, store.Put(kv.Key, kv.Value))
		}
		if _, err := s.Txn(context.Background(), nil, ops); err != nil {
			return errors.Join(err, s.Close())
		}
	}
	if err := s.Close(); err != nil {
		return err
	}
	if s, err = Open(built); err == nil { // which checks it
		err = s.Close()
	}
	if err != nil {
		return err
	}
	if err := os.Rename(built, path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// buildBatch is the number of records in one transaction of Build.
const buildBatch = 1000
