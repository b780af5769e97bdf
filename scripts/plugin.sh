# shellcheck shell=sh
# plugin.sh: what install and uninstall share. To be sourced, after `set -eu`.

docker=${DOCKER:-docker}

say() { printf '%s\n' "$*"; }
die() { printf '%s: %s\n' "${0##*/}" "$*" >&2; exit 1; }

# full_name NAME: the engine looks a driver up by its full name, tag included.
full_name() {
	case ${1##*/} in
	*:*) say "$1" ;;
	*) say "$1:latest" ;;
	esac
}

# networks_of NAME: " N1 N2...", the networks that take the plugin as their network or IPAM driver. It fails if that is not
# known of one that is there: its containers would lose their devices and addresses.
networks_of() {
	ids=$(networks) || die "the networks cannot be listed, one may use $1"
	for id in $ids; do
		if ! network=$(drivers_and_name "$id" 2>/dev/null); then
			now=$(networks) || die "the networks cannot be listed, one may use $1"
			say "$now" | grep -qxF -e "$id" || continue # another process has removed it meanwhile
			network=$(drivers_and_name "$id") || die "network $id: whether it uses $1 cannot be told"
		fi
		case $network in "$1 "* | *" $1 "*) printf ' %s' "${network##* }" ;; esac
	done
}
networks() { $docker network ls --quiet --no-trunc; }
drivers_and_name() { $docker network inspect --format '{{.Driver}} {{.IPAM.Driver}} {{.Name}}' "$1"; }

# state_folder NAME: the folder of the host for the records of the plugin NAME.
state_folder() {
	folder=${STATE_FOLDERS:-/var/lib}/passthrough-plugin
	case $1 in
	passthrough:latest) say "$folder" ;;
	*) say "$folder-$(printf %s "$1" | tr /: __)" ;;
	esac
}
