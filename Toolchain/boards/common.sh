# Sourced by the scripts for boards, in the root of the repository. Says where things are.
# shellcheck shell=bash

script=${0##*/}
say() { printf '%s: %s\n' "$script" "$*" >&2; }
stop() { say "$*"; exit 1; }
step() { printf '\n%s\n' "$*"; }

# Debian's roots, which take a few minutes to make, are kept for all clones.
# shellcheck disable=SC2034 # the scripts that source this use them
{
  suite=trixie
  roots=${AUDIOTOKEN_ROOTS:-${XDG_CACHE_HOME:-$HOME/.cache}/audiotoken-edge/$suite}
  build_root=$roots/build-amd64 sysroot=$roots/sysroot-arm64
  triple=aarch64-unknown-linux-gnu
}

as_root() { [ "$(id -u)" -eq 0 ] || stop "making and entering roots of Debian needs root; run it with sudo."; }

# Installs packages of this machine that are missing: `need COMMAND PACKAGE...`, in pairs.
need() {
  local missing=()
  while [ $# -gt 0 ]; do
    command -v "$1" >/dev/null || missing+=("$2")
    shift 2
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  command -v apt-get >/dev/null || stop "these packages are missing: ${missing[*]}"
  as_root
  say "installing ${missing[*]}"
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" >/dev/null
}

# The folder of the programs for this machine, built if they have to be.
programs_here() {
  Toolchain/setup >&2
  swift build -c release >&2
  swift build -c release --show-bin-path
}
