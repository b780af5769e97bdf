package netdrv_test

import (
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/internal/admin"
)

// A pod is a container of an owner that is no engine, with a network namespace that has a file of its own. In the kernel the namespace has the
// name of the file.
type pod struct {
	m    *machine
	path string
	at   *admin.Attachment // nil before Attach
	req  admin.AttachRequest
}

// pod makes a namespace. options are of the network, "key=value"; those that begin with + are of the attachment.
func (m *machine) pod(id string, options ...string) *pod {
	m.t.Helper()
	p := &pod{m: m, path: filepath.Join(m.t.TempDir(), strings.ReplaceAll(id, "/", "-"))}
	p.req = admin.AttachRequest{Owner: admin.Owner{Kind: "cni", ID: id}, Network: "mynet", Options: map[string]string{}, Own: map[string]string{},
		Addresses: []string{addressOf(id)}}
	for _, o := range options {
		to := p.req.Options
		if own, ok := strings.CutPrefix(o, "+"); ok {
			o, to = own, p.req.Own
		}
		k, v, _ := strings.Cut(o, "=")
		to[k] = v
	}
	p.renew()
	return p
}

// renew gives the pod another namespace at the same path.
func (p *pod) renew() {
	p.m.t.Helper()
	other := p.path + "-next"
	p.m.must(os.WriteFile(other, nil, 0o600)) // while the old one is there, so that it has another inode
	p.m.must(os.Rename(other, p.path))
	ns, err := hw.NamespaceAt(p.path)
	p.m.must(err)
	p.req.Owner.Netns, p.req.Owner.Device, p.req.Owner.Inode = p.path, ns.Device, ns.Inode
}

// attach calls Attach.
func (p *pod) attach() (err error) {
	ctx, cancel := p.m.call()
	defer cancel()
	p.at, err = p.m.driver.Attachments.Attach(ctx, &p.req)
	return err
}

// add calls Attach and moves the device into the namespace, as a CNI plugin does.
func (p *pod) add() error {
	if err := p.attach(); err != nil {
		return err
	}
	return p.m.kernel.MoveToNS(p.path, p.at.Name, "eth1")
}

// detach calls Detach.
func (p *pod) detach() error {
	ctx, cancel := p.m.call()
	defer cancel()
	_, err := p.m.driver.Attachments.Detach(ctx, &admin.Owner{Kind: p.req.Owner.Kind, ID: p.req.Owner.ID})
	return err
}

// del moves the device back and calls Detach, as a CNI plugin does. The namespace ends afterwards.
func (p *pod) del() error {
	if err := p.m.kernel.MoveHome(p.path, "eth1", p.at.Name); err != nil {
		return err
	}
	err := p.detach()
	p.m.kernel.KillNS(p.path, 0)
	return err
}

// check calls Check.
func (p *pod) check() (*admin.Attachment, error) {
	ctx, cancel := p.m.call()
	defer cancel()
	return p.m.driver.Attachments.Check(ctx, &admin.Owner{Kind: p.req.Owner.Kind, ID: p.req.Owner.ID})
}

// owned are the modes with what a pod asks for and what it gets.
var owned = map[string][]string{
	"vf":      {"netdevice=ens1f0", "vlan=100", "numvfs=2", "+mac=02:00:00:00:00:42", "+trust=yes"},
	"whole":   {"netdevice=ens2", "mode=passthrough"},
	"macvlan": {"netdevice=ens2", "mode=macvlan", "+mac=02:00:00:00:00:42"},
	"ipvlan":  {"netdevice=ens2", "mode=ipvlan", "+mtu=1400"},
}

