# shellcheck shell=bash
# moby.sh: the image of the newest engine, which no Debian release has: forky's, with dockerd and docker of the Go module
# test/harness/dockerd in the place of Debian's. containerd and runc stay forky's. To be sourced after image.sh and initrd.sh.
#
# It is not in image.sh because Debian's images need not be made again when this changes.

# make_engine_image SUITE: image, disk and initrd of any engine.
make_engine_image() {
  case $1 in
    *-moby) make_engine_tree "$1"; locked image make_initrd "$(image_dir "$1")" ;;
    *) make_image "$1" ;;
  esac
}

# make_engine_tree SUITE: all but the initrd.
make_engine_tree() {
  case $1 in
    *-moby) make_tree "${1%-moby}"; locked image make_moby_tree "$(image_dir "${1%-moby}")" "$(image_dir "$1")" ;;
    *) make_tree "$1" ;;
  esac
}

# make_moby_tree DEBIAN DIR: the files are hard links to those of Debian's image.
make_moby_tree() {
  local debian=$1 dir=$2 new=$2.new want
  make_dockerd
  want=$(<"$debian/recipe")-$(<"$CACHE/dockerd/recipe")
  if is_made "$dir" "$want"; then return; fi
  rm -rf --one-file-system "$new" "$new.old"
  mkdir -p "$new"
  cp -al "$debian"/{root,vmlinuz,key,key.pub,hostkey,hostkey.pub,known_hosts} "$new/"
  ln -f "$CACHE/dockerd/dockerd" "$new/root/usr/sbin/dockerd"
  ln -f "$CACHE/dockerd/docker" "$new/root/usr/bin/docker"
  make_disk "$new/root" "$new/disk.img"
  publish "$new" "$dir" "$want"
}

# make_dockerd: builds it and its command line once, which takes some minutes. The command line has no go.mod, whose absence means Go 1.16.
make_dockerd() {
  local dir=$CACHE/dockerd module=github.com/moby/moby/v2 cli=github.com/docker/cli want t0 version cli_version
  want=$(recipe_of ../dockerd moby.sh)
  if is_made "$dir" "$want"; then return; fi
  command -v go >/dev/null || die "go: not found; it builds the newest dockerd; the other engines need no Go"
  t0=$(date +%s)
  version=$(moby_version "$module") || exit
  cli_version=$(go -C "$REPO/test/harness/dockerd" list -m -f '{{.Version}}' "$cli") || exit
  say "building dockerd $version and docker $cli_version, once: some minutes"
  rm -rf "$dir.new" "$dir.new.old"
  mkdir -p "$dir.new"
  CGO_ENABLED=0 nice go build -C "$REPO/test/harness/dockerd" -trimpath -tags nri_no_wasm -o "$dir.new/dockerd" \
    -ldflags "-s -w -X $module/dockerversion.Version=$version" $module/cmd/dockerd >&2 ||
    die "build dockerd: see the lines above"
  cli_version=${cli_version#v}
  CGO_ENABLED=0 nice go build -C "$REPO/test/harness/dockerd" -trimpath -gcflags="$cli/...=-lang=go1.25" -o "$dir.new/docker" \
    -ldflags "-s -w -X $cli/cli/version.Version=${cli_version%+*}" $cli/cmd/docker >&2 ||
    die "build docker: see the lines above"
  publish "$dir.new" "$dir" "$want"
  say "dockerd: built in $(seconds_since "$t0")"
}

# moby_version MODULE: such as 29.8.0+beta.24: the release that its source says it follows, and the module's own. "go list" shows no
# folder of a module that has not been downloaded.
moby_version() {
  local dir=$REPO/test/harness/dockerd source tag release
  go -C "$dir" mod download "$1" >&2 && read -r source tag < <(go -C "$dir" list -m -f '{{.Dir}} {{.Version}}' "$1") &&
    release=$(sed -n 's/^ *last: "\(.*\)"/\1/p' "$source/releases/versions.yaml") && [ -n "$release" ] ||
    die "the source of $1 does not say which release it follows"
  echo "$release+${tag#*-}"
}
