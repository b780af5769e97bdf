package cluster

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/record"
)

// A node's ID is in a file, which can be copied: two machines that were started from copies of one disk would be one node, draw the same
// prefetched addresses, and each release what it does not know of the other's containers. So each process of a node writes who it is beside
// the node's record, and rewrites that record: the condition of the writes of the process before it does not hold any more.

// ErrElsewhere: another process is the node with this ID. It matches [store.ErrUnavailable]: what is to be released is kept until this
// process has its place again.
var ErrElsewhere = fmt.Errorf("%w: another process is this node", store.ErrUnavailable)

const (
	prefixProcess = "cluster/process/" // cluster/process/ID in the shared store: the process that is the node
	keyMachine    = "cluster/machine"  // in the own ledger: the machine on which it is used
)

// Machine is what tells machines apart. An empty field is not known.
type Machine struct {
	Boot string // changes with each boot
	ID   string // of the hardware
}

// ThisMachine reads the machine's identity from the file systems proc and sys below root.
func ThisMachine(root string) Machine {
	read := func(file string) string {
		raw, _ := os.ReadFile(filepath.Join(root, file)) // not known with an error
		return strings.Trim(string(raw), " \n\x00")
	}
	m := Machine{Boot: read("proc/sys/kernel/random/boot_id")}
	for _, file := range []string{"sys/class/dmi/id/product_uuid", "sys/firmware/devicetree/base/serial-number"} {
		if text := read(file); text != "" {
			sum := sha256.Sum256([]byte("passthrough " + text)) // the serial number itself is not for other nodes
			m.ID = hex.EncodeToString(sum[:16])
			break
		}
	}
	return m
}

// is returns true if both are one machine, as far as it is known.
func (m Machine) is(other Machine) bool {
	return m.ID == "" || other.ID == "" || m.ID == other.ID || m.Boot != "" && m.Boot == other.Boot
}

// processRecord is the record of the process that is a node.
type processRecord struct {
	record.Extra
	V           int       `json:"v"`
	Incarnation string    `json:"incarnation"` // random, one for each process
	Boot        string    `json:"boot_id,omitempty"`
	Machine     string    `json:"machine,omitempty"`
	Host        string    `json:"host,omitempty"` // its name, for people
	Started     time.Time `json:"started,omitzero"`
}

// elsewhere is the error of a process that is not the node.
func (r processRecord) elsewhere(id string) error {
	return fmt.Errorf("%w: node %s is host %q on another machine since %s; if this disk was moved from there, run driver accept here; if it is a "+
		"copy, remove the networks with this IPAM driver here and run driver renew", ErrElsewhere, id, r.Host, r.Started.UTC().Format(time.RFC3339))
}

// OnMachine says on which machine the process runs. It must be called before the member is used.
func (m *Member) OnMachine(machine Machine) { m.machine = machine }

// takePlaceLocked makes this process the one that is the node, whose record is kv, and returns that record as it is then. A process whose place
// was taken does not take it back: two would take it from each other. It does if an operator has accepted its machine, see AcceptMachine.
func (m *Member) takePlaceLocked(ctx context.Context, kv store.KV) (store.KV, error) {
	ctx = store.WithToken(ctx, "") // the context's token names another transaction
	processKey := prefixProcess + m.id
	for {
		was, err := m.shared.Get(ctx, processKey)
		if errors.Is(err, store.ErrNotFound) {
			was, err = store.KV{Key: processKey}, nil
		}
		if err != nil {
			return kv, err
		}
		var rec processRecord
		if was.Rev != 0 {
			if rec, err = record.Decode[processRecord](was, record.Versions{Newest: recordVersion}); err != nil {
				return kv, err
			}
		}
		if rec.Incarnation == m.incarnation {
			return kv, m.keepMachineLocked(ctx)
		}
		if err := m.mayTakePlaceLocked(ctx, was.Rev != 0, rec); err != nil {
			return kv, err
		}
		rec.V, rec.Incarnation, rec.Boot, rec.Machine = recordVersion, m.incarnation, m.machine.Boot, m.machine.ID
		rec.Host, rec.Started = m.name, time.Now().UTC()
		put, err := record.Put(processKey, rec)
		if err != nil {
			return kv, err
		}
		r, err := m.shared.Txn(ctx, []store.Cond{store.Unchanged(kv), {Key: processKey, Rev: was.Rev}},
			[]store.Op{put, store.Put(kv.Key, kv.Value)})
		if err != nil && !errors.Is(err, store.ErrAmbiguous) {
			return kv, err
		}
		if err == nil && r.OK {
			kv.Rev = r.Rev
			return kv, m.keepMachineLocked(ctx)
		}
		kv, err = m.shared.Get(ctx, kv.Key)
		if errors.Is(err, store.ErrNotFound) { // callers would take ErrNotFound for one of their own records
			err = fmt.Errorf("%w: the node's record is not there; try again", store.ErrUnavailable)
		}
		if err != nil {
			return kv, err
		}
		if state, err := stateOf(kv); err != nil || state == stateLost {
			return kv, err
		}
	}
}

// mayTakePlaceLocked returns an error if this process must not take the place of the one in rec, if there is one.
func (m *Member) mayTakePlaceLocked(ctx context.Context, exists bool, rec processRecord) error {
	if m.placed && exists { // it was the node, and another process is
		return rec.elsewhere(m.id)
	}
	accepted, err := m.own.Get(ctx, keyMachine)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return fmt.Errorf("node's machine: %w", err)
	}
	if exists && !m.machine.is(Machine{Boot: rec.Boot, ID: rec.Machine}) && string(accepted.Value) != acceptAny {
		return rec.elsewhere(m.id)
	}
	return nil
}

// keepMachineLocked notes that this process is the node, and on which machine.
func (m *Member) keepMachineLocked(ctx context.Context) error {
	if !m.placed && m.machine.ID != "" {
		if _, err := m.own.Txn(ctx, nil, []store.Op{store.Put(keyMachine, []byte(m.machine.ID))}); err != nil {
			return fmt.Errorf("node's machine: %w", err)
		}
	}
	m.placed = true
	return nil
}

// acceptAny in place of a machine says that the next process may be on any.
const acceptAny = "any"

// CheckMachine returns an error that matches [ErrElsewhere] if the own ledger is the one of another machine. It uses only the own ledger.
func (m *Member) CheckMachine(ctx context.Context) error {
	kv, err := m.own.Get(ctx, keyMachine)
	if errors.Is(err, store.ErrNotFound) || err == nil && (string(kv.Value) == acceptAny || m.machine.is(Machine{ID: string(kv.Value)})) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("node's machine: %w", err)
	}
	return fmt.Errorf("%w: its records are those of another machine", ErrElsewhere)
}

// AcceptMachine makes the next process of a node take the node's place, whatever machine it is on: an operator knows that the disk was moved.
// own is the node's own ledger, which no process uses.
func AcceptMachine(ctx context.Context, own store.Store) error {
	_, err := own.Txn(ctx, nil, []store.Op{store.Put(keyMachine, []byte(acceptAny))})
	return err
}

// ForgetIdentity drops the node's ID, so that the next process is a new node: an operator knows that the disk is a copy. own is the node's own
// ledger, which no process uses; the caller must have dropped what the node held.
func ForgetIdentity(ctx context.Context, own store.Store) error {
	_, err := own.Txn(ctx, nil, []store.Op{store.Del(keyIdentity), store.Del(keyMachine)})
	return err
}