// TestOwner: an owner that is no engine gets a device of each mode and gives it back. Its network comes with its first endpoint and goes with
// its last; the host is then as before.
func TestOwner(t *testing.T) {
	t.Parallel()
	for mode, options := range owned {
		t.Run(mode, func(t *testing.T) {
			story(t, func(m *machine) {
				twoNICs(m)
				before := m.kernel.String()
				p := m.pod("1234/eth1", options...)
				m.must(p.add())
				want := &admin.Attachment{ID: p.at.ID, Label: p.at.Label, State: "lent", Owner: &p.req.Owner, Network: p.at.Network, Name: p.at.Name, Index: p.at.Index,
					MAC: p.at.MAC, MTU: 1500, Addresses: []string{addressOf("1234/eth1")}}
				if strings.Contains(strings.Join(options, " "), "mtu=1400") {
					want.MTU = 1400
				}
				if diff := cmp.Diff(want, p.at); diff != "" || p.at.Index == 0 || p.at.Name == "" {
					t.Errorf("attached:\n%s", diff)
				}
				source := p.at.Name
				if slices.Contains(options, "+mac=02:00:00:00:00:42") && p.at.MAC != "02:00:00:00:00:42" {
					t.Errorf("mac is %s", p.at.MAC)
				}
				for _, restart := range []bool{false, true} {
					if restart {
						m.restart()
						m.settled()
					}
					now, err := p.check()
					m.must(err)
					want.Name, want.Index, want.MTU, want.MAC = "", 0, 0, now.MAC
					if diff := cmp.Diff(want, now); diff != "" {
						t.Errorf("checked:\n%s", diff)
					}
				}
				wantError(t, p.attach(), "cni 1234/eth1 has a device already: "+want.Label+", for network namespace "+p.path+"; it has to be detached first")
				p.at = &admin.Attachment{Name: source}
				m.must(p.del())
				m.must(p.detach()) // of nothing
				m.settled()
				if now, err := p.check(); err != nil || !reflect.DeepEqual(now, &admin.Attachment{}) {
					t.Errorf("it has %+v, %v after it was detached", now, err)
				}
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestOwnerRepeats: a request that is repeated before the device was moved is answered again, and one for another namespace in the place of the
// first gets a device for that.
func TestOwnerRepeats(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		p := m.pod("1234/eth1", "netdevice=ens1f0")
		m.must(p.attach())
		first := *p.at
		m.must(p.attach())
		if diff := cmp.Diff(&first, p.at); diff != "" {
			t.Errorf("repeated:\n%s", diff)
		}
		m.must(m.kernel.MoveToNS(p.path, p.at.Name, "eth1"))
		old := p.path
		p.renew() // the machine's namespaces are known by their paths
		p.m.kernel.KillNS(old, 0)
		m.must(p.add())
		other := m.pod("5678/eth1", "netdevice=ens1f0")
		err := other.attach()
		if err == nil || !strings.Contains(err.Error(), "all 1 vfs are in use: "+vf0Label+" is held by cni 1234/eth1 of network cni-") {
			t.Errorf("another pod: %v", err)
		}
		m.must(p.del())
		m.must(other.add())
		m.must(other.del())
		m.settled()
		m.wantKeys()
	})
}

// TestOwnerBesideEngine: an engine's containers and an owner's share the VFs of a PF; none is given twice, and each side sees who has the others.
func TestOwnerBesideEngine(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		m.mustCreate("n", "netdevice=ens1f0")
		m.mustRun("a", "n")
		p := m.pod("1234/eth1", "netdevice=ens1f0")
		err := p.attach()
		if err == nil || !strings.Contains(err.Error(), vf0Label+" is held by endpoint a-endpoint-0 ("+ipOf("a")+")") {
			t.Errorf("a pod beside a container: %v", err)
		}
		m.end("a")
		m.must(p.add())
		if _, _, err := m.run("a", "n"); err == nil || !strings.Contains(err.Error(), vf0Label+" is held by cni 1234/eth1 of network ") {
			t.Errorf("a container beside a pod: %v", err)
		}
		status, err := m.driver.Status(m.ctx, &admin.StatusRequest{})
		m.must(err)
		if o := status.Devices[0].Owner; o == nil || o.Kind != "cni" || o.ID != "1234/eth1" || o.Netns != p.path {
			t.Errorf("owner in the status: %+v", o)
		}
		for _, n := range status.Networks {
			if (n.Owner == "cni") != (n.Name == "mynet") || (n.ID == "n") == (n.Owner == "cni") {
				t.Errorf("network in the status: %+v", n)
			}
		}
		m.must(p.del())
		m.mustRun("a", "n")
		m.end("a")
		m.mustRemove("n")
		m.wantKeys()
	})
}

// TestOwnerRefused: what an owner cannot have.
func TestOwnerRefused(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		twoNICs(m)
		for _, c := range []struct {
			change func(r *admin.AttachRequest)
			want   string
		}{
			{func(r *admin.AttachRequest) { r.Owner.Kind = "CNI" }, `owner: kind "CNI": must be 1 to 16 lower case letters`},
			{func(r *admin.AttachRequest) { r.Owner.ID = "a b" }, `owner: id "a b": must be 1 to 256 printable characters without spaces`},
			{func(r *admin.AttachRequest) { r.Network = "" }, `network "": must have a name of up to 256 bytes`},
			{func(r *admin.AttachRequest) { r.Owner.Netns = "ns" }, `network namespace "ns": must be an absolute path`},
			{func(r *admin.AttachRequest) { r.Owner.Inode = 0 }, "network namespace /run/netns/x: its inode is missing"},
			{func(r *admin.AttachRequest) { r.Options["driver"] = "vfio-pci" }, "option driver: only for containers of an engine; here the device is moved, " +
				"and it would have no netdev"},
			{func(r *admin.AttachRequest) { r.Own["ifname"] = "eth1" }, "option ifname: the one who moves the device names it"},
			{func(r *admin.AttachRequest) { r.Addresses = []string{"10.0.0.2"} }, `address "10.0.0.2": netip.ParsePrefix("10.0.0.2"): no '/'`},
			{func(r *admin.AttachRequest) { r.Addresses = []string{"10.0.0.2/24", "10.0.0.3/24"} },
				"address 10.0.0.3/24: 10.0.0.2/24 is there already; one of each family is possible"},
			{func(r *admin.AttachRequest) { r.Own["numvfs"] = "2" }, "option numvfs: cannot be given for one container; give it with docker network create"},
		} {
			p := m.pod("1234/eth1", "netdevice=ens1f0")
			p.req.Owner.Netns = "/run/netns/x"
			c.change(&p.req)
			wantError(t, p.attach(), c.want)
			m.settled()
			m.wantKeys()
		}
	})
}

