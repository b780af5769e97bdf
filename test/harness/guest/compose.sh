# shellcheck shell=bash
# compose.sh: Debian's docker-compose, one for all engines, beside the images. To be sourced after host.sh.

# make_compose: unpacks it, once: $CACHE/compose/docker-compose, a plugin of the docker command.
make_compose() { locked compose make_compose_locked "$CACHE/compose" forky; }

make_compose_locked() {
  local dir=$1 suite=$2 new=$1.new t0
  if is_made "$dir" "docker-compose $suite"; then return; fi
  t0=$(date +%s)
  need_bootstrap
  rm -rf --one-file-system "$new" "$new.old"
  mkdir -p "$new"
  bootstrap "$suite" "$new/root" --include=docker-compose
  mv "$new/root/usr/libexec/docker/cli-plugins/docker-compose" "$new/"
  rm -rf --one-file-system "$new/root"
  publish "$new" "$dir" "docker-compose $suite"
  say "docker-compose of $suite: unpacked in $(seconds_since "$t0")"
}
