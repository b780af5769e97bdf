package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
	"github.com/rogpeppe/go-internal/testscript"
)

// TestMain runs the program itself if the test binary is called as driver, so that tests can start it as a process.
func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"driver": main, "settle": settleFolders})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(e *testscript.Env) error {
			e.Setenv("SOCKET", filepath.Join(e.WorkDir, "p.sock"))
			e.Setenv("STATE_DIR", filepath.Join(e.WorkDir, "state"))
			e.Setenv("LOG_FORMAT", logJSON)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"call": scriptCall},
	})
}

// scriptCall is the script command "call OPERATION BODY": it waits for the socket and prints the status and the answer.
func scriptCall(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: call OPERATION BODY")
	}
	answer, err := callWhenUp(ts.Getenv("SOCKET"), args[0], args[1])
	ts.Check(err)
	_, err = fmt.Fprintln(ts.Stdout(), answer)
	ts.Check(err)
}

// callWhenUp makes a call as soon as the socket accepts it, within 10 seconds, and returns "STATUS BODY".
func callWhenUp(socket, op, body string) (string, error) {
	var resp *http.Response
	var failed error
	err := retry.Poll(context.Background(), 5*time.Millisecond, 10*time.Second, func() (bool, error) {
		resp, failed = client(socket).Post("http://plugin/"+op, "", strings.NewReader(body))
		return failed == nil, nil
	})
	if err != nil {
		return "", failed
	}
	return readAnswer(resp)
}

// readAnswer returns "STATUS BODY".
func readAnswer(resp *http.Response) (string, error) {
	out, err := io.ReadAll(resp.Body)
	_ = resp.Body.Close()
	return fmt.Sprintf("%d %s", resp.StatusCode, out), err
}

// process is the program as a process.
type process struct {
	cmd    *exec.Cmd
	socket string
	state  string
	out    bytes.Buffer // stdout and stderr; to be read after the process has ended
}

// newProcess prepares a process with its own socket and state directory.
func newProcess(t *testing.T) *process {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{socket: tempSocket(t), state: t.TempDir()}
	ctx, cancel := context.WithCancel(context.Background())
	p.cmd = exec.CommandContext(ctx, self)
	p.cmd.Args = []string{"driver"}
	p.cmd.Env = append(os.Environ(), "SOCKET="+p.socket, "STATE_DIR="+p.state)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	t.Cleanup(func() {
		cancel()
		_ = p.cmd.Wait() // it may have ended
	})
	return p
}

// holdLedger locks the ledger, so that it cannot be opened until the returned function is called.
func (p *process) holdLedger(t *testing.T) (letGo func()) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(p.state, "ledger.db"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() }
}

// makeLedger creates an empty ledger: it starts the program once and stops it.
func (p *process) makeLedger(t *testing.T) {
	t.Helper()
	first := newProcess(t)
	first.state = p.state
	first.cmd.Env = append(first.cmd.Env, "STATE_DIR="+p.state)
	if err := first.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "the ledger", func() bool { _, err := os.Stat(filepath.Join(p.state, "ledger.db")); return err == nil })
	if _, err := callWhenUp(first.socket, "Plugin.Activate", ""); err != nil {
		t.Fatal(err)
	}
	if err := first.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := first.cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, first.out.String())
	}
}

// TestListensWhateverTheLedgerDoes measures the time from the start of the process to an answered call. The best of five starts counts,
// because the machine may be busy.
func TestListensWhateverTheLedgerDoes(t *testing.T) {
	const bound = 2 * time.Second // less than the ledger's lock is waited for; the machine may be busy
	var took []time.Duration
	for range 5 {
		p := newProcess(t)
		letGo := p.holdLedger(t)
		start := time.Now()
		if err := p.cmd.Start(); err != nil {
			t.Fatal(err)
		}
		for _, op := range []string{
			"NetworkDriver.GetCapabilities", "IpamDriver.GetCapabilities", "IpamDriver.GetDefaultAddressSpaces",
		} {
			if got, err := callWhenUp(p.socket, op, ""); err != nil || !strings.HasPrefix(got, "200 ") {
				t.Fatalf("%s: %s, %v", op, got, err)
			}
		}
		took = append(took, time.Since(start))
		letGo()
		if took[len(took)-1] < bound {
			return
		}
	}
	t.Errorf("answers came after %v, want less than %v", took, bound)
}

// TestTermFinishesACallInFlight: a call waits for the ledger's lock, the process is told to stop, and then the lock is released.
func TestTermFinishesACallInFlight(t *testing.T) {
	p := newProcess(t)
	p.makeLedger(t)
	letGo := p.holdLedger(t)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := callWhenUp(p.socket, "Plugin.Activate", ""); err != nil {
		t.Fatal(err)
	}
	answered := make(chan string, 1)
	taken := make(chan struct{})
	go func() { answered <- requestPool(p.socket, taken) }()
	<-taken
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	await(t, "the socket to go", func() bool { _, err := os.Stat(p.socket); return os.IsNotExist(err) })
	letGo()
	if got := <-answered; !strings.HasPrefix(got, `200 {"PoolID":"`) {
		t.Errorf("the call in flight was answered %s", got)
	}
	if err := p.cmd.Wait(); err != nil {
		t.Errorf("%v\n%s", err, p.out.String())
	}
}

// requestPool asks for a pool and returns "STATUS BODY". It closes taken once the server is at work on the call: it says
// "100 Continue" when it reads the body, which is not sent before.
func requestPool(socket string, taken chan struct{}) string {
	body := &signalAtEnd{r: strings.NewReader(`{"AddressSpace":"passthrough-local","Pool":"192.0.2.0/24"}`), end: taken}
	req, err := http.NewRequest(http.MethodPost, "http://plugin/IpamDriver.RequestPool", body)
	if err != nil {
		return err.Error()
	}
	req.Header.Set("Expect", "100-continue")
	c := client(socket)
	c.Transport.(*http.Transport).ExpectContinueTimeout = 10 * time.Second
	resp, err := c.Do(req)
	if err != nil {
		return err.Error()
	}
	got, err := readAnswer(resp)
	if err != nil {
		return err.Error()
	}
	return got
}

// signalAtEnd closes end when everything has been read from r.
type signalAtEnd struct {
	r   io.Reader
	end chan struct{}
}

// Read implements io.Reader.
func (s *signalAtEnd) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err == io.EOF {
		close(s.end)
	}
	return n, err
}
