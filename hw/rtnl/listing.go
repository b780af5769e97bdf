package rtnl

import "golang.org/x/sync/singleflight"

// A listing is shared by all callers that ask for it before it begins; those that ask later share the next one. No caller gets
// a listing that began before it asked.
type listing[T any] struct {
	group   singleflight.Group
	running chan struct{} // has an element while a listing is running
}

func newListing[T any]() *listing[T] { return &listing[T]{running: make(chan struct{}, 1)} }

// read lists, or waits for a listing of another caller. The result is shared and must not be changed.
func (l *listing[T]) read(list func() ([]T, error)) ([]T, error) {
	got, err, _ := l.group.Do("", func() (any, error) {
		l.running <- struct{}{}
		defer func() { <-l.running }()
		l.group.Forget("") // from now on it is too late to share this one
		return list()
	})
	items, _ := got.([]T)
	return items, err
}
