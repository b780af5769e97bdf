package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// TestFlood: 10,000 connections at once that say nothing, half of something or that they have a lot to say keep the engine
// from nothing. While they are there its calls are answered, the process has few descriptors and little memory for them, and
// afterwards none.
func TestFlood(t *testing.T) {
	const many = 10_000
	needDescriptors(t, many+500)
	p := newProcess(t)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	const pool = `{"AddressSpace":"passthrough-local","Pool":"192.0.2.0/24"}`
	if got, err := callWhenUp(p.socket, "IpamDriver.RequestPool", pool); err != nil || !strings.HasPrefix(got, "200 ") {
		t.Fatal(got, err)
	}
	descriptors, memory := p.descriptors(t), p.peak(t)

	flood := p.flood(many)
	for i := 0; flood.at() < many; i++ {
		got, err := p.asEngine("IpamDriver.RequestPool", pool)
		if err != nil || !strings.HasPrefix(got, "200 ") {
			t.Fatalf("call %d, beside %d connections: %s, %v", i, flood.at(), got, err)
		}
		if n := p.descriptors(t); n > descriptors+1024+10 {
			t.Errorf("%d descriptors are open, %d before", n, descriptors)
		}
	}
	if got, err := p.asEngine("NetworkDriver.GetCapabilities", ""); err != nil || !strings.HasPrefix(got, "200 ") {
		t.Errorf("after %d connections: %s, %v", many, got, err)
	}
	if grown := p.peak(t) - memory; grown > 300<<10 {
		t.Errorf("the process took %d KiB more", grown)
	}
	flood.end(t)
	await(t, "the descriptors to be closed", func() bool { return p.descriptors(t) <= descriptors })
}

// needDescriptors sees to it that this process may open so many files.
func needDescriptors(t *testing.T, n uint64) {
	t.Helper()
	var l syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &l); err != nil {
		t.Fatal(err)
	}
	if l.Cur >= n {
		return
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: max(n, l.Max)}); err != nil {
		t.Fatalf("this test opens %d files and may open %d (ulimit -n): %v", n, l.Max, err)
	}
}

// descriptors is how many files the process has open.
func (p *process) descriptors(t *testing.T) int {
	t.Helper()
	open, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(open)
}

// peak is the most memory that the process has had, in KiB.
func (p *process) peak(t *testing.T) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "VmHWM:")
	n, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// asEngine makes a call as an engine does: it tries again while nobody takes the connection, but what it has sent has to be
// answered.
func (p *process) asEngine(op, body string) (string, error) {
	c := client(p.socket)
	bound := time.Now().Add(30 * time.Second)
	for {
		resp, err := c.Post("http://plugin/"+op, "", strings.NewReader(body))
		if err == nil {
			return readAnswer(resp)
		}
		if !errors.Is(err, syscall.EAGAIN) || time.Now().After(bound) {
			return "", err
		}
	}
}

// A flood is connections that want nothing.
type flood struct {
	mu    sync.Mutex // guards conns and err
	conns []net.Conn
	err   error
}

// flood opens connections as fast as they are taken. The server closes most of them; here they stay open.
func (p *process) flood(n int) *flood {
	f := new(flood)
	said := []string{"", "POST /IpamDriver.", "POST /IpamDriver.RequestPool HTTP/1.1\r\nHost: p\r\nContent-Length: 1000000\r\n\r\n{",
		"POST /NetworkDriver.GetCapabilities HTTP/1.1\r\nHost: p\r\nContent-Length: 0\r\n\r\n"}
	go func() {
		again := time.NewTicker(time.Millisecond)
		defer again.Stop()
		for i := range n {
			c, err := net.Dial("unix", p.socket)
			for errors.Is(err, syscall.EAGAIN) { // as many as the kernel keeps are waiting to be accepted
				<-again.C
				c, err = net.Dial("unix", p.socket)
			}
			if err == nil {
				_, _ = io.WriteString(c, said[i%len(said)]) // it may have been closed already
			}
			f.mu.Lock()
			f.conns, f.err = append(f.conns, c), errors.Join(f.err, err)
			f.mu.Unlock()
		}
	}()
	return f
}

// at is how many connections there have been.
func (f *flood) at() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.conns)
}

// end closes all connections.
func (f *flood) end(t *testing.T) {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		t.Error(f.err)
	}
	for _, c := range f.conns {
		if c != nil {
			_ = c.Close()
		}
	}
}

// TestFloodOfCalls: more real calls at once than there may be connections are all answered.
func TestFloodOfCalls(t *testing.T) {
	p := newProcess(t)
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := callWhenUp(p.socket, "Plugin.Activate", ""); err != nil {
		t.Fatal(err)
	}
	var calls sync.WaitGroup
	for range 1500 {
		calls.Go(func() {
			got, err := p.asEngine("NetworkDriver.GwAllocCheck", `{"Options":{"com.docker.network.generic":{"netdevice":"ens1f0"}}}`)
			if err != nil || got != `200 {"SkipIPv4":true,"SkipIPv6":true}` {
				t.Error(got, err)
			}
		})
	}
	calls.Wait()
}
