package hwtest_test

import (
	"bytes"
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/mellanox/passthrough/hw"
	"github.com/mellanox/passthrough/hw/card"
	"github.com/mellanox/passthrough/hw/hwtest"
)

// record records ens1f0 of a machine with settings, as the operator's tool does on a host without the plugin, and checks that all is as it was.
func record(t *testing.T, k *hwtest.Kernel) *card.Card {
	t.Helper()
	host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "1", Booted: time.Now().Add(-time.Hour)})
	if err != nil {
		t.Fatal(err)
	}
	synctest.Wait()
	before := k.String()
	r := &card.Recorder{Kernel: k, Host: host, Sys: k.Sys}
	c, err := r.Record("ens1f0")
	if err == nil {
		err = r.Touch(t.Context(), c, "ens1f0", card.Restoring(host), func(string) {})
	}
	if err != nil {
		t.Fatal(err)
	}
	time.Sleep(time.Minute)
	if diff := cmp.Diff(before, k.String()); diff != "" || len(c.Touch.Differs) > 0 {
		t.Errorf("it is not as before: %q (-was +is):\n%s", c.Touch.Differs, diff)
	}
	var text bytes.Buffer
	if err := c.Write(&text); err != nil {
		t.Fatal(err)
	}
	private, err := r.Private()
	if err == nil {
		err = card.CheckPrivate(text.String(), private...)
	}
	if err != nil {
		t.Errorf("%v:\n%s", err, text.String())
	}
	if c, err = card.Parse(text.Bytes()); err != nil {
		t.Fatal(err)
	}
	return c
}

// TestCardsPlayed: a PF that plays a record is recorded the same way, whatever the make, with VFs and without.
func TestCardsPlayed(t *testing.T) {
	for _, m := range hwtest.Makes(t) {
		for _, vfs := range []int{0, 3} {
			t.Run(m.Name, func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					pf := m.PF
					pf.VFs, pf.Up = vfs, vfs > 0
					k := hwtest.New(t)
					k.AddPF(pf)
					first := record(t, k)
					again := hwtest.Play(first, "a record")
					again.VFs, again.Up = pf.VFs, pf.Up
					k = hwtest.New(t)
					k.AddPF(again)
					if diff := cmp.Diff(first, record(t, k)); diff != "" {
						t.Errorf("played, it differs (-record +played):\n%s", diff)
					}
					if diff := cmp.Diff(decided(m.PF.Behaviour, vfs > 0), decided(again.Behaviour, vfs > 0)); diff != "" {
						t.Errorf("the record decides otherwise (-%s +record):\n%s", m.Name, diff)
					}
				})
			})
		}
	}
}

// decided returns what a record decides of a behaviour; had says whether it is one of a PF that had VFs, whose fresh state is not known.
func decided(b hwtest.Behaviour, had bool) hwtest.Behaviour {
	b.Source, b.Card = hwtest.Source{}, nil
	if had || !b.VFOps {
		b.SpoofchkDefault = false
	}
	if !b.VFOps { // then the rest does not count
		b.ReportsVFs, b.Trust, b.Spoofchk, b.VLANQoS, b.ReportsOwnMAC = false, false, false, false, false
	}
	return b
}

// TestCardFiles: a PF that plays a file of hwtest/cards reacts as the device did, step by step.
func TestCardFiles(t *testing.T) {
	for _, m := range hwtest.Cards(t) {
		t.Run(m.Name, func(t *testing.T) {
			if m.PF.Card.Touch == nil {
				t.Logf("%s has no reactions: %s are as on a preset", m.Name, m.PF.Source.Default)
				return
			}
			synctest.Test(t, func(t *testing.T) {
				pf, was := m.PF, m.PF.Card
				if pf.VFs = was.PCI.NumVFs; pf.VFs > 0 {
					pf.Up = was.Link.Up
				}
				k := hwtest.New(t)
				k.AddPF(pf)
				if diff := cmp.Diff(was.Touch.Steps, record(t, k).Touch.Steps); diff != "" {
					t.Errorf("the stand-in differs from the device (-device +stand-in):\n%s", diff)
				}
				t.Logf("as on a preset: %s", pf.Source.Default)
			})
		})
	}
}

