package main

import (
	"net"
	"os"
	"path/filepath"
	"testing"
)

func TestSocketIsForRootAloneAndRemoved(t *testing.T) {
	path := tempSocket(t)
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	fi, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := fi.Mode().Perm(); got != 0o600 {
		t.Errorf("mode %o, want 600", got)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("after close: %v, want the socket to be gone", err)
	}
}

func TestSocketOfADeadProcessIsReplaced(t *testing.T) {
	path := tempSocket(t)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false)
	if err := dead.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := listen(path)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = conn.Close(), l.Close()
}

func TestSocketRefusals(t *testing.T) {
	t.Run("one that answers", func(t *testing.T) {
		path := tempSocket(t)
		l, err := listen(path)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		_, err = listen(path)
		same(t, err, "socket "+path+": listen: another process answers on it; stop that one or set SOCKET")
		if conn, err := net.Dial("unix", path); err != nil {
			t.Errorf("the first listener was disturbed: %v", err)
		} else {
			_ = conn.Close()
		}
	})
	t.Run("a file", func(t *testing.T) {
		path := tempSocket(t)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("mine"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := listen(path)
		same(t, err, "socket "+path+": listen: a file that is not a socket is in the way; remove it or set SOCKET")
		if got, err := os.ReadFile(path); string(got) != "mine" {
			t.Errorf("the file was touched: %q, %v", got, err)
		}
	})
	t.Run("a directory that cannot be made", func(t *testing.T) {
		path := tempSocket(t)
		if err := os.WriteFile(filepath.Dir(path), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := listen(path)
		same(t, err, "socket "+path+": make its directory: mkdir "+filepath.Dir(path)+": not a directory")
	})
}

// same compares an error's text word for word.
func same(t *testing.T, err error, want string) {
	t.Helper()
	if err == nil || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
}
