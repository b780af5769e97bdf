package dockertest

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Process starts the plugin as a process, which is to listen on a socket, and ends it with the test.
func Process(t testing.TB, cmd *exec.Cmd, socket string) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM: %v", err)
		}
	})
	Listens(t, socket)
}

// StartProgram starts a program, and kills it when the test ends.
func StartProgram(t testing.TB, cmd *exec.Cmd) {
	t.Helper()
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // it may have ended by itself
		_ = cmd.Wait()         // says that it was killed
	})
}

// Listens waits until the socket of a plugin is there.
func Listens(t testing.TB, socket string) {
	t.Helper()
	Within(t, 10*time.Second, func() string {
		if _, err := os.Stat(socket); err != nil {
			return err.Error()
		}
		return ""
	})
}
