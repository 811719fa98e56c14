# Sourced after common.sh. Roots of Debian 13: one to build in, one with the libraries of arm64, and clean ones for tests.
# shellcheck shell=bash

keyring=/usr/share/keyrings/debian-archive-keyring.gpg

# The mirror that this machine uses.
mirror() {
  local found=${DEBIAN_MIRROR:-}
  [ -n "$found" ] || found=$(sed -nE 's/^URIs: *([^ ]+).*/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
  [ -n "$found" ] || found=$(sed -nE 's/^deb (\[[^]]*\] )?(http[^ ]+).*/\2/p' /etc/apt/sources.list 2>/dev/null | head -n 1)
  echo "${found:-http://deb.debian.org/debian}"
}

source_line() { echo "deb [signed-by=$keyring] $(mirror) $suite main"; }

# `debian_root FOLDER ARCHITECTURE VARIANT PACKAGES [OPTIONS AND SOURCES FOR mmdebstrap]`. The variant `extract` unpacks and configures
# nothing, so that no code of another architecture runs.
debian_root() {
  local folder=$1 architecture=$2 variant=$3 packages=$4
  shift 4
  need mmdebstrap mmdebstrap xz xz-utils
  as_root
  [ -e "$keyring" ] || stop "Debian's keys are missing; install debian-archive-keyring."
  rm -rf --one-file-system "$folder"
  mkdir -p "$(dirname "$folder")"
  mmdebstrap --quiet --variant="$variant" --architectures="$architecture" --include="$packages" \
    --aptopt='Acquire::Check-Valid-Until "false"' --aptopt='Acquire::Retries "3"' \
    --aptopt='APT::Install-Recommends "false"' --aptopt='APT::Sandbox::User "root"' \
    "$suite" "$folder" "$(source_line)" "$@"
}

# Succeeds if the folder was made to the same recipe.
made() { [ "$(cat "$1/.recipe" 2>/dev/null)" = "$2" ]; }

# apt for arm64 in a folder of its own: that of this machine is not touched.
arm64_apt() {
  local folder=$roots/apt-arm64
  if [ ! -e "$folder/ready" ]; then
    mkdir -p "$folder"/etc/apt/{apt.conf.d,preferences.d,sources.list.d} "$folder"/var/lib/dpkg \
      "$folder"/var/{lib/apt/lists,cache/apt/archives}/partial
    : >"$folder/var/lib/dpkg/status"
    source_line >"$folder/etc/apt/sources.list"
    cat >"$folder/apt.conf" <<TEXT
Dir "$folder";
Dir::State "$folder/var/lib/apt";
Dir::State::status "$folder/var/lib/dpkg/status";
Dir::Cache "$folder/var/cache/apt";
Dir::Etc "$folder/etc/apt";
APT::Architecture "arm64";
APT::Architectures "arm64";
APT::Sandbox::User "root";
Acquire::Languages "none";
Acquire::Check-Valid-Until "false";
Acquire::Retries "3";
TEXT
    APT_CONFIG=$folder/apt.conf apt-get -qq update
    touch "$folder/ready"
  fi
  APT_CONFIG=$folder/apt.conf "$@"
}

# Unpacks a package of arm64: `unpack_arm64 PACKAGE FOLDER [MORE FOR tar]`.
unpack_arm64() {
  local package=$1 folder=$2 download
  shift 2
  download=$(mktemp -d)
  (cd "$download" && arm64_apt apt-get -qq download "$package")
  mkdir -p "$folder"
  dpkg-deb --fsys-tarfile "$download"/*.deb | tar -x -C "$folder" "$@"
  rm -rf "$download"
}

# Swift of Debian 13 for this machine, which builds for it and for arm64, and what packages are made and checked with.
make_build_root() {
  local packages=swiftlang,libc6-dev,gcc,g++,git,ca-certificates,pkgconf,libsndfile1-dev,libpng-dev
  packages+=,binutils-aarch64-linux-gnu,chrpath,lintian,mandoc
  ! made "$build_root" "$packages" || return 0
  say "making a root of Debian 13 with Swift in $build_root"
  debian_root "$build_root" amd64 minbase "$packages" \
    --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/man/*'
  echo "$packages" >"$build_root/.recipe"
}

# The libraries of arm64, with those of Swift, which are part of the compiler's package there.
make_sysroot() {
  local packages=libc6-dev,libstdc++-14-dev,libgcc-14-dev,libswiftlang,libsndfile1-dev,libpng-dev
  ! made "$sysroot" "$packages" || return 0
  say "making the libraries of Debian 13 for arm64 in $sysroot"
  debian_root "$sysroot" arm64 extract "$packages"
  [ -e "$sysroot/lib" ] || ln -s usr/lib "$sysroot/lib"
  unpack_arm64 swiftlang "$sysroot" --wildcards --exclude '*/swift/embedded/*' --exclude '*/swift/host/*' \
    --exclude '*/migrator/*' --exclude '*.swiftdoc' './usr/libexec/swift/lib/swift/*' \
    './usr/libexec/swift/lib/swift_static/*' './usr/libexec/swift/lib/clang/*'
  ln -sfn ../libexec/swift/lib/swift "$sysroot/usr/lib/swift"
  ln -sfn ../libexec/swift/lib/swift_static "$sysroot/usr/lib/swift_static"
  # SwiftPM looks for it.
  echo '{"Version": "13", "MaximumDeploymentTarget": "13"}' >"$sysroot/SDKSettings.json"
  echo "$packages" >"$sysroot/.recipe"
}
