# Sourced after debian.sh. Builds with Debian 13's Swift, for amd64 and arm64.
# shellcheck shell=bash

# Makes what is missing of the roots, and describes the libraries of arm64 to SwiftPM.
make_toolchain() {
  make_build_root
  make_sysroot
  local bundle=$roots/sdks/$suite-arm64.artifactbundle
  mkdir -p "$bundle/$triple"
  cat >"$bundle/info.json" <<TEXT
{"schemaVersion": "1.0", "artifacts": {"$suite-arm64": {"type": "swiftSDK", "version": "1", "variants": [{"path": "$triple"}]}}}
TEXT
  echo '{"schemaVersion": "1.0", "swiftCompiler": {"extraCLIOptions": ["-use-ld=lld"]}}' >"$bundle/$triple/toolset.json"
  cat >"$bundle/$triple/swift-sdk.json" <<TEXT
{"schemaVersion": "4.0", "targetTriples": {"$triple": {
  "sdkRootPath": "$sysroot",
  "swiftResourcesPath": "$sysroot/usr/libexec/swift/lib/swift",
  "swiftStaticResourcesPath": "$sysroot/usr/libexec/swift/lib/swift_static",
  "toolsetPaths": ["toolset.json"]}}}
TEXT
}

# Folders that git takes packages from instead of the network, where it is told so.
package_folders() {
  { git config --get-regexp '^url\..*\.insteadof$' || true; } |
    sed -nE 's/^url\.(file:\/\/)?(\/[^ ]*[^ /])\/?\.insteadof .*/\2/p' | sort -u
}

# `in_root ROOT [FOLDERS AND FILES TO SHARE] -- COMMAND`: runs it in that system, in the folder of the same path as here.
# Its mounts end with the command.
in_root() {
  as_root
  local root=$1 file shared=()
  shift
  for file in /etc/resolv.conf /etc/gitconfig; do [ ! -e "$file" ] || shared+=("$file"); done
  while read -r file; do shared+=("$file"); done < <(package_folders)
  OTHER_ROOT=$root unshare --mount --pid --fork --kill-child --propagation private bash -c '
    set -e
    mount -t proc proc "$OTHER_ROOT/proc"
    mount --rbind /dev "$OTHER_ROOT/dev"
    while [ "$1" != -- ]; do
      if [ -d "$1" ]; then mkdir -p "$OTHER_ROOT$1"; else touch "$OTHER_ROOT$1"; fi
      mount --bind "$1" "$OTHER_ROOT$1"
      shift
    done
    shift
    folder=$PWD
    exec chroot "$OTHER_ROOT" /usr/bin/env -i PATH=/usr/libexec/swift/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LANG=C.UTF-8 \
      https_proxy="${https_proxy:-}" http_proxy="${http_proxy:-}" \
      bash -c "cd \"\$1\" && shift && exec \"\$@\"" in_root "$folder" "$@"
  ' in_root "${shared[@]}" "$@"
}

# Runs a command in the build root.
in_build_root() { in_root "$build_root" "$PWD" "$roots" -- "$@"; }

# `swift_build ARCHITECTURE FOLDER [MORE FOR swift build]`: builds into FOLDER.
swift_build() {
  local architecture=$1 folder=$2
  shift 2
  set -- --configuration release --scratch-path "$folder" "$@"
  [ "$architecture" = amd64 ] || set -- --swift-sdks-path "$roots/sdks" --swift-sdk "$suite-arm64" "$@"
  local settings=() libraries=$sysroot/usr/lib/aarch64-linux-gnu/pkgconfig
  [ "$architecture" = amd64 ] || settings=(PKG_CONFIG_SYSROOT_DIR="$sysroot" PKG_CONFIG_LIBDIR="$libraries")
  in_build_root env "${settings[@]}" swift build "$@"
}

# `build_program ARCHITECTURE PROGRAM`: as it is packaged, into .build-ARCHITECTURE. Swift's libraries are linked statically,
# those parts that it uses; relative relocations take a tenth of the space of others.
build_program() {
  local folder=.build-$1 replaced=checkouts/swift-argument-parser/Sources/ArgumentParser/Utilities/Foundation.swift
  in_build_root swift package --scratch-path "$folder" resolve
  [ -e "$folder/$replaced" ] || stop "swift-argument-parser has no $replaced any more."
  cmp -s Toolchain/boards/ArgumentParserFoundation.swift "$folder/$replaced" ||
    cp --remove-destination Toolchain/boards/ArgumentParserFoundation.swift "$folder/$replaced"
  swift_build "$1" "$folder" --static-swift-stdlib --product "$2" -Xswiftc -no-toolchain-stdlib-rpath -Xswiftc -use-ld=lld \
    -Xlinker -z -Xlinker pack-relative-relocs -Xlinker --no-export-dynamic
}

# Programs of arm64 on a processor that is emulated: `on_processor CPU PROGRAM [ARGUMENTS]`.
on_processor() {
  local cpu=$1
  shift
  qemu-aarch64-static -L "$sysroot" -cpu "$cpu" "$@"
}
