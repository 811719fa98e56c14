# Sourced after debian.sh and packages.sh. Roots of Debian 13 with nothing but our packages and what they depend on.
# shellcheck shell=bash

# `install_in ROOT ARCHITECTURE PACKAGES`: apt resolves the dependencies of our packages with Debian's.
install_in() {
  local root=$1 architecture=$2 packages=$3 variant=apt repository=$1.repository
  # Programs of another architecture cannot configure packages here.
  [ "$architecture" = amd64 ] || variant=extract
  need dpkg-scanpackages dpkg-dev
  mkdir -p "$repository"
  cp "$packages"/*_"${version}_$architecture.deb" "$repository/"
  (cd "$repository" && dpkg-scanpackages . >Packages 2>/dev/null)
  debian_root "$root" "$architecture" "$variant" audiotoken,audiotoken-convert "deb [trusted=yes] copy:$repository ./"
  [ -e "$root/lib" ] || ln -s usr/lib "$root/lib"
  rm -r "$repository"
}

# `in_clean_root ROOT ARCHITECTURE PROGRAM [ARGUMENTS]`
in_clean_root() {
  local root=$1 architecture=$2
  shift 2
  if [ "$architecture" = arm64 ]; then
    cp "$(command -v qemu-aarch64-static)" "$root/qemu"
    set -- /qemu -cpu cortex-a53 "$@"
  fi
  CLEAN_ROOT=$root unshare --mount --pid --fork --kill-child --propagation private bash -c '
    set -e
    mkdir -p "$CLEAN_ROOT/proc"
    mount -t proc proc "$CLEAN_ROOT/proc"
    exec env -i PATH=/usr/sbin:/usr/bin:/bin chroot "$CLEAN_ROOT" "$@"
  ' in_clean_root "$@"
}
