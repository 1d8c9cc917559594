#!/bin/sh
# deps.sh PKG...: makes sure that what the build needs is there. As root on Debian or Ubuntu it
# installs what is missing; otherwise it prints the one command to run and fails. Quick when
# nothing is missing. PKG: the pkg-config modules that the Makefile links.
set -eu
has_numpy() { "$1" -c 'import numpy' >/dev/null 2>&1; }
missing() {
    command -v "${CC:-cc}" >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 || echo "a C compiler"
    if ! command -v pkg-config >/dev/null 2>&1; then echo "pkg-config"; return; fi
    for m in "$@"; do pkg-config --exists "$m" || echo "$m"; done
    has_numpy python3 || has_numpy /usr/bin/python3 || echo "python3 with numpy (for the tests)"
    [ -e /usr/include/stb/stb_image.h ] || [ -e /usr/local/include/stb/stb_image.h ] || echo "stb_image.h"
}
lack=$(missing "$@" | tr '\n' ' ')
[ -n "$lack" ] || exit 0
echo "missing: $lack"

packages="gcc make pkg-config libc6-dev libstb-dev libjpeg-dev libwebp-dev libpcre2-dev
libutf8proc-dev libjansson-dev libmicrohttpd-dev libsqlite3-dev libseccomp-dev
libcurl4-openssl-dev python3-numpy"
# shellcheck disable=SC2086  # the list is meant to split
set_install() { set -- $packages; command="apt-get install -y --no-install-recommends $*"; }
set_install
if ! command -v apt-get >/dev/null 2>&1; then
    echo "This is not Debian or Ubuntu: install these (or your system's names for them): $packages" >&2
    exit 1
fi
if [ "$(id -u)" != 0 ]; then
    echo "Run this once, then make again:" >&2
    echo "    sudo $command" >&2
    exit 1
fi
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
echo "$command"
$command >"$log" 2>&1 || { apt-get update >"$log" 2>&1 && $command >"$log" 2>&1; } ||
    { tail -5 "$log" >&2; exit 1; }
lack=$(missing "$@" | tr '\n' ' ')
[ -z "$lack" ] || { echo "still missing after the installation: $lack" >&2; exit 1; }
