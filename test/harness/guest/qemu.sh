# shellcheck shell=bash
# qemu.sh: finds or unpacks a QEMU, finds out whether KVM works, starts the guest. To be sourced after host.sh.

# find_qemu NIC: sets QEMU to the command. LAB_QEMU names one; else a private one is unpacked below the cache, because the
# NICs that the lab needs came with QEMU 8.0 (igb, which grew up later) and after 10.0 (VFs of virtio); the host's packages stay
# as they are.
find_qemu() {
  local suite=trixie root=$CACHE/qemu
  QEMU=("${LAB_QEMU:-}")
  [ -z "${LAB_QEMU:-}" ] || return 0
  [ "$1" = igb ] || suite=forky root=$CACHE/qemu-forky
  locked qemu unpack_qemu "$suite" "$root" "qemu-system-x86 qemu-utils $suite"
  QEMU=("$root/usr/lib64/ld-linux-x86-64.so.2"
    --library-path "$root/usr/lib/x86_64-linux-gnu:$root/usr/lib" --argv0 qemu-lab
    "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
}

# unpack_qemu SUITE DIR RECIPE
unpack_qemu() {
  local suite=$1 root=$2 t0
  is_made "$root" "$3" && return
  t0=$(date +%s)
  need_bootstrap
  rm -rf --one-file-system "$root.new" "$root.new.old"
  mkdir -p "${root%/*}"
  bootstrap "$suite" "$root.new" --include=qemu-system-x86,qemu-utils
  publish "$root.new" "$root" "$3"
  say "private QEMU of $suite: unpacked in $(seconds_since "$t0")"
}

# choose_accelerator KERNEL INITRD CLOCK: sets ACCEL. Whether KVM can run a stock kernel is found by booting one, because
# /dev/kvm may exist and not do; the answer is kept for as long as the host runs.
choose_accelerator() {
  local kept=$CACHE/lab/accelerator boot answer
  boot=$(uname -r)-$(cat /proc/sys/kernel/random/boot_id)
  case ${LAB_ACCEL:-} in
    kvm | tcg) answer=$LAB_ACCEL ;;
    '') read -r answer was 2>/dev/null <"$kept" && [ "$was" = "$boot" ] || answer='' ;;
    *) die "LAB_ACCEL=$LAB_ACCEL: not known; use kvm or tcg" ;;
  esac
  if [ -z "$answer" ]; then
    answer=tcg
    if kvm_works "$1" "$2"; then answer=kvm; fi
    echo "$answer $boot" >"$kept"
  fi
  set_accelerator "$answer" "$3"
}

# set_accelerator NAME [CLOCK]: an Intel model in any case. Seeing another vendor's processor, the guest loses the NIC's mailbox
# interrupt (QEMU 10.0), and with it every VF's link.
#
# With the clock "skip" the time of an emulated guest is the number of instructions that it has executed, 2 ns each, and time in which
# all of its processors are idle is skipped. A test that waits costs nothing, and no timeout in the guest depends on the load of the
# host, which is why the guest runs with a low priority (nice). One thread emulates all processors of the guest, so that they never wait
# for each other: on a busy host a "docker run" costs a quarter less. An idle guest uses one processor of the host.
set_accelerator() {
  if [ "$1" = kvm ]; then
    ACCEL=(-accel kvm -cpu host)
    grep -qm1 GenuineIntel /proc/cpuinfo || ACCEL=(-accel kvm -cpu 'host,vendor=GenuineIntel')
  elif [ "${2:-real}" = skip ]; then
    ACCEL=(-accel 'tcg,thread=single,tb-size=1024' -icount 'shift=1,sleep=off' -cpu Nehalem)
  else
    ACCEL=(-accel 'tcg,thread=multi,tb-size=1024' -cpu Nehalem)
  fi
}

# kvm_works KERNEL INITRD: whether the initrd's first line is reached, within 20 s and before KVM gives up.
kvm_works() {
  [ -w /dev/kvm ] || return 1
  local line works=1 out trial
  set_accelerator kvm
  exec {out}< <(exec timeout 20 "${QEMU[@]}" -nodefaults -no-user-config -display none -no-reboot -M q35 -m 512 \
    "${ACCEL[@]}" -kernel "$1" -initrd "$2" -append "console=ttyS0 quiet panic=-1 lab.trial" -serial stdio \
    2>&1 </dev/null)
  trial=$!
  while read -r line; do
    case $line in
      *'lab: trial passed'*) works=0; break ;;
      *'KVM internal error'*) break ;;
    esac
  done <&"$out"
  kill "$trial" 2>/dev/null || true
  exec {out}<&-
  return $works
}

# nic_options NIC N NODE: N PFs. Each sits in a root port of its own, so that the guest calls it enp<slot>s0. All are on one
# network, so that they have carrier and reach each other. NODE is 0 in a guest without a wire.
nic_options() {
  local i
  for ((i = 1; i <= $2; i++)); do
    printf '%s\n' -device "pcie-root-port,id=port$i,slot=$i,chassis=$i"
    "$1_options" "$i" "$3"
  done
}

# igb_options I NODE: guest's nic plugs the same one in again.
igb_options() {
  printf '%s\n' -netdev "hubport,id=wire$1,hubid=1" \
    -device "igb,bus=port$1,netdev=wire$1,id=pf$1,mac=52:54:00:6c:7$2:0$1"
}

