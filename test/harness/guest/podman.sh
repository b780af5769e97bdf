# shellcheck shell=bash
# podman.sh: Debian's podman with netavark and all that it needs, in a root of its own beside the images, one for all engines: podman of Debian 12
# knows no plugins. To be sourced after host.sh.

# podman_suite is the release whose podman it is.
podman_suite=trixie

# make_podman: unpacks it, once: $CACHE/podman/root.
make_podman() { locked podman make_podman_locked "$CACHE/podman"; }

make_podman_locked() {
  local dir=$1 new=$1.new t0 want
  want=$(recipe_of podman.sh)
  if is_made "$dir" "$want"; then return; fi
  t0=$(date +%s)
  need_bootstrap
  rm -rf --one-file-system "$new" "$new.old"
  mkdir -p "$new"
  bootstrap $podman_suite "$new/root" --include=podman,netavark,aardvark-dns,crun,conmon,base-files,nftables,iptables
  configure_podman "$new/root"
  publish "$new" "$dir" "$want"
  say "podman of $podman_suite: unpacked in $(seconds_since "$t0")"
}

# configure_podman ROOT: what its packages' scripts do, and how it runs without systemd, in a root file system that may be of any kind.
configure_podman() {
  local root=$1
  rm -rf "$root"/usr/share/{man,doc,locale,info,lintian} "$root"/var/cache/apt "$root"/var/lib/apt
  mkdir -p "$root"/{proc,sys,dev,run,tmp,root,etc/containers} "$root/usr/local/libexec"
  echo 'root:x:0:0:root:/root:/bin/sh' >"$root/etc/passwd"
  echo 'root:x:0:' >"$root/etc/group"
  : >"$root/etc/resolv.conf"
  echo '127.0.0.1 localhost' >"$root/etc/hosts"
  cat >"$root/etc/containers/storage.conf" <<CONF
[storage]
driver = "vfs"
graphroot = "/var/lib/containers/storage"
runroot = "/run/containers/storage"
CONF
  cat >"$root/etc/containers/containers.conf" <<CONF
[containers]
cgroups = "disabled"
log_driver = "k8s-file"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "none"
runtime = "crun"
CONF
}
