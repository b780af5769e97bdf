package hwtest

import (
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/card"
)

// cardFiles are NICs as they were recorded with passthroughctl record.
//
//go:embed cards/*.json
var cardFiles embed.FS

// The fake kernel can be recorded.
var _ card.Kernel = (*Kernel)(nil)

// Cards returns the NICs of hwtest/cards, by the names of their files without the extension. They are called ens1f0, are at 0000:01:00.0, down,
// and have no VFs.
func Cards(t testing.TB) []Make {
	t.Helper()
	entries, err := cardFiles.ReadDir("cards")
	if err != nil {
		t.Fatal(err)
	}
	var makes []Make
	for _, e := range entries {
		text, err := cardFiles.ReadFile(path.Join("cards", e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		c, err := card.Parse(text)
		if err != nil {
			t.Fatalf("cards/%s: %v", e.Name(), err)
		}
		name := strings.TrimSuffix(e.Name(), ".json")
		makes = append(makes, Make{name, Play(c, "hwtest/cards/"+e.Name())})
	}
	return makes
}

// DiffCard returns how a record differs from the file of hwtest/cards with a name, "" if not at all: what it says of the driver's version, and,
// with another release of the kernel, of ethtool and of attributes that rtnetlink shows, is left out.
func DiffCard(t testing.TB, name string, record []byte) string {
	t.Helper()
	now, err := card.Parse(record)
	if err != nil {
		t.Fatal(err)
	}
	makes := Cards(t)
	i := slices.IndexFunc(makes, func(m Make) bool { return m.Name == name })
	if i < 0 {
		return fmt.Sprintf("there is no hw/hwtest/cards/%s.json; the record is\n%s", name, record)
	}
	file := *makes[i].PF.Card
	other := file.Kernel != now.Kernel
	for _, c := range []*card.Card{&file, now} {
		c.Recorded, c.Tool, c.Kernel, c.Driver.Version = "", "", "", ""
		if other {
			c.Ethtool, c.VFs, c.Link.MaxMTU = card.Ethtool{}, nil, 0
		}
	}
	return cmp.Diff(&file, now)
}

// Play returns a PF that is as a record says. What the record does not know is as on the preset with the same driver, otherwise as on an igb;
// Source.Default names it. file is the record's, for messages.
func Play(c *card.Card, file string) PF {
	pf := presetOf(c)
	p := &player{card: c, Behaviour: pf.Behaviour}
	p.play()
	p.Source = Source{Kind: SourceRecorded, Files: file, Default: strings.Join(p.unknown, ", ")}
	p.Card = c
	pf.Behaviour = p.Behaviour
	pf.Vendor, pf.Device, pf.VFDevice = "0x"+c.PCI.Vendor, "0x"+c.PCI.Device, "0x"+c.PCI.VFDevice
	pf.Driver, pf.TotalVFs, pf.VFOffset, pf.VFStride = c.Driver.Bound, c.PCI.TotalVFs, c.PCI.VFOffset, c.PCI.VFStride
	pf.PortName, pf.Port = c.Link.PortName, c.Link.Port
	if c.Touch != nil && c.Touch.Driver != "" {
		pf.VFDriver = c.Touch.Driver
	}
	pf.Name, pf.PCI, pf.MAC = "ens1f0", "0000:01:00.0", "52:54:00:aa:00:00"
	return pf
}

// presetOf returns the preset with the driver of a card.
func presetOf(c *card.Card) PF {
	makes := presets()
	if i := slices.IndexFunc(makes, func(m Make) bool { return m.PF.defaults().Driver == c.Driver.Bound }); i >= 0 {
		return makes[i].PF
	}
	return PF{Behaviour: IGB(), VFDriver: c.Driver.Bound} // as most do: a driver for both
}

// A player finds out from a card how a PF behaves.
type player struct {
	card *card.Card
	Behaviour
	unknown []string
}

// know sets a part of the behaviour to what the card says, if it does.
func (p *player) know(name string, field *bool, is, known bool) {
	if known {
		*field = is
	} else {
		p.unknown = append(p.unknown, name)
	}
}

// accepted sets a part of the behaviour to whether a setting was accepted and done.
func (p *player) accepted(name string, field *bool, set string) {
	s, known := p.card.Touch.Step(set)
	p.know(name, field, s.Errno == "" && s.Reads != card.AsBefore, known)
}

// play sets the behaviour.
func (p *player) play() {
	l, touch := p.card.Link, p.card.Touch
	p.InfiniBand, p.RDMA, p.VendorTree, p.SwitchID = l.Type == "infiniband", l.RDMA, l.VFFiles, l.SwitchID
	p.Virtio = p.card.Driver.Bound == "virtio-pci"
	shows := slices.ContainsFunc(p.card.VFs, func(v card.VF) bool { return len(v.Shows) > 0 })
	p.know("whether it reports VFs", &p.ReportsVFs, shows, len(p.card.VFs) > 0)
	p.settings(touch)
	p.accepted("spoofchk", &p.Spoofchk, card.SpoofchkOff)
	p.know("spoofchk of a fresh VF", &p.SpoofchkDefault, shows && p.card.VFs[0].Shows["spoofchk"] == "1", shows && touch != nil && touch.MadeVFs)
	p.accepted("trust", &p.Trust, card.TrustOn)
	p.accepted("priority of a VLAN", &p.VLANQoS, card.VLANQoS)
	p.accepted("802.1ad", &p.Dot1AD, card.VLANDot1AD)
	p.accepted("min_tx_rate", &p.MinRate, card.RateMin)
	p.accepted("link_state", &p.LinkState, card.LinkDisable)
	off, known := touch.Step(card.LinkDisable)
	p.know("link_state without a report", &p.IgnoresLinkState, off.Errno == "" && off.Reads == card.AsBefore, known)
	drawn, known := touch.Step(card.MACDrawn)
	p.know("report of a VF's own MAC", &p.ReportsOwnMAC, drawn.Reads == card.AsAsked, known && drawn.Errno == "")
	own, known := touch.Step(card.VFMAC)
	p.know("MAC that a VF chooses", &p.VFChoosesMAC, own.Errno == "", known)
	reset, known := touch.Step(card.MACWhileBound)
	p.know("MAC of a VF that is bound", &p.MACResetsVF, reset.Reads == card.AsAsked, known && reset.Errno == "")
	p.unknown = append(p.unknown, "times", "interrupts and queues of VFs", "VFs while the PF is down")
}

// settings finds out whether the PF has operations for VFs at all.
func (p *player) settings(touch *card.Reaction) {
	any, forbidden, odd, known := false, true, false, false
	for _, set := range []string{card.MAC, card.VLAN, card.SpoofchkOff, card.TrustOn, card.LinkDisable, card.PortGUID} {
		s, ok := touch.Step(set)
		if !ok {
			continue
		}
		known = true
		any = any || s.Errno != "EOPNOTSUPP"
		forbidden = forbidden && s.Errno == "EPERM"
		odd = odd || s.Errno == "ENOTSUPP"
	}
	p.know("settings of VFs", &p.VFOps, any, known)
	p.know("eswitch of another system", &p.NoEswitch, forbidden, known)
	p.know("errno of what is not supported", &p.KernelErrno, odd, known)
}

// recorded returns the error that a record has of a setting of a VF; ok is false if it has none.
func (b Behaviour) recorded(a hw.VFAttr, want hw.VFState) (err error, ok bool) {
	if b.Card == nil {
		return nil, false
	}
	s, ok := b.Card.Touch.Step(card.NameOf(a, want))
	return s.Error(), ok && s.Errno != ""
}

// DriverInfo implements hw.Kernel.
func (k *Kernel) DriverInfo(index int) (hw.DriverInfo, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.byIndexLocked(hostNS, index)
	if l == nil || l.dev == nil {
		return hw.DriverInfo{}, hw.FromErrno(syscall.EOPNOTSUPP)
	}
	return hw.DriverInfo{Name: l.dev.driver}, nil
}

// Statistics implements card.Kernel.
func (k *Kernel) Statistics(int) ([]string, error) { return []string{"rx_packets", "tx_packets"}, nil }

// Devlink implements card.Kernel.
func (k *Kernel) Devlink(pci string) (card.Devlink, error) {
	on, err := k.Switchdev(pci)
	if on {
		return card.Devlink{Eswitch: "switchdev"}, err
	}
	return card.Devlink{}, err
}

// VFInfos implements card.Kernel: MAC, spoof check, trust and link state.
func (k *Kernel) VFInfos(pf int) (map[int]hw.VFInfo, error) {
	states, err := k.VFs(pf)
	infos := map[int]hw.VFInfo{}
	for i, s := range states {
		infos[i] = hw.VFInfo{}
		for _, a := range []hw.VFAttr{hw.VFMAC, hw.VFVLAN, hw.VFSpoofchk, hw.VFTrust, hw.VFLinkState} {
			attr, value, err := a.Encode(i, s)
			if err != nil {
				return nil, err
			}
			infos[i][attr] = value
		}
	}
	return infos, err
}
