# shellcheck shell=bash
# initrd.sh: makes the guest's initrd: a static busybox, the modules that the root file system needs, and the guest's
# own scripts, which initrd-init lays over the root. To be sourced after host.sh.

# build_initrd IMAGEDIR RECIPE
build_initrd() {
  local dir=$1 root=$1/root tree=$1/initrd.tree
  rm -rf "$tree"
  mkdir -p "$tree"/{bin,dev,proc,sys,modules,lower,upper,root,files}
  cp "$root/usr/bin/busybox" "$tree/bin/"
  install -m 755 "$GUEST/initrd-init" "$tree/init"
  cp -r "$GUEST"/files/. "$tree/files/"
  boot_modules "$root" virtio_pci virtio_blk ext4 overlay | number_modules "$root" "$tree/modules"
  (cd "$tree" && find . | pack "$root") >"$dir/initrd.new"
  rm -rf "$tree"
  mv "$dir/initrd.new" "$dir/initrd"
  echo "$2" >"$dir/initrd.recipe"
}

# boot_modules ROOT NAME...: files of the modules and of what they depend on, in loading order.
boot_modules() {
  local root=$1 version name; shift
  version=$(basename "$root"/usr/lib/modules/*)
  for name; do
    chroot "$root" modprobe --set-version "$version" --show-depends "$name" | awk '$1 == "insmod" { print $2 }'
  done | awk '!seen[$0]++'
}

# number_modules ROOT DIR: copies the files named on stdin so that a glob gives them in loading order.
number_modules() {
  local n=10 file
  while read -r file; do
    cp "$1$file" "$2/$n-${file##*/}"
    n=$((n + 1))
  done
}

# pack ROOT: the tree's own busybox packs, so the host needs no cpio.
pack() { "$1/usr/bin/busybox" cpio -o -H newc 2>/dev/null; }
