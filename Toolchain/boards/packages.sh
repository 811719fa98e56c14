# Sourced after swift.sh by Toolchain/package, whose folder `work` it writes to.
# shellcheck shell=bash

changelog=Toolchain/debian/changelog
version=$(sed -nE '1s/.*\((.*)\).*/\1/p' "$changelog")
# Of every file in packages and tarballs, so that the same sources give the same bytes.
SOURCE_DATE_EPOCH=$(date -d "$(sed -nE 's/^ -- .*>  (.*)/\1/p' "$changelog" | head -n 1)" +%s)
export SOURCE_DATE_EPOCH
most_bytes=12000000 # of the program that has to fit a board

programs_of() { echo "$PWD/.build-$1/release"; }

# `describe PROGRAM FOLDER HERE`: the manual and the completions, by programs for this machine in the folder HERE.
describe() {
  local program=$1 folder=$2 here=$3 shell
  mkdir -p "$folder"
  for shell in bash zsh fish; do "$here/$program" --generate-completion-script "$shell" >"$folder/$shell"; done
  "$here/$program" --experimental-dump-help |
    python3 Toolchain/boards/manual.py "$(date -u -d "@$SOURCE_DATE_EPOCH" +'%B %-d, %Y')" >"$folder/$program.1"
  in_build_root mandoc -T lint -W warning "$folder/$program.1" >&2
}

# `lay_out PROGRAM ARCHITECTURE PREFIX DESCRIPTION`
lay_out() {
  local program=$1 architecture=$2 prefix=$3 description=$4 strip=strip
  [ "$architecture" = amd64 ] || strip=aarch64-linux-gnu-strip
  install -D "$(programs_of "$architecture")/$program" "$prefix/bin/$program"
  in_build_root chrpath --delete "$prefix/bin/$program" >/dev/null
  in_build_root "$strip" --strip-all --remove-section=.comment --remove-section=.note "$prefix/bin/$program"
  install -D -m 644 "$description/$program.1" "$prefix/share/man/man1/$program.1"
  gzip -9n "$prefix/share/man/man1/$program.1"
  install -D -m 644 "$description/bash" "$prefix/share/bash-completion/completions/$program"
  install -D -m 644 "$description/zsh" "$prefix/share/zsh/vendor-completions/_$program"
  install -D -m 644 "$description/fish" "$prefix/share/fish/vendor_completions.d/$program.fish"
  [ "$program" = audiotoken ] ||
    install -D -m 644 Converter/Resources/clip_merges.txt "$prefix/share/audiotoken/clip_merges.txt"
}

# The packages whose libraries a program asks for. One that is not known here ends the script.
dependencies() {
  local program=$1 glibc library result
  glibc=$(readelf -W --dyn-syms "$program" | sed -nE 's/.*@GLIBC_([0-9.]+).*/\1/p' | sort -uV | tail -n 1)
  result="libc6 (>= $glibc)"
  while read -r library; do
    case $library in
      libc.so.6 | libm.so.6 | ld-linux-*) ;;
      libsndfile.so.1) result+=', libsndfile1' ;;
      libpng16.so.16) result+=', libpng16-16t64' ;;
      libgcc_s.so.1) result+=', libgcc-s1' ;;
      libstdc++.so.6) result+=', libstdc++6' ;;
      *) stop "$program needs $library, which no dependency is known for." ;;
    esac
  done < <(readelf -W -d "$program" | sed -nE 's/.*\(NEEDED\).*\[(.*)\]/\1/p')
  echo "$result"
}

# `make_deb PROGRAM ARCHITECTURE TREE`
make_deb() {
  local program=$1 architecture=$2 tree=$3 documents=$3/usr/share/doc/$1
  install -D -m 644 Toolchain/debian/copyright "$documents/copyright"
  gzip -9n <"$changelog" >"$documents/changelog.gz"
  mkdir "$tree/DEBIAN"
  (cd "$tree" && find usr -type f -print0 | sort -z | xargs -0 md5sum) >"$tree/DEBIAN/md5sums"
  cat >"$tree/DEBIAN/control" <<TEXT
Package: $program
Source: audiotoken-edge
Version: $version
Architecture: $architecture
Maintainer: $(sed -nE 's/^ -- (.*>)  .*/\1/p' "$changelog" | head -n 1)
Installed-Size: $(du -k -s --apparent-size "$tree/usr" | cut -f 1)
Depends: $(dependencies "$tree/usr/bin/$program")
Section: graphics
Priority: optional
$(cat "Toolchain/debian/$program.description")
TEXT
  # The settings of the machine that packs are no part of the package.
  chmod -R u=rwX,go=rX "$tree"
  dpkg-deb --root-owner-group -Zxz --build "$tree" "$work/${program}_${version}_$architecture.deb" >/dev/null
}

# `make_tarball ARCHITECTURE FOLDER`
make_tarball() {
  local folder=$2/audiotoken-edge-$version
  install -m 644 README.md LICENSE "$folder/"
  install -D -m 644 Converter/Resources/clip_merges.LICENSE.txt "$folder/share/audiotoken/clip_merges.LICENSE.txt"
  tar --sort=name --owner=0 --group=0 --numeric-owner --mode=u=rwX,go=rX --mtime="@$SOURCE_DATE_EPOCH" \
    -C "$2" -c "${folder##*/}" | gzip -9n >"$work/audiotoken-edge-$version-linux-$1.tar.gz"
}

check_size() {
  local program size
  for program in "$work"/*/audiotoken/usr/bin/audiotoken; do
    size=$(stat -c %s "$program")
    say "the stripped audiotoken of $(basename "${program%/audiotoken/usr/bin/audiotoken}") has $size bytes"
    [ "$size" -le $most_bytes ] || stop "that is more than $most_bytes."
  done
}
