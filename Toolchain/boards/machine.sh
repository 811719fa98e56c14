# Sourced after debian.sh. A board with little memory, emulated: Debian's kernel for arm64 on qemu's machine `virt`.
# shellcheck shell=bash

machine=$roots/machine

# Debian's kernel, and the modules that a disk needs, in the order in which they are loaded.
make_kernel() {
  local folder=$machine/kernel package version
  [ ! -e "$machine/ready" ] || return 0
  say "fetching Debian's kernel for arm64"
  rm -rf "$machine"
  mkdir -p "$folder"
  package=$(arm64_apt apt-cache depends linux-image-cloud-arm64 | sed -nE 's/ *Depends: (linux-image-.*)/\1/p' | head -n 1)
  unpack_arm64 "$package" "$folder"
  unpack_arm64 busybox-static "$folder"
  version=${package#linux-image-}
  [ -e "$folder/lib" ] || ln -s usr/lib "$folder/lib"
  depmod -b "$folder" "$version"
  mkdir "$machine/modules"
  # shellcheck disable=SC2016 # expanded by the inner shell
  modprobe -d "$folder" -S "$version" --show-depends -a virtio_pci virtio_mmio virtio_blk ext4 |
    awk '$1 == "insmod" && !seen[$2]++ {print $2}' >"$machine/list"
  local module number=100
  while read -r module; do
    number=$((number + 1))
    case $module in
      *.xz) xz -dc "$module" >"$machine/modules/$number-$(basename "$module" .xz)" ;;
      *) cp "$module" "$machine/modules/$number-$(basename "$module")" ;;
    esac
  done <"$machine/list"
  cp "$folder"/boot/vmlinuz-* "$machine/vmlinuz"
  make_first_files
  touch "$machine/ready"
}

# What the kernel starts with: it loads the modules and goes on in the root on the disk.
make_first_files() {
  local first=$machine/first program
  mkdir -p "$first"/{bin,dev,proc,sys,root}
  cp "$machine/kernel/usr/bin/busybox" "$first/bin/"
  for program in sh insmod mount switch_root sleep; do ln -sf busybox "$first/bin/$program"; done
  cp -r "$machine/modules" "$first/"
  cat >"$first/init" <<'TEXT'
#!/bin/sh
mount -t devtmpfs dev /dev
for module in /modules/*; do insmod "$module"; done
for wait in 1 2 3 4 5 6 7 8 9 10; do [ -e /dev/vda ] && break; sleep 1; done
mount -t ext4 /dev/vda /root
exec switch_root /root /board-test
TEXT
  chmod +x "$first/init"
  (cd "$first" && find . | sort | cpio --quiet -o -H newc | gzip -1) >"$machine/first.cpio.gz"
}

# `boot CPU MEGABYTES DISK`: ends when the machine turns itself off.
boot() {
  timeout "${AUDIOTOKEN_BOOT_SECONDS:-600}" qemu-system-aarch64 -M virt -cpu "$1" -smp 4 -m "$2" -nographic -nic none \
    -no-reboot -kernel "$machine/vmlinuz" -initrd "$machine/first.cpio.gz" \
    -drive "file=$3,format=raw,if=none,id=disk" -device virtio-blk-pci,drive=disk \
    -append 'console=ttyAMA0 quiet panic=-1' </dev/null | tr -d '\r'
}
