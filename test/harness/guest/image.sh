# shellcheck shell=bash
# image.sh: makes the root tree, disk, kernel and initrd of one Debian release. To be sourced after host.sh.
#
# Packages are unpacked and none of their scripts run: that takes half the time of an installation, and what the guest
# needs of their work fits into finish_root. scripts/engine uses the same tree as its private root.

# image_dir SUITE
image_dir() { echo "$CACHE/lab/$1"; }

# make_image SUITE: builds what is missing or was made from another recipe. The guest's own scripts are in the
# initrd, so a change to them costs a second and not a new tree.
make_image() {
  make_tree "$1"
  locked image make_initrd "$(image_dir "$1")"
}

# make_tree SUITE: all but the initrd.
make_tree() { locked image make_tree_locked "$1" "$(image_dir "$1")"; }

make_tree_locked() {
  local want
  want=$(recipe_of packages modules image.sh)
  is_made "$2" "$want" || build_tree "$1" "$2" "$want"
}

make_initrd() {
  local dir=$1 want
  want=$(recipe_of initrd.sh initrd-init files)
  [ "$(cat "$dir/initrd.recipe" 2>/dev/null)" = "$want" ] || build_initrd "$dir" "$want"
}

build_tree() {
  local suite=$1 dir=$2 new=$2.new t0
  t0=$(date +%s)
  need_bootstrap
  need mke2fs e2fsprogs
  need ssh openssh-client
  say "building the $suite image, once: about a minute"
  rm -rf --one-file-system "$new" "$new.old"
  mkdir -p "$new"
  unpack_packages "$suite" "$new/root"
  prune_tree "$new/root"
  unpack_modules "$new/root"
  make_keys "$new"
  finish_root "$new/root" "$new"
  container_image "$new/root"
  # Debian 14 keeps the kernel with its modules.
  find "$new/root/boot" "$new/root/usr/lib/modules" -name 'vmlinuz*' -exec mv {} "$new/vmlinuz" \;
  rm -rf "$new"/root/boot/*
  make_disk "$new/root" "$new/disk.img"
  publish "$new" "$dir" "$3"
  say "$suite image: made in $(seconds_since "$t0")"
}

# list_of FILE: its lines without comments.
list_of() { sed '/^#/d' "$GUEST/$1"; }

unpack_packages() {
  local suite=$1 list
  list=$(list_of packages | paste -sd,)
  # Debian 12 has the client in docker.io itself.
  [ "$suite" = bookworm ] || list+=,docker-cli
  # Debian 12's packages bring no links from /bin to /usr/bin.
  # shellcheck disable=SC2016 # mmdebstrap gives $1
  bootstrap "$suite" "$2" --include='?essential' --include="$list" --setup-hook='cd "$1" &&
    for d in bin sbin lib lib64; do mkdir -p "usr/$d" && ln -s "usr/$d" "$d"; done'
}

# prune_tree ROOT: afterwards, and not by dpkg's path filters, which take twice the time of the whole unpacking.
prune_tree() {
  local root=$1 kernel
  rm -rf "$root"/usr/share/{man,doc,locale,info,zoneinfo,lintian} "$root"/var/cache/apt "$root"/var/lib/apt
  kernel=$(echo "$root"/usr/lib/modules/*/kernel)
  mv "$kernel" "$kernel.all"
  mkdir "$kernel"
  # Not every kernel has every one of them.
  (cd "$kernel.all" && list_of modules | while read -r pattern; do compgen -G "$pattern" || true; done |
    sort -u | xargs cp -al --parents -t "$kernel")
  rm -rf "$kernel.all"
}

# unpack_modules ROOT: unpacking a module costs the emulated processor more than reading it unpacked.
unpack_modules() {
  local root=$1 dir
  dir=$(echo "$root"/usr/lib/modules/*)
  (cd "$root" && find "${dir#"$root"/}" -name '*.ko.xz' -print0) |
    xargs -0r -n 64 -P "$(nproc)" chroot "$root" xz -d --
  (cd "$root" && find "${dir#"$root"/}" -name '*.ko.zst' -print0) |
    xargs -0r -n 64 -P "$(nproc)" chroot "$root" zstd -dq --rm --
  chroot "$root" depmod "${dir##*/}"
}