// TestNamespaceGone: an attachment that is never detached ends when its namespace has ended and its device is not in it any more - and not when
// only one of these is so.
func TestNamespaceGone(t *testing.T) {
	t.Parallel()
	for mode, options := range owned {
		t.Run(mode, func(t *testing.T) {
			story(t, func(m *machine) {
				twoNICs(m)
				before := m.kernel.String()
				p := m.pod("1234/eth1", options...)
				m.must(p.add())
				kept := func(why string) {
					t.Helper()
					m.after(2 * time.Hour)
					if now, err := p.check(); err != nil || now.ID == "" {
						t.Fatalf("%s: it has %+v, %v", why, now, err)
					}
				}
				kept("it is in use")
				m.restart()
				kept("the plugin was restarted")
				away := p.path + "-elsewhere"
				m.must(os.Rename(p.path, away)) // as for a namespace that lives on under another name, or none
				kept("its file is gone")
				m.must(os.WriteFile(p.path, nil, 0o600))
				kept("another file is in its place")
				m.must(os.Remove(p.path))
				m.kernel.KillNS(p.path, 0)
				m.settled()
				if now, err := p.check(); err != nil || now.ID != "" {
					t.Errorf("it has %+v, %v although its namespace has ended", now, err)
				}
				m.forgotten.want(t, "its namespace has ended", p.at.Network+" "+addressOf("1234/eth1"))
				m.wantHost(before)
				m.wantKeys()
			})
		})
	}
}

// TestNamespaceUnseen: a plugin that has never seen the file of a namespace, as in a container, draws no conclusion from not seeing it.
func TestNamespaceUnseen(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		p := m.pod("1234/eth1", "netdevice=ens1f0")
		p.req.Owner.Netns = "/run/netns/not-visible"
		m.must(p.add())
		m.kernel.KillNS(p.path, 0)
		m.after(2 * time.Hour)
		if now, err := p.check(); err != nil || now.ID == "" {
			t.Errorf("it has %+v, %v", now, err)
		}
		m.must(p.detach())
		m.wantKeys()
	})
}

// TestOwnerRebooted: no namespace outlives the machine.
func TestOwnerRebooted(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		oneVF(m)
		p := m.pod("1234/eth1", "netdevice=ens1f0")
		m.must(p.add())
		m.reboot(oneVF)
		m.settled()
		m.wantKeys()
	})
}

// ofOwner are the scenarios of crashes with an owner: a pod in each mode, from start to end. The one that ends it is the runtime, which calls
// Detach until that succeeds, or no call does: then the namespace ends.
func ofOwner() map[string]scenario {
	all := map[string]scenario{}
	for mode, options := range owned {
		for _, detached := range []bool{true, false} {
			var p *pod
			name := mode + " of an owner"
			if !detached {
				name += " that calls no more"
			}
			all[name] = scenario{
				hardware: twoNICs,
				run: func(m *machine) {
					p = m.pod("a/eth1", options...)
					if p.add() == nil && detached {
						_ = p.del()
					}
				},
				end: func(m *machine) {
					p.m.kernel.KillNS(p.path, 0)
					if detached {
						m.must(p.detach())
					} else {
						m.must(os.Remove(p.path))
					}
				},
			}
		}
	}
	return all
}

// TestOwnersAtOnce: pods that start and end at the same time share networks that come and go with them.
func TestOwnersAtOnce(t *testing.T) {
	t.Parallel()
	story(t, func(m *machine) {
		twoNICs(m)
		before := m.kernel.String()
		done := make(chan error)
		const pods = 12
		for i := range pods {
			p := m.pod(string(rune('a'+i))+"/eth1", "netdevice=ens2", "mode=macvlan")
			go func() {
				var err error
				for range 5 {
					if err == nil {
						err = p.add()
					}
					if err == nil {
						err = p.del()
					}
				}
				done <- err
			}()
		}
		for range pods {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		m.settled()
		m.wantHost(before)
		m.wantKeys()
	})
}
