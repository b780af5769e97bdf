# shellcheck shell=bash
# dpdk.sh: DPDK's testpmd of Debian 12 with the driver for VFs of igb, as the root of a container, beside the images. To be sourced after host.sh.

# make_dpdk: unpacks it, once: $CACHE/dpdk/root.
make_dpdk() { locked dpdk make_dpdk_locked "$CACHE/dpdk"; }

make_dpdk_locked() {
  local dir=$1 new=$1.new t0 want
  want=$(recipe_of dpdk.sh)
  if is_made "$dir" "$want"; then return; fi
  t0=$(date +%s)
  need_bootstrap
  rm -rf --one-file-system "$new" "$new.old"
  mkdir -p "$new"
  bootstrap bookworm "$new/all" --include=dpdk-dev,librte-net-e1000-23,libgcc-s1
  dpdk_root "$new/all" "$new/root"
  rm -rf --one-file-system "$new/all"
  publish "$new" "$dir" "$want"
  say "dpdk of bookworm: unpacked in $(seconds_since "$t0")"
}

# dpdk_root ALL ROOT: copies testpmd and what it loads from ALL to ROOT. Its package wants all that there is of DPDK.
dpdk_root() {
  local all=$1 root=$2 at=/usr/lib/x86_64-linux-gnu ld=/lib64/ld-linux-x86-64.so.2 file
  local loaded=$at/dpdk/pmds-23.0 drivers=("$at"/librte_{net_e1000,mempool_ring,bus_pci}.so.23) # all in that folder are loaded at start
  mkdir -p "$root"/{bin,lib,lib64,run,var,tmp,proc,sys,dev} "$root$loaded"
  ln -s ../run "$root/var/run"
  cp -L "$all/usr/bin/dpdk-testpmd" "$root/bin/"
  cp -L "$all$ld" "$root$ld"
  for file in /usr/bin/dpdk-testpmd "${drivers[@]}"; do
    chroot "$all" $ld --list "$file" | sed -n 's/.* => \(.*\) (.*/\1/p'
  done | sort -u | while read -r file; do cp -L "$all$file" "$root/lib/"; done
  cp -L "$all"/lib/x86_64-linux-gnu/libgcc_s.so.1 "$root/lib/" # for pthread_cancel
  for file in "${drivers[@]}"; do
    cp -L "$all$file" "$root/lib/"
    ln -s "/lib/${file##*/}" "$root$loaded/${file##*/}.0"
  done
}
