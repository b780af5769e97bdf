package attach

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"time"

	"github.com/mellanox/passthrough/internal/retry"
)

// Ports of the program that receives.
const (
	streamPort   = ":5001" // it reads all
	echoPort     = ":5002" // it sends back each byte
	datagramPort = ":5003"
	countPort    = ":5004" // it tells how many datagrams have come
)

// Traffic is what a program in one container has measured to one in another.
type Traffic struct {
	Gbits   float64   // of a TCP connection, in Gbit/s
	Packets float64   // datagrams of 64 bytes that were received, in a second
	Trips   []float64 // what a byte there and back takes: 50th, 99th and 99.99th percentile, in seconds
}

// receive serves until ctx ends.
func receive(ctx context.Context) error {
	count := make(chan int, 1)
	count <- 0
	datagrams, err := net.ListenPacket("udp", datagramPort)
	if err != nil {
		return err
	}
	go func() {
		buf := make([]byte, 64)
		for {
			if _, _, err := datagrams.ReadFrom(buf); err != nil {
				return
			}
			count <- 1 + <-count
		}
	}()
	for port, serve := range map[string]func(net.Conn) error{
		streamPort: func(c net.Conn) error { _, err := io.Copy(io.Discard, c); return err },
		echoPort:   func(c net.Conn) error { _, err := io.Copy(c, c); return err },
		countPort: func(c net.Conn) error {
			n := <-count
			count <- 0
			return json.NewEncoder(c).Encode(n)
		},
	} {
		l, err := net.Listen("tcp", port)
		if err != nil {
			return err
		}
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				go func() { defer c.Close(); _ = serve(c) }() // the sender sees an end that came too early
			}
		}()
	}
	<-ctx.Done()
	return nil
}

// send measures for as long as d in each way.
func send(ip string, d time.Duration) (t Traffic, err error) {
	trips, err := roundTrips(ip, d)
	if err != nil {
		return t, err
	}
	for _, q := range []float64{0.5, 0.99, 0.9999} {
		t.Trips = append(t.Trips, trips[min(int(q*float64(len(trips))), len(trips)-1)].Seconds())
	}
	if t.Gbits, err = stream(ip, d); err != nil {
		return t, err
	}
	t.Packets, err = datagrams(ip, d)
	return t, err
}

// roundTrips sends a byte and waits for it, again and again. It waits until the receiver is there.
func roundTrips(ip string, d time.Duration) (trips []time.Duration, err error) {
	var c net.Conn
	err = retry.Poll(context.Background(), 100*time.Millisecond, 30*time.Second, func() (bool, error) {
		c, err = net.DialTimeout("tcp", ip+echoPort, time.Second)
		return err == nil, nil
	})
	if c == nil {
		return nil, err
	}
	defer c.Close()
	one := make([]byte, 1)
	for end := time.Now().Add(d); time.Now().Before(end); {
		began := time.Now()
		if _, err := c.Write(one); err != nil {
			return nil, err
		}
		if _, err := io.ReadFull(c, one); err != nil {
			return nil, err
		}
		trips = append(trips, time.Since(began))
	}
	slices.Sort(trips)
	return trips, nil
}

// stream sends as much as a connection takes, and returns Gbit/s.
func stream(ip string, d time.Duration) (float64, error) {
	c, err := net.Dial("tcp", ip+streamPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began, sent, block := time.Now(), 0, make([]byte, 256<<10)
	if err := c.SetDeadline(began.Add(d)); err != nil {
		return 0, err
	}
	for {
		n, err := c.Write(block)
		sent += n
		switch {
		case errors.Is(err, os.ErrDeadlineExceeded):
			return float64(sent) * 8 / time.Since(began).Seconds() / 1e9, nil
		case err != nil:
			return 0, err
		}
	}
}

// datagrams sends datagrams of 64 bytes as fast as it can, and returns how many came in a second.
func datagrams(ip string, d time.Duration) (float64, error) {
	if _, err := received(ip); err != nil { // of an earlier measurement
		return 0, err
	}
	c, err := net.Dial("udp", ip+datagramPort)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	began, block := time.Now(), make([]byte, 64)
	for time.Since(began) < d {
		_, _ = c.Write(block) // a full queue refuses some
	}
	took := time.Since(began)
	n, err := received(ip)
	return float64(n) / took.Seconds(), err
}

// received returns how many datagrams have come since it was asked last.
func received(ip string) (n int, err error) {
	c, err := net.DialTimeout("tcp", ip+countPort, 10*time.Second)
	if err != nil {
		return 0, err
	}
	defer c.Close()
	if err := json.NewDecoder(c).Decode(&n); err != nil {
		return 0, fmt.Errorf("count of datagrams: %w", err)
	}
	return n, nil
}
