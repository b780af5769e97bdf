package retry_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/mellanox/passthrough/internal/retry"
)

// server answers one request after the other, in the order in which they come.
type server struct {
	*testing.T
	turn *semaphore.Weighted
}

// request makes a request that takes the server some time, and returns how long the answer took.
func (s *server) request(work time.Duration) time.Duration {
	began := time.Now()
	if err := s.turn.Acquire(context.Background(), 1); err != nil {
		s.Error(err)
	}
	time.Sleep(work)
	s.turn.Release(1)
	return time.Since(began)
}

// TestPace: of many readers at once most leave a server to others, however long its parts take, and all are as quick as if none did; one that is
// alone does not pause, however far away its server is.
func TestPace(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		readers, parts int
		work           time.Duration // of one part
		request, total time.Duration // at most: of half the requests after the start, and of all readers
	}{
		"alone":           {1, 400, 10 * time.Millisecond, 20 * time.Millisecond, 4500 * time.Millisecond},
		"alone, far away": {1, 20, 200 * time.Millisecond, 400 * time.Millisecond, 5 * time.Second},
		"many":            {80, 120, 10 * time.Millisecond, 400 * time.Millisecond, 110 * time.Second},  // without pauses 800 ms
		"large parts":     {30, 100, 100 * time.Millisecond, 800 * time.Millisecond, 350 * time.Second}, // without pauses 3 s
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := &server{t, semaphore.NewWeighted(1)}
				began := time.Now()
				var reading sync.WaitGroup
				for range c.readers {
					reading.Go(func() {
						var pace retry.Pace
						for range c.parts {
							time.Sleep(pace.Next(s.request(c.work)))
						}
					})
				}
				done := make(chan struct{})
				go func() { reading.Wait(); close(done) }()
				time.Sleep(2 * time.Second) // all begin at once
				var requests []time.Duration
				for running := true; running; {
					select {
					case <-done:
						running = false
					case <-time.After(100 * time.Millisecond):
						requests = append(requests, s.request(time.Millisecond))
					}
				}
				total := time.Since(began)
				slices.Sort(requests)
				half, slowest := requests[len(requests)/2], requests[len(requests)-1]
				t.Logf("half the requests at most %v, the slowest %v, total %v", half, slowest, total)
				if half > c.request || total > c.total {
					t.Errorf("half the requests at most %v, want %v; in total %v, want at most %v", half, c.request, total, c.total)
				}
			})
		})
	}
}
