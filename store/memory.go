package store

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
)

// Memory is a Store in memory, for tests. It passes the conformance suite, and does not survive the process.
type Memory struct {
	data *memoryData

	mu     sync.Mutex // guards closing
	closed chan struct{}
}

// memoryData is what a restart keeps.
type memoryData struct {
	mu      sync.Mutex // guards the fields below
	rev     int64
	records map[string]KV
	history []Changes     // of the last revisions, at least historyKept
	changed chan struct{} // closed with the next change; nil if no watch waits for it
}

// historyKept is how many changes a watch can be behind. Older ones are compacted, so that the store does not grow with each write.
const historyKept = 1000

// NewMemory returns an empty store.
func NewMemory() *Memory {
	return &Memory{data: &memoryData{records: map[string]KV{}}, closed: make(chan struct{})}
}

// Reopen returns a new store on m's records, as opening a file again does. m itself is closed.
func (m *Memory) Reopen() *Memory {
	m.close()
	return &Memory{data: m.data, closed: make(chan struct{})}
}

// Txn implements [Store].
func (m *Memory) Txn(ctx context.Context, conds []Cond, then []Op) (Result, error) {
	if err := CheckTxn(conds, then); err != nil {
		return Result{}, err
	}
	if err := m.usable(ctx); err != nil {
		return Result{}, err
	}
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	for _, c := range conds {
		if !m.data.holds(c) {
			return Result{Failed: c}, nil
		}
	}
	if len(then) == 0 {
		return Result{OK: true, Rev: m.data.rev}, nil
	}
	m.data.apply(then)
	return Result{OK: true, Rev: m.data.rev}, nil
}

// holds checks a condition. The caller has the lock.
func (d *memoryData) holds(c Cond) bool {
	if !c.NotNewer {
		return c.Holds(d.records[c.Key].Rev)
	}
	for key, kv := range d.records {
		if strings.HasPrefix(key, c.Key) && !c.Holds(kv.Rev) {
			return false
		}
	}
	return true
}

// apply makes the writes of one transaction, and wakes those who watch. The caller has the lock.
func (d *memoryData) apply(then []Op) {
	d.rev++
	changes := Changes{Rev: d.rev, Events: make([]Event, 0, len(then))}
	for _, op := range then {
		kv := KV{Key: op.Key, Value: bytes.Clone(op.Value), Rev: d.rev}
		if op.Value == nil {
			delete(d.records, op.Key)
		} else {
			d.records[op.Key] = kv
		}
		changes.Events = append(changes.Events, Event{KV: kv, Deleted: op.Value == nil})
	}
	if len(d.history) == 2*historyKept {
		d.history = slices.Clone(d.history[historyKept:])
	}
	d.history = append(d.history, changes)
	if d.changed != nil {
		close(d.changed)
		d.changed = nil
	}
}

// Get implements [Store].
func (m *Memory) Get(ctx context.Context, key string) (KV, error) {
	if err := CheckKey(key); err != nil {
		return KV{}, err
	}
	if err := m.usable(ctx); err != nil {
		return KV{}, err
	}
	m.data.mu.Lock()
	defer m.data.mu.Unlock()
	kv, ok := m.data.records[key]
	if !ok {
		return KV{}, fmt.Errorf("record %s: %w", key, ErrNotFound)
	}
	kv.Value = bytes.Clone(kv.Value)
	return kv, nil
}

// Range implements [Store].
func (m *Memory) Range(ctx context.Context, prefix string, fn func(KV) error) error {
	if err := m.usable(ctx); err != nil {
		return err
	}
	for _, kv := range m.data.snapshot(prefix) {
		if err := fn(kv); err != nil {
			return err
		}
	}
	return nil
}

// snapshot is a copy of the records under prefix, in key order.
func (d *memoryData) snapshot(prefix string) []KV {
	d.mu.Lock()
	defer d.mu.Unlock()
	var kvs []KV
	for key, kv := range d.records {
		if strings.HasPrefix(key, prefix) {
			kv.Value = bytes.Clone(kv.Value)
			kvs = append(kvs, kv)
		}
	}
	slices.SortFunc(kvs, func(a, b KV) int { return strings.Compare(a.Key, b.Key) })
	return kvs
}

// memoryPage is how many records Pages reads at once: few, so that tests see several pages.
const memoryPage = 8

// Schema implements [Gate]: no older version uses the store.
func (m *Memory) Schema(context.Context) (int, error) { return SchemaNewest, nil }

// RaiseSchema implements [Gate].
func (m *Memory) RaiseSchema(context.Context) error { return nil }

// Pages implements [Watcher].
func (m *Memory) Pages(ctx context.Context, prefix string, fn func(rev int64, page []KV) error) error {
	from := ""
	for {
		if err := m.usable(ctx); err != nil {
			return err
		}
		rev, rest := m.data.from(prefix, from)
		page := rest[:min(len(rest), memoryPage)]
		if err := fn(rev, page); err != nil || len(page) == len(rest) {
			return err
		}
		from = page[len(page)-1].Key + "\x00"
	}
}

// from is a copy of the records under prefix whose keys are not before from, in key order.
func (d *memoryData) from(prefix, from string) (int64, []KV) {
	kvs := slices.DeleteFunc(d.snapshot(prefix), func(kv KV) bool { return kv.Key < from })
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.rev, kvs
}

// Watch implements [Watcher].
func (m *Memory) Watch(ctx context.Context, prefix string, rev int64, fn func(Changes) error) error {
	if rev == 0 {
		m.data.mu.Lock()
		rev = m.data.rev
		m.data.mu.Unlock()
		if err := fn(Changes{Rev: rev}); err != nil {
			return err
		}
	}
	for {
		news, changed, err := m.data.since(rev)
		if err != nil {
			return err
		}
		for _, c := range news {
			if err := fn(Changes{c.Rev, eventsUnder(prefix, c.Events)}); err != nil {
				return err
			}
			rev = c.Rev
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrUnavailable, ctx.Err())
		case <-m.closed:
			return fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
		}
	}
}

// since returns the changes after rev, and a channel that is closed with the next one.
func (d *memoryData) since(rev int64) ([]Changes, <-chan struct{}, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.changed == nil {
		d.changed = make(chan struct{})
	}
	oldest := d.rev - int64(len(d.history)) // after which all changes are known
	if rev < oldest {
		return nil, nil, fmt.Errorf("watch from revision %d: %w", rev+1, ErrCompacted)
	}
	return slices.Clone(d.history[rev-oldest:]), d.changed, nil
}

// eventsUnder returns the events of keys that begin with prefix.
func eventsUnder(prefix string, events []Event) []Event {
	var under []Event
	for _, e := range events {
		if strings.HasPrefix(e.Key, prefix) {
			e.Value = bytes.Clone(e.Value)
			under = append(under, e)
		}
	}
	return under
}

// Close implements [Store].
func (m *Memory) Close() error {
	m.close()
	return nil
}

// close makes every later call fail.
func (m *Memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.closed:
	default:
		close(m.closed)
	}
}

// usable answers why the store cannot be used now, nil when it can.
func (m *Memory) usable(ctx context.Context) error {
	select {
	case <-m.closed:
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
	default:
		return usable(ctx)
	}
}
