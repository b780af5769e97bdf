//go:build emulated

package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestEmulated: the program of another architecture, DRIVER, starts under EMULATOR, which runs it on this processor, answers the engine on
// its socket and ends when it is told to. The emulator (qemu-user 7.2) has no generic netlink, so that devices cannot be opened: what needs
// them is refused, and the program says so.
func TestEmulated(t *testing.T) {
	emulator, driver, dir := os.Getenv("EMULATOR"), os.Getenv("DRIVER"), t.TempDir()
	out, err := exec.Command(emulator, driver, "--version").Output()
	if err != nil || !strings.HasPrefix(string(out), "driver ") {
		t.Fatalf("%q, %v", out, err)
	}
	socket := filepath.Join(dir, "p.sock")
	process := exec.Command(emulator, driver, "--socket", socket, "--state-dir", dir)
	process.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	client := http.Client{Transport: &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}}}
	for op, want := range map[string]string{
		"Plugin.Activate":               `{"Implements":["NetworkDriver","IpamDriver"]}`,
		"NetworkDriver.GetCapabilities": `{"Scope":"local","ConnectivityScope":"global"`,
		"IpamDriver.ReleasePool":        `{`,
	} {
		end := time.Now().Add(time.Minute)
		answer, err := client.Post("http://plugin/"+op, "application/json", strings.NewReader("{}"))
		for err != nil && time.Now().Before(end) { // it does not listen yet
			<-time.After(100 * time.Millisecond)
			answer, err = client.Post("http://plugin/"+op, "application/json", strings.NewReader("{}"))
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(answer.Body)
		answer.Body.Close()
		if err != nil || !strings.HasPrefix(string(body), want) {
			t.Errorf("%s: %s, %v; want %s", op, body, err, want)
		}
	}
	if err := process.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := process.Wait(); err != nil {
		t.Error(err)
	}
}
