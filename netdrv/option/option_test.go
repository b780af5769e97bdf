package option_test

import (
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/netdrv/option"
)

// texts turns "key=value" words into options. A word without "=" is an option without a value.
func texts(words string) map[string]string {
	all := map[string]string{}
	for _, w := range strings.Fields(words) {
		key, value, _ := strings.Cut(w, "=")
		all[key] = value
	}
	return all
}

// parse parses the options of a network on ens1f0.
func parse(t *testing.T, words string) *option.Network {
	t.Helper()
	all := texts(words)
	all["netdevice"] = "ens1f0"
	n, err := option.Parse(all)
	if err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	return n
}

// TestParse: what the user gave is in the network's values, and nothing else is but the defaults.
func TestParse(t *testing.T) {
	t.Parallel()
	for words, want := range map[string]option.Network{
		"":                                     {},
		"vfs=2-3,0,2 numvfs=8 policy=Pack":     {VFs: []int{2, 3, 0}, NumVFs: 8, Container: option.Container{Policy: option.PolicyPack}},
		"bond=802.3AD lock=vlan,Trust":         {Bond: "802.3ad", Lock: []string{"vlan", "trust"}},
		"gateway=auto replace=0123456789ab":    {Gateway: option.GatewayAuto, Replace: "0123456789ab"},
		"mode=passthrough force=yes":           {Mode: option.ModePassthrough, Force: true},
		"mode=ipvlan ipvlan_mode=L3S":          {Mode: option.ModeIPVlan, ChildMode: "l3s"},
		"Mode=Macvlan parent=ens1f0":           {Mode: option.ModeMacvlan, Parent: "ens1f0"},
		"mode=ipoib pkey=0x0005":               {Mode: option.ModeIPoIB, PKey: 0x8005},
		"numa=1 prefix=net":                    {Container: option.Container{NUMA: option.NUMA{Given: true, Node: 1}, Prefix: "net"}},
		"near=3B:00.0":                         {Container: option.Container{Near: "0000:3b:00.0"}},
		"near=GPU":                             {Container: option.Container{Near: option.NearGPU}},
		"NUMA=Auto cores=numa ethtool=gro=OFF": {Container: option.Container{NUMA: option.NUMA{Auto: true}, Cores: hw.Cores{Near: true}, Features: hw.Features{"gro": false}}},
	} {
		want.Netdevice = "ens1f0"
		if want.Mode == "" {
			want.Mode = option.ModeSRIOV
		}
		if want.Prefix == "" {
			want.Prefix = "eth"
		}
		if d := cmp.Diff(&want, parse(t, words)); d != "" {
			t.Errorf("%s: want -, got +\n%s", words, d)
		}
	}
}

// TestParent: a network of Docker's own macvlan driver is one of this driver with its options.
func TestParent(t *testing.T) {
	t.Parallel()
	for _, parse := range []func(map[string]string) (*option.Network, error){option.Parse, option.ParseStored} {
		n, err := parse(texts("parent=ens2.100 mode=ipvlan ipvlan_mode=l3 ipvlan_flag=private"))
		if err != nil || n.Netdevice != "ens2.100" {
			t.Errorf("%+v, %v", n, err)
		}
	}
}

// TestForContainer: a container's options override the network's one by one, and leave the network as it is.
func TestForContainer(t *testing.T) {
	t.Parallel()
	n := parse(t, "vlan=100 vlan_qos=3 ethtool=gro=off,tso=off mtu=1400 lock=mtu")
	before := *n
	c, err := n.ForContainer(texts("VLAN=200 ethtool=gso=off mac=02:00:00:00:00:AB sticky=web"))
	if err != nil {
		t.Fatal(err)
	}
	want := n.Container
	vlan := 200
	want.VLAN, want.Features, want.MAC, want.Sticky = &vlan, hw.Features{"gso": false}, "02:00:00:00:00:ab", "web"
	if d := cmp.Diff(want, c); d != "" {
		t.Errorf("want -, got +\n%s", d)
	}
	if d := cmp.Diff(&before, n); d != "" {
		t.Errorf("the network changed: before -, after +\n%s", d)
	}
	if c, err = n.ForContainer(nil); err != nil || !cmp.Equal(c, n.Container) {
		t.Errorf("without own options: %v; want -, got +\n%s", err, cmp.Diff(n.Container, c))
	}
}

