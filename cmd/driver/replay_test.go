package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/zap/zapcore"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/hwtest"
	"github.com/mellanox/passthrough/store"
	"github.com/mellanox/passthrough/store/boltstore"
)

// TestReplay plays whole conversations with engines, in their own words, to a plugin that has all of its parts but the
// kernel and the path of its socket. The calls, their order and every key in them are what engines 20.10.24, 26.1.5, 28.5.2
// and 29.7.2 have been seen to send to a plugin that wrote everything down; the users' options are ours.
//
// The answers are compared with testdata/engine/ENGINE/SCENARIO.txt; UPDATE=1 writes the given answers there, to be reviewed. Besides,
// each answer is one that the engine accepts, and in the end nothing is left: no record, no device away or changed, no warning that the
// scenario does not name.
func TestReplay(t *testing.T) {
	replayAll(t, "testdata/engine")
}

// replayAll replays the transcripts of a folder, which has a folder per release.
func replayAll(t *testing.T, folder string) {
	t.Helper()
	files, err := filepath.Glob(folder + "/*/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no transcripts: %v", err)
	}
	for _, file := range files {
		release := filepath.Base(filepath.Dir(file))
		t.Run(release+"/"+strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			script, err := readTranscript(file)
			if err != nil {
				t.Fatal(err)
			}
			synctest.Test(t, func(t *testing.T) { newReplay(t, release).play(script) })
		})
	}
}

// A replay is a plugin, the machine that it runs on, and the state of the engine.
type replay struct {
	*testing.T
	dockerd  dockerd
	kernel   *hwtest.Kernel
	before   string // the machine before the first call
	state    string // the plugin's directory
	log      logBuffer
	warnings []string      // that the scenario names
	left     []string      // key prefixes of the records that the scenario leaves in the end
	refused  int           // number of refused calls, each with a warning in the log
	listener *pipeListener // of the running plugin
	stop     func()        // stops that plugin
	patience time.Duration
	names    names
}

// nics are the NICs of the machine: two with VFs, the second with a slow driver, and a plain one.
var nics = []hwtest.PF{
	{Name: "ens1f0", PCI: "0000:01:00.0", MAC: "52:54:00:aa:00:00", TotalVFs: 4,
		CarrierAfter: 3 * time.Second, VFCarrierAfter: 100 * time.Millisecond, ProbeTakes: 40 * time.Millisecond},
	{Name: "ens2f0", PCI: "0000:02:00.0", MAC: "52:54:00:bb:00:00", TotalVFs: 2, Up: true, ProbeTakes: 3500 * time.Millisecond},
	{Name: "ens3f0", PCI: "0000:03:00.0", MAC: "52:54:00:cc:00:00", Up: true},
}

// newReplay returns a machine without a plugin yet.
func newReplay(t *testing.T, release string) *replay {
	t.Helper()
	r := &replay{T: t, kernel: hwtest.New(t), names: names{}}
	r.dockerd = newDockerd(release, r.kernel)
	r.state = t.TempDir()
	for _, nic := range nics {
		r.kernel.AddPF(nic)
	}
	return r
}

// start starts a plugin as run does, but with the fake kernel and without a socket.
func (r *replay) start() {
	cfg, err := configFrom(nil, func(name string) string { return map[string]string{"STATE_DIR": r.state}[name] })
	if err != nil {
		r.Fatal(err)
	}
	log := newLogger(logJSON, &r.log, &r.log, zapcore.DebugLevel)
	stopped, stop := context.WithCancel(context.Background())
	drivers := open(cfg, hw.Config{Sys: r.kernel.Sys, Kernel: r.kernel, Boot: "boot"}, log)
	limits := limitsFor(cfg.handlerTimeout)
	listener, ended := newPipeListener(), make(chan error, 1)
	go func() {
		err := newServer(routes(drivers), limits, log).serve(stopped, listener)
		drivers.close(limits.closing)
		ended <- err
	}()
	r.listener = listener
	r.stop = func() {
		stop()
		if err := <-ended; err != nil {
			r.Errorf("stop: %v", err)
		}
	}
}

// play replays a scenario.
func (r *replay) play(script *transcript) {
	r.start()
	time.Sleep(time.Minute) // as after a boot
	given := r.lines(script)
	time.Sleep(10 * time.Minute) // background work
	r.stop()
	r.checkEnd()
	if os.Getenv("UPDATE") == "" {
		return
	}
	script.lines = given
	if err := script.write(); err != nil {
		r.Error(err)
	}
}

