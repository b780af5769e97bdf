package main

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/rtnl"
	"github.com/mellanox/passthrough/internal/admin"
)

// callBound bounds one command. The process answers each call within 10 seconds, or 20 if it creates VFs, unless it was told otherwise.
const callBound = time.Minute

// A target is where a device goes: a link in a container's network namespace, and whose that is.
type target struct {
	client *admin.Client
	owner  admin.Owner // without its namespace
	netns  string      // path of its file
	ifName string      // of the link
}

// newTarget returns the target of a container's link, by way of a socket of the plugin process; "" for the one that is found.
func newTarget(socket, kind, container, netns, ifName string) (t *target, err error) {
	if socket == "" {
		if socket, err = admin.FindSocket(); err != nil {
			return nil, err
		}
	}
	return &target{admin.NewClient(socket), admin.Owner{Kind: kind, ID: container + "/" + ifName}, netns, ifName}, nil
}

// attached returns what the container has, the zero value for nothing.
func (t *target) attached(ctx context.Context) (at admin.Attachment, err error) {
	err = t.client.Call(ctx, admin.CheckCall, t.owner, &at)
	return at, err
}

// homeName returns the name under which a device is moved home: no other link has it.
func (t *target) homeName() string {
	return fmt.Sprintf("pc%x", sha256.Sum256([]byte(t.owner.String())))[:14]
}

// attach attaches a device, moves it into the namespace, and has it configured there. What fails is undone.
func (t *target) attach(ctx context.Context, ns *rtnl.Netns, r admin.AttachRequest, configure func(*admin.Attachment) error) error {
	id, err := hw.NamespaceAt(t.netns)
	if err != nil {
		return err
	}
	r.Owner = t.owner
	r.Owner.Netns, r.Owner.Device, r.Owner.Inode = t.netns, id.Device, id.Inode
	var at admin.Attachment
	if err := t.client.Call(ctx, admin.AttachCall, r, &at); err != nil {
		return err
	}
	err = ns.MoveIn(at.Index, at.Name, t.ifName)
	if err == nil {
		err = configure(&at)
	}
	if err != nil {
		return errors.Join(err, t.detach(ctx, ns))
	}
	return nil
}

// configure sets the link up with addresses and routes, and returns it.
func (t *target) configure(ns *rtnl.Netns, addrs []hw.Addr, routes []hw.Route) (hw.Link, error) {
	// A gateway can be on one of the other routes.
	slices.SortStableFunc(routes, func(a, b hw.Route) int { return min(len(a.Gateway), 1) - min(len(b.Gateway), 1) })
	if err := ns.Configure(t.ifName, addrs, routes); err != nil {
		return hw.Link{}, err
	}
	l, _, err := ns.Link(t.ifName)
	return l, err
}

// routeTo returns a route, by way of a gateway or, without one, to the link's own segment.
func routeTo(dst, gateway string) hw.Route {
	r := hw.Route{Dst: dst, Gateway: gateway}
	if gateway == "" && !strings.Contains(dst, ":") {
		r.Scope = unix.RT_SCOPE_LINK
	}
	return r
}

// detach moves the device home, and gives it back to the process. Nothing there is no error.
func (t *target) detach(ctx context.Context, ns *rtnl.Netns) error {
	var err error
	if ns != nil {
		err = ns.MoveOut(t.ifName, t.homeName())
	}
	var none struct{}
	return errors.Join(err, t.client.Call(ctx, admin.DetachCall, t.owner, &none))
}

// release detaches what the container has, if it has anything, whether its namespace is there or not.
func (t *target) release(ctx context.Context) error {
	at, err := t.attached(ctx)
	if err != nil {
		return err
	}
	var ns *rtnl.Netns
	if at.ID != "" && t.netns != "" { // otherwise the link with that name is another's
		if ns, err = rtnl.OpenNetns(t.netns); err == nil {
			defer ns.Close()
		} else if !errors.Is(err, hw.ErrNotFound) {
			return err
		}
	}
	return t.detach(ctx, ns)
}