// TestTouchHolds: no VF is changed that is not free, or that its holder does not give; nothing is changed then.
func TestTouchHolds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		k := hwtest.New(t)
		k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 7, VFs: 2, Up: true})
		host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "1", Booted: time.Now()})
		if err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		_, l, _ := k.Netdev("0000:01:10.2")
		k.AddAddrs(l.Name, "192.0.2.1/24")
		before, calls := k.String(), len(k.Calls())
		r := &card.Recorder{Kernel: k, Host: host, Sys: k.Sys}
		c, err := r.Record("ens1f0")
		if err != nil {
			t.Fatal(err)
		}
		var asked []int
		lent := hw.Because(hw.ErrBusy, "it is lent")
		err = r.Touch(t.Context(), c, "ens1f0", func(_ context.Context, _ hw.PF, vf hw.VF) (func(context.Context) error, error) {
			asked = append(asked, vf.Index)
			return nil, lent
		}, func(string) {})
		if err == nil || err.Error() != "ens1f0 (0000:01:00.0): none of its vfs is free: it is lent" || !slices.Equal(asked, []int{0}) {
			t.Errorf("vfs %v were asked for: %v", asked, err)
		}
		if now := k.String(); now != before {
			t.Errorf("changed:\n%s", cmp.Diff(before, now))
		}
		for _, call := range k.Calls()[calls:] {
			if !strings.HasSuffix(call, "sriov_numvfs 2") && !strings.HasSuffix(call, "sriov_numvfs 8") {
				t.Errorf("%s", call)
			}
		}
	})
}

// TestTouchInterrupted: whatever call fails, the VF is put back, or the record says what is not as before.
func TestTouchInterrupted(t *testing.T) {
	for n := 1; ; n++ {
		done := false
		synctest.Test(t, func(t *testing.T) {
			k := hwtest.New(t)
			k.AddPF(hwtest.PF{Name: "ens1f0", PCI: "0000:01:00.0", TotalVFs: 7, VFs: 2, Up: true})
			host, err := hw.Open(hw.Config{Sys: k.Sys, Kernel: k, Boot: "1", Booted: time.Now()})
			if err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
			before := k.String()
			k.FailAt(n, hw.ErrInvalid)
			last := len(k.Calls()) + n
			r := &card.Recorder{Kernel: k, Host: host, Sys: k.Sys}
			c, err := r.Record("ens1f0")
			if err != nil {
				t.Fatal(err)
			}
			failed := r.Touch(t.Context(), c, "ens1f0", card.Restoring(host), func(string) {})
			done = len(k.Calls()) < last
			time.Sleep(time.Minute)
			if now := k.String(); now != before && failed == nil && len(c.Touch.Differs) == 0 {
				t.Errorf("call %d failed, and it is not as before:\n%s", n, cmp.Diff(before, now))
			}
		})
		if done {
			return
		}
	}
}

// TestCardParse: a file of another format, with something unknown in it, or without a device is refused.
func TestCardParse(t *testing.T) {
	whole := card.Card{Format: card.Format, PCI: card.PCI{Vendor: "15b3", Device: "1017", VFDevice: "1018", TotalVFs: 8, VFOffset: 2, VFStride: 1},
		Driver: card.Driver{Bound: "mlx5_core"}}
	text, err := json.Marshal(whole)
	if err != nil {
		t.Fatal(err)
	}
	for was, c := range map[string]struct{ is, want string }{
		`"format":1`:             {`"format":2`, "card: format 2; this program reads 1"},
		`"format":1,`:            {`"format":1,"host":"h",`, `card: json: unknown field "host"`},
		`"bound":"mlx5_core"`:    {`"bound":""`, "card: it does not say which device it is, or which driver it has"},
		`"total_vfs":8`:          {`"total_vfs":0`, "card: it has no vfs"},
		`"vendor":"15b3"`:        {`"vendor":"15b3"`, "<nil>"},
		`"device":"1017","vf_de`: {`"vf_de`, "card: it does not say which device it is, or which driver it has"},
	} {
		_, err := card.Parse([]byte(strings.Replace(string(text), was, c.is, 1)))
		if got := strings.TrimSpace(errorText(err)); got != c.want {
			t.Errorf("%s: %s, want %s", c.is, got, c.want)
		}
	}
	pf := hwtest.Play(&whole, "a record without reactions")
	if !pf.RDMA && pf.LinkState && pf.Source.Kind == hwtest.SourceRecorded && strings.HasPrefix(pf.Source.Default, "whether it reports VFs, settings of VFs") {
		return
	}
	t.Errorf("a record that knows nothing is played as %+v", pf)
}

func errorText(err error) string {
	if err == nil {
		return "<nil>"
	}
	return err.Error()
}