# make_keys DIR: the key that opens the guest, and the key by which the guest is known.
make_keys() {
  ssh-keygen -q -t ed25519 -N '' -C lab -f "$1/key"
  ssh-keygen -q -t ed25519 -N '' -C lab -f "$1/hostkey"
  echo "lab $(cut -d' ' -f1,2 "$1/hostkey.pub")" >"$1/known_hosts"
}

# finish_root ROOT KEYS: the part of the packages' scripts that the guest and the engine need.
finish_root() {
  local root=$1 keys=$2
  cp "$root/usr/share/base-passwd/passwd.master" "$root/etc/passwd"
  cp "$root/usr/share/base-passwd/group.master" "$root/etc/group"
  echo 'sshd:x:100:65534::/run/sshd:/usr/sbin/nologin' >>"$root/etc/passwd"
  printf '%s\n' docker:x:998: render:x:997: sgx:x:996: kvm:x:995: input:x:994: clock:x:993: >>"$root/etc/group"
  ln -sf xtables-nft-multi "$root/usr/sbin/iptables"
  ln -sf xtables-nft-multi "$root/usr/sbin/ip6tables"
  ln -sf mawk "$root/usr/bin/awk"
  ln -sf nc.openbsd "$root/usr/bin/nc"
  ln -sf which.debianutils "$root/usr/bin/which"
  rm -rf "$root/var/run" "$root/var/lock"
  ln -s /run "$root/var/run"
  ln -s /run/lock "$root/var/lock"
  echo lab >"$root/etc/hostname"
  printf '127.0.0.1 localhost lab\n::1 localhost\n' >"$root/etc/hosts"
  : >"$root/etc/resolv.conf"
  mkdir -p "$root"/root/.ssh "$root"/var/lib/{docker,containerd} "$root"/usr/share/lab "$root"/usr/local/{bin,sbin}
  chmod 700 "$root/root/.ssh"
  install -m 600 "$keys/key.pub" "$root/root/.ssh/authorized_keys"
  install -m 600 "$keys/hostkey" "$root/etc/ssh/lab_host_key"
  chroot "$root" ldconfig
}

# container_image ROOT: lab:latest as a tar for `docker import`: a static busybox, iproute2's ip and tc, ethtool.
container_image() {
  local root=$1 img=$1/usr/share/lab/image f
  mkdir -p "$img"/{bin,lib64,tmp,proc,sys,dev,etc}
  cp "$root/usr/bin/busybox" "$img/bin/"
  for f in $(chroot "$root" busybox --list); do
    [ "$f" = busybox ] || ln -s busybox "$img/bin/$f"
  done
  for f in ip ethtool; do
    rm -f "$img/bin/$f"
    copy_with_libraries "$root" "$(chroot "$root" sh -c "command -v $f")" "$img/bin/"
  done
  ln -s bin "$img/sbin"
  echo 'root:x:0:0:root:/:/bin/sh' >"$img/etc/passwd"
  tar -C "$img" --owner=0 --group=0 -cf "$root/usr/share/lab/image.tar" .
  rm -rf "$img"
}

# copy_with_libraries ROOT PROGRAM DIR: libraries go where the dynamic linker looks first.
copy_with_libraries() {
  local root=$1 lib
  cp -L "$root$2" "$3"
  chroot "$root" /lib64/ld-linux-x86-64.so.2 --list "$2" | grep -o '/[^ ]*\.so[^ ]*' | while read -r lib; do
    mkdir -p "$3/..${lib%/*}"
    cp -L "$root$lib" "$3/..$lib"
  done
}

# make_disk ROOT FILE: no journal and no reserve, since the guest never writes to it.
make_disk() {
  local mib
  mib=$(du -sm "$1" | cut -f1)
  mke2fs -q -F -t ext4 -O ^has_journal -m 0 -d "$1" "$2" "$((mib + mib / 8 + 32))M" >/dev/null
}
