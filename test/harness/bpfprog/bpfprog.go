// Package bpfprog loads BPF programs for tests.
package bpfprog

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// attempts bounds how often a program is loaded again: a run of 100 signals within 100 loads would need a signal each few microseconds.
const attempts = 100

// Load loads a program of a kind (unix.BPF_PROG_TYPE_*) that returns 2: XDP_PASS, or TCX_DROP. The program ends when the file is closed
// and nothing has it attached. The verifier ends with EAGAIN at a signal (Linux 6.12, kernel/bpf/verifier.c), such as those of Go's
// scheduler: Load then tries again.
func Load(kind uint32) (*os.File, error) {
	instructions := [2][8]byte{{0xb7, 0, 0, 0, 2}, {0x95}} // mov64 r0, 2; exit
	license := [4]byte{'G', 'P', 'L'}
	attr := struct { // the beginning of union bpf_attr, for BPF_PROG_LOAD
		kind, count           uint32
		instructions, license uint64
		logLevel, logSize     uint32
		log                   uint64
		version, flags        uint32
		name                  [16]byte
		ifindex, expectedType uint32
	}{kind: kind, count: uint32(len(instructions)), instructions: uint64(uintptr(unsafe.Pointer(&instructions))),
		license: uint64(uintptr(unsafe.Pointer(&license)))}
	var fd uintptr
	errno := unix.EAGAIN
	for n := 0; n < attempts && errno == unix.EAGAIN; n++ {
		fd, _, errno = unix.Syscall(unix.SYS_BPF, unix.BPF_PROG_LOAD, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	}
	runtime.KeepAlive(&instructions)
	runtime.KeepAlive(&license)
	if errno != 0 {
		return nil, fmt.Errorf("load a BPF program: %w", errno)
	}
	return os.NewFile(fd, "program"), nil
}
