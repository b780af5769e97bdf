package crash

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

// orphanAfter is the grace period for orphans, in place of minutes. It is longer than the fake engine ever takes on a busy machine.
const orphanAfter = 4 * time.Second

const (
	// maintainEvery is how often the process prefetches addresses and flushes its outbox, where a scenario waits for that.
	maintainEvery = time.Second
	// handlerTimeout is the timeout of a call, as long as possible. Slow calls are tested elsewhere.
	handlerTimeout = 25 * time.Second
	// handlerTimeoutEtcdDown is the timeout of a call while the etcd is unreachable.
	handlerTimeoutEtcdDown = 2 * time.Second
)

// process is a running plugin. Its state directory remains when it ends.
type process struct {
	cmd     *exec.Cmd
	socket  string
	journal string        // the crash points that it passes
	out     bytes.Buffer  // stdout and stderr; to be read after its end
	ended   chan struct{} // closed when it has ended
	client  *http.Client
}

// startProcess starts the program in its own directory, to die at a crash point ("" for never), and waits until it answers. It
// writes the crash points that it passes to journal; env is added to its environment.
func startProcess(program []string, dir, at, journal string, env ...string) (*process, error) {
	p := &process{socket: filepath.Join(dir, "p.sock"), journal: filepath.Join(dir, journal), ended: make(chan struct{})}
	p.cmd = exec.Command(program[0])
	p.cmd.Args = program[1:]
	p.cmd.Env = append(os.Environ(), "SOCKET="+p.socket, "STATE_DIR="+filepath.Join(dir, "state"), "CRASH_AT="+at,
		"CRASH_JOURNAL="+p.journal, "CRASH_ORPHAN_AFTER="+orphanAfter.String(), "HANDLER_TIMEOUT="+handlerTimeout.String(),
		"LOG_LEVEL=debug")
	p.cmd.Env = append(p.cmd.Env, env...)
	p.cmd.Stdout, p.cmd.Stderr = &p.out, &p.out
	// The process ends with the thread that starts it (PDEATHSIG), which lasts as long as the test.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	p.client = &http.Client{Timeout: 30 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", p.socket)
		},
	}}
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		_ = p.cmd.Wait() // its ProcessState has the result
		close(p.ended)
	}()
	return p, p.awaitSocket()
}

// awaitSocket waits until the process listens, or has ended. An engine registers a plugin then: without that, the first endpoint waits for it.
func (p *process) awaitSocket() error {
	err := retry.Poll(context.Background(), time.Millisecond, 30*time.Second, func() (bool, error) { // an emulated machine is slow
		if !p.alive() {
			return true, nil // it reached its crash point at once
		}
		conn, err := net.Dial("unix", p.socket)
		if err != nil {
			return false, nil
		}
		if err := conn.Close(); err != nil {
			return true, err
		}
		resp, err := p.client.Post("http://p/IpamDriver.GetCapabilities", "", nil)
		if err != nil {
			return false, nil // it has reached its crash point, or is about to
		}
		return true, resp.Body.Close()
	})
	if errors.Is(err, retry.ErrTimeout) {
		return errors.Join(fmt.Errorf("%s does not accept connections", p.socket), p.stop())
	}
	return err
}

// errDial is the error of a request that was not sent because no process listens.
var errDial = errors.New("no process listens")

// post sends a request and returns status and body of the answer.
func (p *process) post(op, body string) (status int, answer []byte, err error) {
	resp, err := p.client.Post("http://plugin/"+op, "", strings.NewReader(body))
	if err != nil {
		var dial *net.OpError
		if errors.As(err, &dial) && dial.Op == "dial" {
			err = errors.Join(errDial, err)
		}
		return 0, nil, err
	}
	defer resp.Body.Close()
	answer, err = io.ReadAll(resp.Body)
	return resp.StatusCode, answer, err
}

// passed returns the crash points passed so far.
func (p *process) passed() []string {
	points, _ := readPoints(p.journal) // a read error is reported when the process has ended
	return points
}

// died waits for the end of a process that should have been killed at a point; the error says what happened instead.
func (p *process) died() error {
	select {
	case <-p.ended:
	case <-time.After(10 * time.Second):
		return fmt.Errorf("does not answer, but runs; %w", p.stop())
	}
	status, _ := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !status.Signaled() || status.Signal() != syscall.SIGKILL {
		return fmt.Errorf("ended with %s, not by SIGKILL:\n%s", p.cmd.ProcessState, p.out.String())
	}
	return nil
}

// alive returns whether the process runs.
func (p *process) alive() bool {
	select {
	case <-p.ended:
		return false
	default:
		return true
	}
}

// stop stops the process by SIGTERM.
func (p *process) stop() error {
	if !p.alive() {
		return nil
	}
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	select {
	case <-p.ended:
	case <-time.After(15 * time.Second):
		_ = p.cmd.Process.Kill() // it may have ended just now
		<-p.ended
		return errors.New("did not end within 15 s of SIGTERM")
	}
	return nil
}
