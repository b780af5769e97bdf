package netdrv

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
)

// TestLockInTurn: who waits for a name gets it in the order of coming, and who gives up is passed over.
func TestLockInTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l locks
		first, err := l.lock(t.Context(), "pf")
		if err != nil {
			t.Fatal(err)
		}
		impatient, giveUp := context.WithCancel(t.Context())
		var order []int
		for i := range 9 {
			ctx := t.Context()
			if i == 4 {
				ctx = impatient
			}
			go func() {
				unlock, err := l.lock(ctx, "pf")
				if i == 4 {
					if !errors.Is(err, context.Canceled) {
						t.Errorf("who gave up: %v", err)
					}
					return
				}
				order = append(order, i)
				unlock()
			}()
			synctest.Wait()
		}
		giveUp()
		synctest.Wait()
		if _, ok := l.tryLock("pf"); ok {
			t.Error("taken while somebody had it")
		}
		first()
		synctest.Wait()
		if want := []int{0, 1, 2, 3, 5, 6, 7, 8}; !slices.Equal(order, want) {
			t.Errorf("they had it in the order %v, want %v", order, want)
		}
		if len(l.held) != 0 {
			t.Errorf("%d names are left", len(l.held))
		}
	})
}

// TestLockGivenUpInTurn: a turn that comes when its caller has given up is the next one's.
func TestLockGivenUpInTurn(t *testing.T) {
	var l locks
	l.queue("pf", false)
	late, next := l.queue("pf", false), l.queue("pf", false)
	l.release("pf") // it is late's
	l.leave("pf", late)
	select {
	case <-next.come:
	default:
		t.Fatal("the name is nobody's, and somebody waits for it")
	}
	l.release("pf")
	unlock, ok := l.tryLock("pf")
	if !ok {
		t.Fatal("nobody has it, and it cannot be had")
	}
	unlock()
}

// TestLockShared: those who share have a name at the same time, but not past one who waits to have it alone; when he gives up,
// those behind him have it.
func TestLockShared(t *testing.T) {
	have := func(turns ...*turn) (n int) {
		for _, t := range turns {
			select {
			case <-t.come:
				n++
			default:
			}
		}
		return n
	}
	var l locks
	for range 2 {
		if l.queue("pf", true) != nil {
			t.Fatal("two who share do not have it at once")
		}
	}
	if _, ok := l.tryLock("pf"); ok {
		t.Fatal("taken alone while two share it")
	}
	alone, third, fourth := l.queue("pf", false), l.queue("pf", true), l.queue("pf", true)
	l.release("pf")
	if have(alone, third, fourth) != 0 {
		t.Fatal("one of two has released it, and another has it")
	}
	l.release("pf")
	if have(alone) != 1 || have(third, fourth) != 0 {
		t.Fatal("it is not the turn of the one who came first, and his only")
	}
	l.release("pf")
	if have(third, fourth) != 2 {
		t.Fatal("those who share do not have it together")
	}
	alone, fifth := l.queue("pf", false), l.queue("pf", true)
	l.leave("pf", alone)
	if have(fifth) != 1 {
		t.Fatal("it is shared and nobody else waits, and it cannot be had")
	}
	for range 3 {
		l.release("pf")
	}
	if len(l.held) != 0 {
		t.Errorf("%d names are left", len(l.held))
	}
}
