package rtnl

import (
	"context"
	"errors"
	"fmt"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Watch implements [hw.Kernel]. Messages that the socket had no room for (ENOBUFS) are changes as well.
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
				s.Close() // which it is already if ctx has ended
				return
			}
			notify(changed)
		}
	}()
	return changed, nil
}

// notify sends on a channel with a buffer of one, unless the buffer is full.
func notify(changed chan<- struct{}) {
	select {
	case changed <- struct{}{}:
	default:
	}
}
