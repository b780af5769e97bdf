package main

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/mellanox/passthrough/internal/admin"
)

// TestPlan: a plan has pools, gateways and steps of a network, or the error with which docker network create would end, and what it had
// found until then. It changes neither the ledger nor the machine.
func TestPlan(t *testing.T) {
	const pf = "ens1f0 (0000:01:00.0)"
	sriov := map[string]string{"netdevice": "ens1f0", "vlan": "100"}
	for name, c := range map[string]struct {
		request admin.PlanRequest
		want    string
	}{
		"subnet and gateway": {admin.PlanRequest{Options: sriov, OwnIPAM: true, IPv4: true, Subnets: []admin.Subnet{{Subnet: "10.1.0.0/29", Gateway: "10.1.0.1",
			Range: "10.1.0.4/30", Aux: map[string]string{"a": "10.1.0.5"}}}},
			"sriov; pool 10.1.0.0/29 10.1.0.4/30 2/3; gateway 10.1.0.1; containers get the 2 vfs that " + pf + " has; vlan 100 of " + pf + " belongs to this network"},
		"a default pool of each family": {admin.PlanRequest{Options: sriov, OwnIPAM: true, IPv4: true, IPv6: true},
			"sriov; pool 10.200.0.0/30  0/2; pool fd00:200::/126  0/3; containers get the 2 vfs that " + pf + " has; vlan 100 of " + pf + " belongs to this network"},
		"another ipam driver": {admin.PlanRequest{Options: sriov, IPv4: true},
			"sriov; containers get the 2 vfs that " + pf + " has; vlan 100 of " + pf + " belongs to this network"},
		"gateway=auto": {admin.PlanRequest{Options: map[string]string{"netdevice": "ens1f0", "gateway": "auto"}, OwnIPAM: true, IPv4: true,
			Subnets: []admin.Subnet{{Subnet: "10.1.0.0/29"}}},
			"sriov; pool 10.1.0.0/29  1/6; gateway 10.1.0.1; containers get the 2 vfs that " + pf + " has"},
		"an option that is not known": {admin.PlanRequest{Options: map[string]string{"netdevise": "ens1f0"}, IPv4: true}, `REFUSED option "netdevise": unknown; did you mean netdevice?`},
		"a gateway outside":           {admin.PlanRequest{Options: sriov, OwnIPAM: true, IPv4: true, Subnets: []admin.Subnet{{Subnet: "10.1.0.0/29", Gateway: "10.1.1.1"}}}, "REFUSED pool 10.1.0.0/29: request gateway 10.1.1.1: not in the subnet"},
		"a device that is not there":  {admin.PlanRequest{Options: map[string]string{"netdevice": "ens9"}, OwnIPAM: true, IPv4: true, Subnets: []admin.Subnet{{Subnet: "10.1.0.0/29"}}}, "REFUSED option netdevice: ens9: no such device; the NICs of this host are ens1f0, ens2"},
	} {
		t.Run(name, func(t *testing.T) {
			fuzzed(t, func(f *target) {
				body, err := json.Marshal(c.request)
				if err != nil {
					t.Fatal(err)
				}
				ledger, machine := f.ledger(), f.kernel.String()
				_, answer := f.call(admin.PlanCall, body)
				if f.ledger() != ledger || f.kernel.String() != machine || len(f.kernel.Calls()) > 0 {
					t.Errorf("the ledger was\n%s\nand is\n%s\nthe machine was\n%s\nand is\n%s\ncalls: %s", ledger, f.ledger(), machine, f.kernel.String(), f.kernel.Calls())
				}
				var p admin.Plan
				if err := json.Unmarshal(answer, &p); err != nil {
					t.Fatal(err)
				}
				if got := planText(p); got != c.want && (p.Refused == "" || !strings.HasPrefix(got, c.want)) {
					t.Errorf("the plan is\n%s\nwant\n%s", got, c.want)
				}
			})
		})
	}
}

// planText returns a plan as one line.
func planText(p admin.Plan) string {
	if p.Refused != "" {
		return "REFUSED " + p.Refused
	}
	parts := []string{p.Mode}
	for _, of := range p.Pools {
		parts = append(parts, strings.Join([]string{"pool", of.Subnet, of.Range, fmt.Sprintf("%d/%d", of.Leased, of.Size)}, " "))
	}
	for _, gw := range p.Gateways {
		parts = append(parts, "gateway "+gw)
	}
	return strings.Join(append(parts, p.Steps...), "; ")
}