// lines replays each line. It returns them with the answers that were given.
func (r *replay) lines(script *transcript) (given []string) {
	for i := 0; i < len(script.lines); i++ {
		at, text := fmt.Sprintf("%s:%d: %s", script.path, i+1, script.lines[i]), script.lines[i]
		given = append(given, text)
		rest := strings.TrimSpace(strings.TrimLeft(text, ">!"))
		switch {
		case strings.HasPrefix(text, ">"):
			if r.before == "" {
				r.before = r.kernel.String()
			}
			want := ""
			if i+1 < len(script.lines) && strings.HasPrefix(script.lines[i+1], "<") {
				i++
				want = script.lines[i]
			}
			got, err := r.call(rest, want)
			if err != nil && (os.Getenv("UPDATE") == "" || !errors.Is(err, errOther)) {
				r.Errorf("%s\n%v", at, err)
			}
			if got != "" {
				given = append(given, got)
			}
			if strings.Contains(rest, "DeleteEndpoint") {
				time.Sleep(2 * time.Second) // its device is back when the next container comes, as it was when this was recorded
			}
		case strings.HasPrefix(text, "!"):
			if err := r.do(rest); err != nil {
				r.Errorf("%s: %v", at, err)
			}
		case text != "" && text[0] != '#' && text[0] != '$':
			r.Errorf("%s: no line of a transcript", at)
		}
	}
	return given
}

// checkEnd checks that the scenario left nothing behind.
func (r *replay) checkEnd() {
	if diff := cmp.Diff(r.before, r.kernel.String()); diff != "" {
		r.Errorf("the machine (-before +after):\n%s", diff)
	}
	ledger, err := boltstore.Open(filepath.Join(r.state, ledgerFile))
	if err != nil {
		r.Fatal(err)
	}
	left := map[string]bool{}
	err = ledger.Range(r.Context(), "", func(kv store.KV) error {
		i := slices.IndexFunc(r.left, func(prefix string) bool { return strings.HasPrefix(kv.Key, prefix) })
		if i < 0 {
			r.Errorf("left in the ledger: %s %s", kv.Key, kv.Value)
			return nil
		}
		left[r.left[i]] = true
		return nil
	})
	if len(left) != len(r.left) {
		r.Errorf("left in the ledger: %v, want %v", left, r.left)
	}
	if err := errors.Join(err, ledger.Close()); err != nil {
		r.Error(err)
	}
	r.checkLog()
}

// checkLog checks that each warning in the log belongs to a refused call or is named by the scenario.
func (r *replay) checkLog() {
	known, refused := r.warnings, 0
	for _, text := range strings.Split(r.log.String(), "\n") {
		switch {
		case !strings.HasPrefix(text, `{"level":"warn"`) && !strings.HasPrefix(text, `{"level":"error"`):
		case strings.Contains(text, `"msg":"call"`):
			refused++
		case len(known) > 0 && strings.Contains(text, known[0]):
			known = known[1:]
		default:
			r.Errorf("the log has, unexpectedly: %s", text)
		}
	}
	if len(known) > 0 {
		r.Errorf("the log does not have: %q", known)
	}
	if refused != r.refused {
		r.Errorf("the log has %d calls that were refused, want %d", refused, r.refused)
	}
}

// errOther: the answer is not the expected one.
var errOther = errors.New("another answer")

// call makes one call; got is the line of the answer.
func (r *replay) call(text, want string) (got string, err error) {
	op, body, _ := strings.Cut(text, " ")
	if body, err = r.names.expand(body); err != nil {
		return want, err
	}
	status, answer, err := r.post(op, body)
	if errors.Is(err, context.DeadlineExceeded) {
		r.refused++
		if want != "< lost" {
			err = fmt.Errorf("%w: lost, want %s", errOther, want)
			return "< lost", err
		}
		return want, nil
	}
	if err != nil {
		return want, err
	}
	if status != http.StatusOK {
		r.refused++
	} else if err := r.dockerd.take(op, body, answer); err != nil {
		return want, fmt.Errorf("%s, which the engine does not take: %w", answer, err)
	}
	return r.compare(want, status, answer)
}

// compare compares an answer with the expected one, and learns the names from it.
func (r *replay) compare(want string, status int, answer string) (got string, err error) {
	w, err := readWanted(want)
	if err != nil {
		return want, err
	}
	var body any
	if err := json.Unmarshal([]byte(answer), &body); err != nil {
		return want, fmt.Errorf("%s: %w", answer, err)
	}
	body = brief(body)
	r.names.learn(w.body, body)
	raw, err := json.Marshal(w.body)
	if err != nil {
		return want, err
	}
	expanded, err := r.names.expand(string(raw))
	if err != nil {
		return want, err
	}
	var wantBody any
	if err := json.Unmarshal([]byte(expanded), &wantBody); err != nil {
		return want, err
	}
	diff := cmp.Diff(wantBody, body, openEnded)
	if diff == "" && status == w.status && !w.lost {
		return want, nil
	}
	got = "< "
	if status != http.StatusOK {
		got += fmt.Sprint(status, " ")
	}
	plain, err := json.Marshal(body)
	if err != nil {
		return want, err
	}
	err = fmt.Errorf("%w: status %d, want %d (-want +got):\n%s", errOther, status, w.status, diff)
	return got + r.names.shorten(string(plain)), err
}

