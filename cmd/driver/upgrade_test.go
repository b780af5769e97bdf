package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/internal/admin"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// oldLedger is the folder of a ledger that the code of 96a386d wrote, and of the conversation that made it. Its files are never
// changed. A new record format gets a folder of its own, and this one must stay readable.
const oldLedger = "testdata/ledger/96a386d"

// TestLedgerOf96a386d checks three things. The conversation that made the old ledger writes the same records today, apart from
// fields and records that are new. A plugin
// that starts on the old ledger changes nothing in it by itself. It knows every network, device, pool and address in it: it
// gives the answers that the old code gave, and in the end it puts every device back and removes every record.
func TestLedgerOf96a386d(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReplay(t, "28.5")
		r.start()
		time.Sleep(time.Minute) // as after a boot
		r.playPart("written.txt")
		r.stop()
		old, written := r.useOldLedger()
		older := old.withoutIDs()
		if diff := cmp.Diff(known(t, older, older), known(t, written.withoutIDs(), older)); diff != "" {
			t.Errorf("records (-96a386d +today):\n%s", diff)
		}

		r.start()
		time.Sleep(20 * time.Second) // for the background loops of both drivers
		r.stop()
		if diff := cmp.Diff(old.records, recordsIn(t, filepath.Join(r.state, ledgerFile))); diff != "" {
			t.Errorf("without a call the ledger changed (-before +after):\n%s", diff)
		}

		r.start()
		r.warnings = append(r.warnings, "eth0: rename to ens1f0v1") // the old code had not bound the VF again, which gives it that name
		r.playPart("reopened.txt")
		r.kernel.DelLink("ens1f0v1") // it had the name of the VF that is quarantined
		r.playPart("ended.txt")
		time.Sleep(10 * time.Minute) // for garbage collection
		r.stop()
		r.checkEnd()
	})
}

// playPart plays one file of the conversation.
func (r *replay) playPart(file string) {
	r.Helper()
	script, err := readTranscript(filepath.Join(oldLedger, file))
	if err != nil {
		r.Fatal(err)
	}
	for i, line := range script.lines {
		if strings.HasPrefix(line, "<") { // the old code handed devices over under their own names, and did not bind VFs again
			line = withCommand(strings.ReplaceAll(line, oldReason, newReason))
			script.lines[i] = ownSource.ReplaceAllString(line, `"SrcName":"$$d$1$2$3"`)
		}
	}
	r.lines(script)
}

// withCommand adds to an error in a line of a conversation the command that tells more, which the old code did not name.
func withCommand(line string) string {
	text, ok := strings.CutSuffix(line, `"}`)
	whole := ok && strings.Contains(text, `{"Err":"`) && !strings.HasSuffix(text, "...")
	if command := admin.TellsMore(text); whole && command != "" {
		return text + "; more: passthroughctl " + command + `"}`
	}
	return line
}

// oldReason is why a VF could not be put back: the name that its container had given it is in it. newReason has the name that it gets
// from the kernel when it is bound again.
const oldReason, newReason = "hw0: rename to ens1f0v1", "eth0: rename to ens1f0v1"

// known leaves of lines of withoutIDs the records and fields that an older ledger has, so that the rest can be compared.
func known(t *testing.T, lines, older []string) []string {
	t.Helper()
	records := map[string]any{}
	for _, line := range older {
		key, value := splitRecord(t, line)
		records[key] = value
	}
	var kept []string
	for _, line := range lines {
		key, value := splitRecord(t, line)
		was, ok := records[key]
		if !ok {
			continue
		}
		text, err := json.Marshal(dropNew(value, was))
		if err != nil {
			t.Fatal(err)
		}
		kept = append(kept, key+" "+strings.ReplaceAll(string(text), newReason, oldReason))
	}
	return kept
}

// splitRecord returns the key and the value of a line of withoutIDs.
func splitRecord(t *testing.T, line string) (key string, value any) {
	t.Helper()
	key, text, _ := strings.Cut(line, " ")
	if !strings.HasPrefix(text, "{") {
		return key, text
	}
	if err := json.Unmarshal([]byte(text), &value); err != nil {
		t.Fatalf("%s: %v", line, err)
	}
	return key, value
}

// dropNew removes from a value the fields that an older one does not have.
func dropNew(value, older any) any {
	now, isObject := value.(map[string]any)
	was, wasObject := older.(map[string]any)
	if !isObject || !wasObject {
		return value
	}
	for field := range now {
		if _, ok := was[field]; !ok {
			delete(now, field)
			continue
		}
		now[field] = dropNew(now[field], was[field])
	}
	return now
}

// ownSource matches the name in the host of a device that is handed over.
var ownSource = regexp.MustCompile(`"SrcName":"ens(\d)f(\d)v?(\d?)"`)

// savedLedger is what a ledger contains, and the IDs that the plugin has answered meanwhile.
type savedLedger struct {
	records []store.KV
	names   names
}

// useOldLedger puts the old ledger in the place of the plugin's, and lets the engine use the pool IDs of the old one. It returns
// both.
func (r *replay) useOldLedger() (old, written savedLedger) {
	r.Helper()
	path := filepath.Join(r.state, ledgerFile)
	written = savedLedger{recordsIn(r.T, path), r.names}
	file, errFile := os.ReadFile(filepath.Join(oldLedger, ledgerFile))
	ids, errIDs := os.ReadFile(filepath.Join(oldLedger, "names.json"))
	err := errors.Join(errFile, errIDs, os.WriteFile(path, file, 0o600), json.Unmarshal(ids, &old.names))
	if err != nil {
		r.Fatal(err)
	}
	old.records = recordsIn(r.T, path)
	for name, id := range written.names {
		if pool, ok := r.dockerd.pools[id]; ok {
			r.dockerd.pools[old.names[name]] = pool
		}
	}
	r.names = old.names
	return old, written
}

// recordsIn reads all records of a ledger that is not in use, in the order of their keys.
func recordsIn(t *testing.T, path string) []store.KV {
	t.Helper()
	ledger, err := boltstore.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	var all []store.KV
	err = ledger.Range(t.Context(), "", func(kv store.KV) error {
		kv.Value = bytes.Clone(kv.Value)
		all = append(all, kv)
		return nil
	})
	if err := errors.Join(err, ledger.Close()); err != nil {
		t.Fatal(err)
	}
	return all
}

// varying matches the fields of records that vary from run to run: the time of a change, which depends on how often a device was
// polled, and the random IDs of the process that confirmed a network and of the request that took an address.
var varying = regexp.MustCompile(`"(since|created)":"2000-01-01T00:01:[0-9.]+Z"|"(process|token)":"[A-Z2-7]{26}"`)

// withoutIDs is the text of all records in the order of their keys, byte for byte but for varying fields and the IDs of pools.
func (s savedLedger) withoutIDs() []string {
	var lines []string
	for _, kv := range s.records {
		line := kv.Key + " " + string(kv.Value)
		for _, name := range slices.Sorted(maps.Keys(s.names)) {
			id := s.names[name]
			pool, share, _ := strings.Cut(strings.TrimPrefix(id, "v1:"), ".")
			line = strings.ReplaceAll(line, pool, name)
			if share != "" {
				line = strings.ReplaceAll(line, share, name+"-share")
			}
		}
		lines = append(lines, varying.ReplaceAllString(line, `"$1$2":"varies"`))
	}
	slices.Sort(lines)
	return lines
}
