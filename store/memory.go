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

	mu     sync.Mutex // guards closed
	closed bool
}

// memoryData is what a restart keeps.
type memoryData struct {
	mu      sync.Mutex // guards the fields below
	rev     int64
	records map[string]KV
}

// NewMemory returns an empty store.
func NewMemory() *Memory { return &Memory{data: &memoryData{records: map[string]KV{}}} }

// Reopen returns a new store on m's records, as opening a file again does. m itself is closed.
func (m *Memory) Reopen() *Memory {
	m.close()
	return &Memory{data: m.data}
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
		if m.data.records[c.Key].Rev != c.Rev {
			return Result{Failed: c}, nil
		}
	}
	if len(then) == 0 {
		return Result{OK: true, Rev: m.data.rev}, nil
	}
	m.data.rev++
	for _, op := range then {
		if op.Value == nil {
			delete(m.data.records, op.Key)
			continue
		}
		m.data.records[op.Key] = KV{Key: op.Key, Value: bytes.Clone(op.Value), Rev: m.data.rev}
	}
	return Result{OK: true, Rev: m.data.rev}, nil
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

// Close implements [Store].
func (m *Memory) Close() error {
	m.close()
	return nil
}

// close makes every later call fail.
func (m *Memory) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
}

// usable answers why the store cannot be used now, nil when it can.
func (m *Memory) usable(ctx context.Context) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return fmt.Errorf("%w: %w", ErrUnavailable, ErrClosed)
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	return nil
}
