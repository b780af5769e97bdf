# shellcheck shell=bash
# host.sh: what scripts/lab and scripts/engine share on the host. To be sourced, after `set -eu`.
#
# Everything that is kept lies below $CACHE (LAB_CACHE, or .cache in the repository):
#   qemu/           a private QEMU, unpacked, never installed
#   compose/        Debian's docker-compose
#   podman/         Debian's podman, with a root of its own
#   dpdk/           DPDK's testpmd, as the root of a container
#   verbs/          an image with Debian's programs for RDMA
#   dockerd/        the newest dockerd
#   lab/<suite>/    root/ (the tree), disk.img (the same as a file system), vmlinuz, initrd, ssh keys
# A folder appears under its name only when it is complete, and says in its file "recipe" what it was made from.

REPO=$(cd "$(dirname "${BASH_SOURCE[0]}")/../../.." && pwd)
GUEST=$REPO/test/harness/guest
CACHE=$(realpath -m "${LAB_CACHE:-$REPO/.cache}")
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*"; exit 1; }

# suite_of ENGINE: the image with that engine: the Debian release whose docker.io it is, or one with Moby's own dockerd (moby.sh).
suite_of() {
  case $1 in
    20.10) echo bookworm ;;
    26.1) echo trixie ;;
    28.5) echo forky ;;
    29) echo forky-moby ;;
    *) die "engine $1: not known; use 20.10, 26.1, 28.5 or 29" ;;
  esac
}

# need COMMAND PACKAGE...: install the packages unless the command is there.
need() {
  local cmd=$1; shift
  command -v "$cmd" >/dev/null && return
  [ "$(id -u)" = 0 ] || die "$cmd: not found; run as root once, or install: $*"
  say "installing $* on this machine"
  locked apt install_packages "$@" || die "install $*: see the lines above"
}
# install_packages: guests that start side by side install one after the other, because dpkg does not wait for its lock.
install_packages() { apt_install "$@" || { apt-get -qq update >&2 && apt_install "$@"; }; }
apt_install() {
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "$@" </dev/null >&2
}

# need_bootstrap: mmdebstrap, and the keys of Debian's archive where the host is not Debian.
need_bootstrap() {
  need mmdebstrap mmdebstrap
  [ -e /usr/share/keyrings/debian-archive-keyring.gpg ] || apt_install debian-archive-keyring ||
    die "install debian-archive-keyring: see the lines above"
}

# host_mirror: the URI that this machine's own Debian sources use, or nothing.
host_mirror() {
  (. /etc/os-release && [ "${ID:-}" = debian ]) || return 0
  local f
  for f in /etc/apt/sources.list.d/debian.sources /etc/apt/sources.list; do
    [ -r "$f" ] || continue
    awk '!/^[ \t]*#/ { for (i = 1; i <= NF; i++) if ($i ~ /^https?:/ && $i !~ /security/) { print $i; exit } }' "$f"
  done | head -n 1
}

# bootstrap SUITE DIR ARG...: unpack packages, without running any of their scripts, into DIR.
bootstrap() {
  local suite=$1 dir=$2 mirror=${MIRROR:-$(host_mirror)} proxy=; shift 2
  eval "$(apt-config shell proxy Acquire::http::Proxy)"
  mmdebstrap --quiet --mode=root --variant=extract --aptopt='Apt::Install-Recommends "false"' \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
    ${proxy:+--aptopt="Acquire::http::Proxy \"$proxy\""} "$@" "$suite" "$dir" ${mirror:+"$mirror"} >&2 ||
    die "unpack $suite: mmdebstrap failed; MIRROR=<uri> names another Debian mirror"
}

# recipe_of FILE|FOLDER...: a hash of the files' names and contents.
recipe_of() { (cd "$GUEST" && find "$@" -type f | sort | xargs sha256sum) | sha256sum | cut -c 1-32; }

# is_made DIR RECIPE: whether DIR is there, complete and from this recipe.
is_made() { [ "$(cat "$1/recipe" 2>/dev/null)" = "$2" ]; }

# publish NEW DIR RECIPE: let NEW take the place of DIR.
publish() {
  echo "$3" >"$1/recipe"
  if [ -e "$2" ]; then mv "$2" "$1.old"; fi
  mv "$1" "$2"
  rm -rf --one-file-system "$1.old"
}

# locked NAME COMMAND...: run the command as the only one of that name in this cache.
locked() {
  local name=$1; shift
  mkdir -p "$CACHE"
  (
    flock -n 9 || { say "waiting for another $name"; flock 9; }
    "$@"
  ) 9>"$CACHE/$name.lock"
}

# seconds_since T: for reports of how long a step took.
seconds_since() { echo "$(($(date +%s) - $1)) s"; }
