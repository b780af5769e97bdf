// Package lab is the tests that need a real SR-IOV NIC's kernel drivers and a real Docker Engine. They run in the guest
// that scripts/lab starts: two igb PFs, enp1s0 and enp2s0, with up to 7 VFs each. In virtio/ are those that need another
// make of NIC, in swarm/ those that need two machines, in guest/ is how the guests are made.
package lab