// TestVFSpec: an attribute that the user gave is Required; MAC, VLAN, spoofchk and trust always get a value; all others stay as they are.
func TestVFSpec(t *testing.T) {
	t.Parallel()
	const own = "02:00:00:00:00:01"
	now := hw.VFState{VLAN: hw.VLAN{ID: 7, QoS: 1}, Rate: hw.Rate{Min: 5, Max: 50}, LinkMode: hw.LinkEnable}
	policies := map[hw.VFAttr]hw.Policy{hw.VFMAC: hw.BestEffort, hw.VFSpoofchk: hw.BestEffort, hw.VFTrust: hw.BestEffort}
	for _, c := range []struct {
		words    string
		state    func(s *hw.VFState)
		required []hw.VFAttr
	}{
		{"", func(s *hw.VFState) {}, nil},
		{"vlan=keep", func(s *hw.VFState) { s.VLAN = now.VLAN }, nil},
		{"privileged=yes", func(s *hw.VFState) { s.Spoofchk, s.Trust = false, true }, []hw.VFAttr{hw.VFSpoofchk, hw.VFTrust}},
		{"privileged=yes trust=no", func(s *hw.VFState) { s.Spoofchk = false }, []hw.VFAttr{hw.VFSpoofchk, hw.VFTrust}},
		{"trust=on", func(s *hw.VFState) { s.Trust = true }, []hw.VFAttr{hw.VFTrust}},
		{"vlan=100", func(s *hw.VFState) { s.VLAN = hw.VLAN{ID: 100} }, []hw.VFAttr{hw.VFVLAN}},
		{"vlan=100 vlan_qos=5 vlan_proto=802.1ad", func(s *hw.VFState) { s.VLAN = hw.VLAN{ID: 100, QoS: 5, Proto: hw.Dot1AD} }, []hw.VFAttr{hw.VFVLAN}},
		{"vlan=0", func(s *hw.VFState) { s.VLAN = hw.VLAN{} }, []hw.VFAttr{hw.VFVLAN}},
		{"max_tx_rate=1000", func(s *hw.VFState) { s.Rate.Max = 1000 }, []hw.VFAttr{hw.VFRate}},
		{"link_state=auto", func(s *hw.VFState) { s.LinkMode = "" }, []hw.VFAttr{hw.VFLinkState}},
	} {
		want := hw.VFSpec{VFState: now, Policies: maps.Clone(policies)}
		want.MAC, want.VLAN, want.Spoofchk = own, hw.VLAN{}, true
		if want.Policies[hw.VFVLAN] = hw.Required; c.words == "vlan=keep" {
			delete(want.Policies, hw.VFVLAN)
		}
		c.state(&want.VFState)
		for _, a := range c.required {
			want.Policies[a] = hw.Required
		}
		if d := cmp.Diff(want, parse(t, c.words).VFSpec(hw.PF{}, now, own)); d != "" {
			t.Errorf("%s: want -, got +\n%s", c.words, d)
		}
	}
}

