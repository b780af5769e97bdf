# shellcheck shell=bash
# qemu.sh: finds or unpacks a QEMU, finds out whether KVM works, starts the guest. To be sourced after host.sh.

# find_qemu: sets QEMU to the command. LAB_QEMU names one; else a private one is unpacked below the cache, because the
# NIC that the lab needs (igb) came with QEMU 8.0 and grew up later; the host's packages stay as they are.
find_qemu() {
  local root=$CACHE/qemu
  QEMU=("${LAB_QEMU:-}")
  [ -z "${LAB_QEMU:-}" ] || return 0
  locked qemu unpack_qemu "$root" "qemu-system-x86 qemu-utils trixie"
  QEMU=("$root/usr/lib64/ld-linux-x86-64.so.2"
    --library-path "$root/usr/lib/x86_64-linux-gnu:$root/usr/lib" --argv0 qemu-lab
    "$root/usr/bin/qemu-system-x86_64" -L "$root/usr/share/qemu" -L "$root/usr/share/seabios")
}

unpack_qemu() {
  local root=$1 t0
  is_made "$root" "$2" && return
  t0=$(date +%s)
  need_bootstrap
  rm -rf --one-file-system "$root.new" "$root.new.old"
  mkdir -p "${root%/*}"
  bootstrap trixie "$root.new" --include=qemu-system-x86,qemu-utils
  publish "$root.new" "$root" "$2"
  say "private QEMU: unpacked in $(seconds_since "$t0")"
}

# choose_accelerator KERNEL INITRD: sets ACCEL. Whether KVM can run a stock kernel is found by booting one, because
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
  set_accelerator "$answer"
}

# set_accelerator NAME: an Intel model in any case. Seeing another vendor's processor, the guest loses the NIC's mailbox
# interrupt (QEMU 10.0), and with it every VF's link.
set_accelerator() {
  if [ "$1" = tcg ]; then
    ACCEL=(-accel 'tcg,thread=multi,tb-size=1024' -cpu Nehalem)
  elif grep -qm1 GenuineIntel /proc/cpuinfo; then
    ACCEL=(-accel kvm -cpu host)
  else
    ACCEL=(-accel kvm -cpu 'host,vendor=GenuineIntel')
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

# nic_options N: N igb PFs. Each sits in a root port of its own and has a network of its own, so that it has carrier
# and the guest calls it enp<slot>s0.
nic_options() {
  local i
  for ((i = 1; i <= $1; i++)); do
    printf '%s\n' -netdev "hubport,id=wire$i,hubid=$i" -device "pcie-root-port,id=port$i,slot=$i,chassis=$i" \
      -device "igb,bus=port$i,netdev=wire$i,id=pf$i,mac=52:54:00:6c:70:0$i"
  done
}

# start_qemu RUN IMAGE PFS MIB CPUS PORT: in the background; its pid is in RUN/pid, its control socket RUN/qmp.
start_qemu() {
  local run=$1 image=$2 nics append
  mapfile -t nics < <(nic_options "$3")
  append="console=ttyS0 quiet loglevel=4 panic=-1 audit=0 mitigations=off nokaslr no_timer_check cryptomgr.notests"
  # shellcheck disable=SC2086 # LAB_QEMU_ARGS is a list of options
  "${QEMU[@]}" -name lab -nodefaults -no-user-config -display none -no-reboot -daemonize -pidfile "$run/pid" \
    -M q35 "${ACCEL[@]}" -m "$4" -smp "$5" -kernel "$image/vmlinuz" -initrd "$image/initrd" \
    -append "$append ${LAB_APPEND:-}" \
    -drive "file=$image/disk.img,if=virtio,format=raw,readonly=on,cache=unsafe" -device virtio-rng-pci \
    "${nics[@]}" \
    -netdev "user,id=mgmt,restrict=on,ipv6=off,hostfwd=tcp:127.0.0.1:$6-:22" \
    -device virtio-net-pci,netdev=mgmt,mac=52:54:00:6c:61:62,addr=0x10 \
    -chardev "socket,id=serial,path=$run/serial,server=on,wait=off,logfile=$run/serial.log" -serial chardev:serial \
    -qmp "unix:$run/qmp,server=on,wait=off" ${LAB_QEMU_ARGS:-} 9>&- 2>"$run/qemu.err"
}
