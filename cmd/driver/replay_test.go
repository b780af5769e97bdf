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
// What each answer has to be is in testdata/engine/ENGINE/STORY.txt; UPDATE=1 writes the answers that were given there, for
// people to judge. Besides, each answer is one that the engine can work with, and at the end nothing is left: no record, no
// device away or changed, no warning that the story does not know of.
func TestReplay(t *testing.T) {
	replayAll(t, "testdata/engine")
}

// replayAll plays the transcripts that a folder has in folders of releases.
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

// A replay is a plugin, the machine that it runs on, and what the engine remembers.
type replay struct {
	*testing.T
	dockerd  dockerd
	kernel   *hwtest.Kernel
	before   string // the machine, when nothing has been said yet
	state    string // the plugin's directory
	log      logBuffer
	warnings []string // that the story knows of
	left     []string // prefixes of the records that the story says are left at its end
	refused  int      // answers of a status that makes one more warning each
	line     *line    // to the plugin that is at work
	stop     func()   // stops that plugin
	patience time.Duration
	names    names
}

// nics are what the machine has: two that divide into VFs, the second with a slow driver, and a plain one.
var nics = []hwtest.PF{
	{Name: "ens1f0", PCI: "0000:01:00.0", MAC: "52:54:00:aa:00:00", TotalVFs: 4,
		CarrierAfter: 3 * time.Second, VFCarrierAfter: 100 * time.Millisecond, ProbeTakes: 40 * time.Millisecond},
	{Name: "ens2f0", PCI: "0000:02:00.0", MAC: "52:54:00:bb:00:00", TotalVFs: 2, Up: true, ProbeTakes: 3500 * time.Millisecond},
	{Name: "ens3f0", PCI: "0000:03:00.0", MAC: "52:54:00:cc:00:00", Up: true},
}

// newReplay is a machine without a plugin yet.
func newReplay(t *testing.T, release string) *replay {
	t.Helper()
	r := &replay{T: t, kernel: hwtest.New(t), names: names{}}
	r.dockerd = newDockerd(release, r.kernel)
	r.state = filepath.Join(filepath.Dir(r.kernel.Sys), "state")
	for _, nic := range nics {
		r.kernel.AddPF(nic)
	}
	if err := os.Mkdir(r.state, 0o700); err != nil {
		t.Fatal(err)
	}
	return r
}

// start starts a plugin as run does, but on the fake kernel and without a path for its socket.
func (r *replay) start() {
	cfg, err := configFrom(func(name string) string { return map[string]string{"STATE_DIR": r.state}[name] })
	if err != nil {
		r.Fatal(err)
	}
	log := newLogger(&r.log, zapcore.DebugLevel)
	stopped, stop := context.WithCancel(context.Background())
	drivers := open(cfg, hw.Config{Sys: r.kernel.Sys, Kernel: r.kernel, Boot: "boot"}, log)
	limits := limitsFor(cfg.handlerTimeout)
	line, ended := newLine(), make(chan error, 1)
	go func() {
		err := newServer(routes(drivers), limits, log).serve(stopped, line)
		drivers.close(limits.closing)
		ended <- err
	}()
	r.line = line
	r.stop = func() {
		stop()
		if err := <-ended; err != nil {
			r.Errorf("stop: %v", err)
		}
	}
}

// play plays a story from its beginning to its end.
func (r *replay) play(script *transcript) {
	r.start()
	time.Sleep(time.Minute) // as after a boot
	given := r.lines(script)
	time.Sleep(10 * time.Minute) // whatever is done without being told
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

// lines plays each line; it returns them with the answers that were given.
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

// checkEnd checks that nothing is left of the story.
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

// checkLog checks that each warning in the log is for an answer that was no, or that the story knows of it.
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

// errOther is the error of an answer that is another than the wanted one.
var errOther = errors.New("another answer")

// call makes one call; got is the answer as a line.
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

// compare holds an answer against the one that is wanted, and learns the names from it.
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

// brief leaves out of an answer what the engine takes for not being there: null and "".
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
	resp, err := r.line.client().Do(req)
	if err != nil {
		return 0, "", err
	}
	out, err := io.ReadAll(resp.Body)
	if got := resp.Header.Get("Content-Type"); got != contentType {
		r.Errorf("%s: Content-Type %q", op, got)
	}
	return resp.StatusCode, string(out), errors.Join(err, resp.Body.Close())
}

// A deed is something that happens beside the calls.
type deed struct {
	words int // that it needs
	do    func(r *replay, words []string) error
}

// deeds are all there are. When the engine moves a device depends on its release: before or after it says that it has.
var deeds = map[string]deed{
	// move ENDPOINT DEVICE: the engine moves the device that Join has named into the container, where it is called DEVICE.
	"move": {2, func(r *replay, w []string) error { return r.dockerd.move(w[0], w[1]) }},
	// home ENDPOINT: it moves it back.
	"home": {1, func(r *replay, w []string) error { return r.dockerd.home(w[0]) }},
	// end SANDBOX [AFTER]: the container's network namespace ends, and what is in it comes home by itself.
	"end": {1, func(r *replay, w []string) error {
		after, err := bounded(strings.Join(w[1:], ""))
		r.kernel.KillNS(w[0], after)
		return err
	}},
	// pull NIC: a card leaves the bus. plug NIC: it is back, as at the start.
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
	// veth DEVICE ADDRESS: the machine has a pair of devices, at whose other end, DEVICEp, somebody has that address.
	"veth": {2, func(r *replay, w []string) error { return r.veth(w[0], w[1]) }},
	// bridge DEVICE: it has a bridge.
	"bridge": {1, func(r *replay, w []string) error {
		r.kernel.AddLink(hw.Link{Name: w[0], Kind: "bridge"})
		return nil
	}},
	// router DEVICE ADDRESS ROUTER: a device has that address and the default route.
	"router": {3, func(r *replay, w []string) error {
		r.kernel.AddAddrs(w[0], w[1])
		r.kernel.AddRoutes(w[0], hw.Route{Dst: "0.0.0.0/0", Gateway: w[2]})
		return nil
	}},
	// restart: the plugin's process is stopped and another started, as when the engine is.
	"restart": {0, func(r *replay, _ []string) error {
		r.stop()
		r.start()
		return nil
	}},
	// patience TIME: so long the engine waits for an answer from now on; 0s is for ever.
	"patience": {1, func(r *replay, w []string) (err error) {
		r.patience, err = bounded(w[0])
		return err
	}},
	// wait TIME: nothing happens.
	"wait": {1, func(_ *replay, w []string) error {
		d, err := bounded(w[0])
		time.Sleep(d)
		return err
	}},
	// left PREFIX: records with such keys are there at the end, because the engine says nothing that would end them.
	"left": {1, func(r *replay, w []string) error {
		r.left = append(r.left, w[0])
		return nil
	}},
	// log TEXT...: the plugin warns of something, once and after what was said so before, and TEXT is in it.
	"log": {1, func(r *replay, w []string) error {
		r.warnings = append(r.warnings, strings.Join(w, " "))
		return nil
	}},
}

// do does a deed.
func (r *replay) do(text string) error {
	text, err := r.names.expand(text)
	if err != nil {
		return err
	}
	words := strings.Fields(text)
	if len(words) == 0 || deeds[words[0]].do == nil || len(words) <= deeds[words[0]].words {
		return errors.New("no such deed")
	}
	return deeds[words[0]].do(r, words[1:])
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
