// Package virtio is the tests that need a NIC with many VFs whose driver has no operation for them. They run in a guest of
// their own, which scripts/lab starts with --nic virtio: one PF, enp1s0, with 63 VFs.
package virtio
