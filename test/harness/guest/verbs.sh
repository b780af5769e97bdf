# shellcheck shell=bash
# verbs.sh: verbs:latest, an image for containers with Debian's programs for RDMA, one for all engines: busybox, ibv_devinfo,
# ibv_rc_pingpong and ib_write_bw, for devices of rdma_rxe. To be sourced after image.sh.

# verbs_suite is the release whose programs they are.
verbs_suite=trixie

# make_verbs: makes it, once: $CACHE/verbs/image.tar, for "docker import".
make_verbs() { locked verbs make_verbs_locked "$CACHE/verbs"; }

make_verbs_locked() {
  local dir=$1 new=$1.new t0 want root img f
  want=$(recipe_of verbs.sh)
  if is_made "$dir" "$want"; then return; fi
  t0=$(date +%s) root=$new/root img=$new/image
  need_bootstrap
  rm -rf --one-file-system "$new" "$new.old"
  mkdir -p "$img"/{bin,lib64,tmp,proc,sys,dev,etc/libibverbs.d}
  # shellcheck disable=SC2016 # mmdebstrap gives $1
  bootstrap $verbs_suite "$root" --include=ibverbs-utils,ibverbs-providers,perftest,busybox-static \
    --setup-hook='mkdir -p "$1/usr/lib64" && ln -s usr/lib64 "$1/lib64"'
  chroot "$root" /usr/bin/busybox --list | while read -r f; do ln -sf busybox "$img/bin/$f"; done
  rm "$img/bin/busybox"
  cp "$root/usr/bin/busybox" "$img/bin/"
  for f in ibv_devinfo ibv_rc_pingpong ib_write_bw; do copy_with_libraries "$root" "/usr/bin/$f" "$img/bin/"; done
  f=$(echo "$root"/usr/lib/*/libibverbs/librxe-*)
  mkdir -p "$img/$(dirname "${f#"$root"}")"
  cp "$f" "$img/${f#"$root"}"
  echo 'driver rxe' >"$img/etc/libibverbs.d/rxe.driver"
  echo 'root:x:0:0:root:/:/bin/sh' >"$img/etc/passwd"
  tar -C "$img" --owner=0 --group=0 -cf "$new/image.tar" .
  rm -rf --one-file-system "$root" "$img"
  publish "$new" "$dir" "$want"
  say "programs for RDMA of $verbs_suite: unpacked in $(seconds_since "$t0")"
}