# wire_options DIR NODE: what joins this guest to another one: the igb NICs' network, and a NIC for the management of both,
# as machines with an SR-IOV NIC have beside it. Node 1 listens; node 2 tries until it is there, and again when it was away.
wire_options() {
  local net end=server=on
  [ "$2" = 1 ] || end=server=off,reconnect-ms=200
  for net in uplink lan; do
    printf '%s\n' -netdev "stream,id=$net,$end,addr.type=unix,addr.path=$1/$net"
  done
  printf '%s\n' -netdev hubport,id=uplink.port,hubid=1,netdev=uplink \
    -device "virtio-net-pci,netdev=lan,mac=52:54:00:6c:61:7$2,addr=0x11"
}

# make_data_disk FILE MIB: a disk for the engine's files. It takes no more space than what is on it.
make_data_disk() {
  need mke2fs e2fsprogs
  truncate -s "$2M" "$1"
  mke2fs -q -F -t ext4 -m 0 "$1" >/dev/null
}

# virtio_options I: a virtio PF with 63 VFs. VFs are functions of the PF's device, which are made before it; from the
# eighth on they need ARI, where a function's number reaches into that of the slot.
virtio_options() {
  local vf
  for ((vf = 1; vf <= 63; vf++)); do
    printf '%s\n' -netdev "hubport,id=wire$1.$vf,hubid=$1" -device \
      "virtio-net-pci,bus=port$1,addr=$((vf / 8)).$((vf % 8)),netdev=wire$1.$vf,sriov-pf=pf$1,mac=$(printf 52:54:00:6c:7%x:%02x "$1" "$vf")"
  done
  printf '%s\n' -netdev "hubport,id=wire$1,hubid=$1" \
    -device "virtio-net-pci,bus=port$1,addr=0.0,netdev=wire$1,id=pf$1,mac=52:54:00:6c:70:0$1"
}

# start_qemu RUN IMAGE NIC PFS MIB CPUS PORT: in the background; its pid is in RUN/pid, its control socket RUN/qmp. The
# guest reaches another control socket at 10.0.2.100:4444, to unplug its NICs: see files/usr/local/sbin/nic. RUN/disk, where
# there is one, is its second disk; RUN/wire the wire that it is on, as number RUN/node. Processors that are emulated by several threads
# have a watchdog.
start_qemu() {
  local run=$1 image=$2 node=0 nics more=() append nice=()
  if [ -e "$run/wire" ]; then
    node=$(<"$run/node")
    mapfile -t more < <(wire_options "$(readlink "$run/wire")" "$node")
  fi
  mapfile -t nics < <(nic_options "$3" "$4" "$node")
  if [ -e "$run/disk" ]; then more+=(-drive "file=$run/disk,if=virtio,format=raw,cache=unsafe"); fi
  append="console=ttyS0 quiet loglevel=4 panic=-1 audit=0 mitigations=off nokaslr no_timer_check cryptomgr.notests"
  # Memory is not cleared when it is allocated; no security module, pressure statistics or watchdog runs: a container starts with 24 %
  # less of an emulated processor.
  append+=' init_on_alloc=0 lsm= psi=0 nowatchdog'
  # Programs run on the first emulated processor; on another one only those that are sent there (taskset). What several processors tell
  # each other is dear: with two of them "docker ps" costs twice as much of the host's processor, "docker run" a third more.
  case ${ACCEL[*]} in *tcg*) append+=" lab.emulated$([ "$6" = 1 ] || echo " isolcpus=1-$(($6 - 1))")" ;; esac
  case ${ACCEL[*]} in *icount*) nice=(nice -n 10) ;; esac
  # The watchdog's control socket; a pair of pipes, because bash has no sockets.
  rm -f "$run/watch.in" "$run/watch.out"
  mkfifo "$run/watch.in" "$run/watch.out"
  # shellcheck disable=SC2086 # LAB_QEMU_ARGS is a list of options
  "${nice[@]}" "${QEMU[@]}" -name lab -nodefaults -no-user-config -display none -no-reboot -daemonize -pidfile "$run/pid" \
    -M q35 "${ACCEL[@]}" -m "$5" -smp "$6" -kernel "$image/vmlinuz" -initrd "$image/initrd" \
    -append "$append lab.node=$node lab.engine=${engine:-} ${LAB_APPEND:-}" \
    -drive "file=$image/disk.img,if=virtio,format=raw,readonly=on,cache=unsafe" -device virtio-rng-pci \
    "${nics[@]}" "${more[@]}" \
    -netdev "user,id=mgmt,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:$7-:22,guestfwd=tcp:10.0.2.100:4444-chardev:inside" \
    -device virtio-net-pci,netdev=mgmt,mac=52:54:00:6c:61:62,addr=0x10 \
    -chardev "socket,id=serial,path=$run/serial,server=on,wait=off,logfile=$run/serial.log" -serial chardev:serial \
    -qmp "unix:$run/qmp,server=on,wait=off" \
    -chardev "socket,id=control,path=$run/qmp.guest,server=on,wait=off" -mon chardev=control,mode=control \
    -chardev "socket,id=inside,path=$run/qmp.guest" \
    -chardev "pipe,id=watch,path=$run/watch" -mon chardev=watch,mode=control ${LAB_QEMU_ARGS:-} 9>&- 2>"$run/qemu.err" || return
  case ${ACCEL[*]} in
    *thread=multi*) setsid "$GUEST/watchdog" "$run" </dev/null >/dev/null 2>"$run/watchdog.err" 9>&- & ;;
  esac
}
