package rtnl

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// TestListing: of concurrent callers one lists for all, but not for those that asked after it had begun.
func TestListing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newListing[int]()
		reads := 0
		slow := func() ([]int, error) {
			reads++
			n := reads
			time.Sleep(time.Second)
			return []int{n}, nil
		}
		var all sync.WaitGroup
		ask := func(want int) {
			if got, err := l.read(slow); err != nil || !slices.Equal(got, []int{want}) {
				t.Errorf("read %v, %v; want the %d.", got, err, want)
			}
		}
		all.Go(func() { ask(1) })
		synctest.Wait()
		for range 200 {
			all.Go(func() { ask(2) })
		}
		time.Sleep(1500 * time.Millisecond) // the second is being read
		all.Go(func() { ask(3) })
		all.Wait()
		if reads != 3 {
			t.Errorf("read %d times, want 3", reads)
		}
	})
}

// TestListingFails: an error is returned only to those that shared the listing.
func TestListingFails(t *testing.T) {
	l := newListing[int]()
	no := errors.New("no")
	if _, err := l.read(func() ([]int, error) { return nil, no }); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	if got, err := l.read(func() ([]int, error) { return []int{1}, nil }); err != nil || len(got) != 1 {
		t.Errorf("then got %v, %v", got, err)
	}
}