// TestOtherSpecs: what the user gave for a netdev, its tuning and a child is in their specs.
func TestOtherSpecs(t *testing.T) {
	t.Parallel()
	now := &hw.LinkState{Name: "ens1f0v0", MTU: 1500, TxQLen: 1000}
	link := hw.LinkSpec{LinkState: *now, Policies: map[hw.LinkAttr]hw.Policy{hw.LinkMTU: hw.Required, hw.LinkPromisc: hw.Required}}
	link.MTU, link.Promisc = 9000, true
	n := parse(t, "mtu=9000 promisc=on queues=2 ring_tx=512 cores=none")
	if d := cmp.Diff(link, n.LinkSpec(now)); d != "" {
		t.Errorf("link: want -, got +\n%s", d)
	}
	if d := cmp.Diff(hw.TuningSpec{Queues: 2, TxRing: 512}, n.TuningSpec()); d != "" {
		t.Errorf("tuning: want -, got +\n%s", d)
	}
	if !parse(t, "mtu=9000").TuningSpec().Empty() {
		t.Error("an mtu is tuning")
	}
	for words, want := range map[string]hw.ChildSpec{
		"mode=macvlan":                        {Kind: hw.Macvlan, Mode: "bridge"},
		"mode=macvlan macvlan_mode=vepa":      {Kind: hw.Macvlan, Mode: "vepa"},
		"mode=ipoib pkey=1":                   {Kind: hw.IPoIB, Mode: "datagram", PKey: 0x8001},
		"mode=ipoib ipoib_mode=connected":     {Kind: hw.IPoIB, Mode: "connected"},
		"mode=ipvlan ipvlan_mode=l3 mtu=1400": {Kind: hw.IPVlan, Mode: "l3", Flag: "bridge"},
	} {
		n := parse(t, words)
		if d := cmp.Diff(want, n.ChildSpec()); d != "" || !n.HasChildren() {
			t.Errorf("%s: has children %v; want -, got +\n%s", words, n.HasChildren(), d)
		}
	}
	if parse(t, "").HasChildren() {
		t.Error("sriov has children")
	}
}

// FuzzOptions: any options of a network and of a container are parsed, or refused under the name of one of them. What is given for a
// container is what it would be on a network of its own.
func FuzzOptions(f *testing.F) {
	f.Add("vlan", "100", "vlan_qos", "3", "vlan", "200")
	f.Add("mode", "ipoib", "pkey", "0x8001", "mtu", "2044")
	f.Add("lock", "all", "privileged", "yes", "trust", "no")
	f.Add("routes", "10.50.0.0/16 via 10.0.0.1; fd50::/48 dev", "ifname", "fab0", "routes", "none")
	f.Add("prefix", "fab", "routes", "10.5.0.1 dev", "ifname", "fab0")
	f.Add("vfs", "0-3,7", "numvfs", "8", "vf", "3")
	f.Add("ethtool", "gro=off,tso=on", "cores", "2,4-7", "cores", "none")
	f.Fuzz(func(t *testing.T, name1, value1, name2, value2, own, ownValue string) {
		raw := map[string]string{"netdevice": "ens1f0", name1: value1, name2: value2}
		n, err := option.Parse(raw)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "option ") {
				t.Errorf("%q: the error names no option: %v", raw, err)
			}
			return
		}
		c, err := n.ForContainer(map[string]string{own: ownValue})
		if err != nil {
			if !strings.HasPrefix(err.Error(), "option ") {
				t.Errorf("%q, %q=%q: the error names no option: %v", raw, own, ownValue, err)
			}
			return
		}
		names := map[string]string{"prefix": "ifname", "ifname": "prefix"} // the one that is given for the container takes the other's place
		isOwn := func(k string, _ string) bool {
			return strings.EqualFold(k, own) || strings.EqualFold(k, names[strings.ToLower(own)])
		}
		maps.DeleteFunc(raw, isOwn)
		raw[own] = ownValue
		both := slices.ContainsFunc(option.Options(), func(o option.Option) bool {
			return strings.EqualFold(o.Name, own) && o.For == option.ForBoth
		})
		if !both {
			return
		}
		direct, err := option.Parse(raw)
		addresses := cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})
		if err != nil || !cmp.Equal(direct.Container, c, addresses) {
			t.Errorf("%q with %q=%q for the container: %v; network -, container +\n%s", raw, own, ownValue, err,
				cmp.Diff(direct, &option.Network{Container: c}, addresses))
		}
	})
}
