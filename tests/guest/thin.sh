#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 600
#
# What an image takes on the host's disk: it grows by what is written, and
# shrinks by what is discarded, while it is in use.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img mkfs.ext4

work_on /dev/vda
mkdir /tmp/mnt

kib() {
	sync -f "$1"
	du -k "$1" | cut -f1
}

# between LOW HIGH FILE: its KiB on disk, once the mapper has tidied up
between() {
	tap_kib=$(kib "$3")
	echo "$tap_kib KiB"
	[ "$tap_kib" -ge "$1" ] && [ "$tap_kib" -le "$2" ]
}

soon() {
	until_true 15 between "$@" || between "$@"
}

for size in 4k 64k 2M; do
	c="clusters of $size"
	rm -f a.qcow2
	qemu-img create -q -f qcow2 -o cluster_size=$size a.qcow2 1G
	dev=$(ubdmap add a.qcow2)
	empty=$(kib a.qcow2)
	dd if="$dev" of=/dev/null bs=1M count=64 iflag=direct status=none
	check "$c: reading takes nothing" between 0 $((empty + 64)) a.qcow2
	dd if=/dev/urandom of="$dev" bs=1M count=32 seek=100 oflag=direct status=none
	sync "$dev"
	check "$c: writing 32 MiB takes 32 MiB" soon 32768 $((empty + 32768 + 6144)) a.qcow2
	dd if=/dev/urandom of="$dev" bs=1M count=32 seek=100 oflag=direct status=none
	sync "$dev"
	check "$c: writing them again takes no more" soon 32768 $((empty + 32768 + 6144)) a.qcow2
	blkdiscard -o 100M -l 24M "$dev"
	sync "$dev"
	check "$c: discarding 24 MiB gives them back" soon 8192 $((empty + 8192 + 6144)) a.qcow2
	check "$c: they read as zeros" cmp -n 25165824 -i 104857600:0 "$dev" /dev/zero
	dd if=/dev/zero of="$dev" bs=1M count=8 seek=200 oflag=direct status=none
	blkdiscard -z -o 300M -l 64M "$dev"
	sync "$dev"
	check "$c: zeroing what is not there takes nothing" soon 8192 $((empty + 16384 + 6144)) a.qcow2
	long=$(stat -c %s a.qcow2)
	for _ in 1 2 3 4 5; do
		dd if=/dev/urandom of="$dev" bs=1M count=32 seek=500 oflag=direct status=none
		sync "$dev"
		blkdiscard -o 500M -l 32M "$dev"
		sync "$dev"
	done
	# 160 MiB were written, never more than 48 at a time.
	note "$c: its length was $long, is $(stat -c %s a.qcow2)"
	check "$c: what was freed is used again" test "$(stat -c %s a.qcow2)" -lt $((long + (80 << 20)))
	ubdmap del "$dev"
	check "$c: the image is sound" qemu-img check a.qcow2
done

# As a user has it: files come and go.
rm -f a.qcow2
qemu-img create -q -f qcow2 a.qcow2 1G
dev=$(ubdmap add a.qcow2)
mkfs.ext4 -q "$dev"
mount -o discard "$dev" /tmp/mnt
before=$(kib a.qcow2)
dd if=/dev/urandom of=/tmp/mnt/file bs=1M count=64 conv=fsync status=none
check "a file makes the image grow" soon $((before + 65536)) $((before + 65536 + 8192)) a.qcow2
rm /tmp/mnt/file
sync -f /tmp/mnt
fstrim /tmp/mnt
check "and shrink when it is removed" soon 0 $((before + 8192)) a.qcow2
umount /tmp/mnt
ubdmap del "$dev"
check "and that stays so" between 0 $((before + 8192)) a.qcow2
check "and it is sound" qemu-img check a.qcow2