// brief removes from an answer what the engine treats as absent: null and "".
func brief(v any) any {
	if m, ok := v.(map[string]any); ok {
		for k, inner := range m {
			if m[k] = brief(inner); inner == nil || inner == "" {
				delete(m, k)
			}
		}
	}
	return v
}

// post sends a request as an engine does.
func (r *replay) post(op, body string) (status int, answer string, err error) {
	ctx, cancel := r.Context(), func() {}
	if r.patience > 0 {
		ctx, cancel = context.WithTimeout(ctx, r.patience)
	}
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://plugin.moby.localhost/"+op, bytes.NewBufferString(body))
	if err != nil {
		return 0, "", err
	}
	req.Header.Set("Accept", contentType)
	resp, err := r.listener.client().Do(req)
	if err != nil {
		return 0, "", err
	}
	out, err := io.ReadAll(resp.Body)
	if got := resp.Header.Get("Content-Type"); got != contentType {
		r.Errorf("%s: Content-Type %q", op, got)
	}
	return resp.StatusCode, string(out), errors.Join(err, resp.Body.Close())
}

// A sideEvent is an event between the calls.
type sideEvent struct {
	words int // that it needs
	do    func(r *replay, words []string) error
}

// sideEvents are all kinds of them. When the engine moves a device depends on its release: before or after it calls Leave.
var sideEvents = map[string]sideEvent{
	// move ENDPOINT DEVICE: the engine moves the device that Join returned into the container, where its name is DEVICE.
	"move": {2, func(r *replay, w []string) error { return r.dockerd.move(w[0], w[1]) }},
	// home ENDPOINT: it moves it back.
	"home": {1, func(r *replay, w []string) error { return r.dockerd.home(w[0]) }},
	// end SANDBOX [AFTER]: the container's network namespace ends; the kernel moves its devices back.
	"end": {1, func(r *replay, w []string) error {
		after, err := bounded(strings.Join(w[1:], ""))
		r.kernel.KillNS(w[0], after)
		return err
	}},
	// pull NIC: a NIC is removed from the bus. plug NIC: it is back, as at the start.
	"pull": {1, func(r *replay, w []string) error {
		nic, err := nicOf(w[0])
		if err == nil {
			r.kernel.RemovePF(nic.PCI)
		}
		return err
	}},
	"plug": {1, func(r *replay, w []string) error {
		nic, err := nicOf(w[0])
		if err == nil {
			r.kernel.AddPF(nic)
		}
		return err
	}},
	// veth DEVICE ADDRESS: the machine gets a pair of devices; the other end, DEVICEp, answers for that address.
	"veth": {2, func(r *replay, w []string) error { return r.veth(w[0], w[1]) }},
	// bridge DEVICE: the machine gets a bridge.
	"bridge": {1, func(r *replay, w []string) error {
		r.kernel.AddLink(hw.Link{Name: w[0], Kind: "bridge"})
		return nil
	}},
	// router DEVICE ADDRESS ROUTER: a device gets that address and the default route.
	"router": {3, func(r *replay, w []string) error {
		r.kernel.AddAddrs(w[0], w[1])
		r.kernel.AddRoutes(w[0], hw.Route{Dst: "0.0.0.0/0", Gateway: w[2]})
		return nil
	}},
	// restart: the plugin's process is stopped and a new one started.
	"restart": {0, func(r *replay, _ []string) error {
		r.stop()
		r.start()
		return nil
	}},
	// patience TIME: the engine's timeout from now on; 0s is none.
	"patience": {1, func(r *replay, w []string) (err error) {
		r.patience, err = bounded(w[0])
		return err
	}},
	// wait TIME: time passes.
	"wait": {1, func(_ *replay, w []string) error {
		d, err := bounded(w[0])
		time.Sleep(d)
		return err
	}},
	// left PREFIX: records with such keys are left in the end, because no call of the engine removes them.
	"left": {1, func(r *replay, w []string) error {
		r.left = append(r.left, w[0])
		return nil
	}},
	// log TEXT...: the plugin logs a warning that contains TEXT, after the ones that were named before.
	"log": {1, func(r *replay, w []string) error {
		r.warnings = append(r.warnings, strings.Join(w, " "))
		return nil
	}},
}

// do runs a side event.
func (r *replay) do(text string) error {
	text, err := r.names.expand(text)
	if err != nil {
		return err
	}
	words := strings.Fields(text)
	if len(words) == 0 || sideEvents[words[0]].do == nil || len(words) <= sideEvents[words[0]].words {
		return errors.New("no such side event")
	}
	return sideEvents[words[0]].do(r, words[1:])
}

// nicOf finds a NIC by name.
func nicOf(name string) (hwtest.PF, error) {
	for _, nic := range nics {
		if nic.Name == name {
			return nic, nil
		}
	}
	return hwtest.PF{}, errors.New("no such NIC")
}
