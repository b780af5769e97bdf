package rtnl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch implements [WatchKernel]. Messages that the kernel had no room for (ENOBUFS) tell of a change as well as others.
func (k *Kernel) Watch(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.Subscribe(unix.NETLINK_ROUTE, unix.RTNLGRP_LINK)
	if err != nil {
		return nil, fmt.Errorf("rtnetlink: subscribe to links: %w", err)
	}
	context.AfterFunc(ctx, s.Close)
	changed := make(chan struct{}, 1)
	go func() {
		defer close(changed)
		for {
			if _, _, err := s.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				s.Close() // as it is when ctx has ended
				return
			}
			tell(changed)
		}
	}()
	return changed, nil
}

// tell sends on a channel that has room for one, unless something is in it already.
func tell(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}
