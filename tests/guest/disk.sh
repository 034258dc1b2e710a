#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 4G --timeout 1000
#
# An ordinary disk: udev, partitions, file systems.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img parted mkfs.ext4 mkfs.xfs mkfs.btrfs udevadm lsblk blkid

mkfs.ext4 -q /dev/vda
mkdir /tmp/fs /tmp/mnt
mount /dev/vda /tmp/fs
cleanup "cd /; umount /tmp/fs"
cd /tmp/fs || exit 1

# --daemon returns when it listens.
/lib/systemd/systemd-udevd --daemon 2>/tmp/udev.err
cleanup "udevadm control --exit"
settle() {
	udevadm settle --timeout=20
}

# --- partitions ---

qemu-img create -q -f qcow2 disk.qcow2 256M
dev=$(ubdmap add disk.qcow2)
parted -s "$dev" mklabel gpt mkpart one 1MiB 101MiB mkpart two 101MiB 255MiB 2>/tmp/parted.err
settle
# parted told the kernel itself.
ubdmap del "$dev"
dev=$(ubdmap add disk.qcow2)
settle
refuses "partitions are not looked for unless asked" test -e "${dev}p1"
ubdmap del "$dev"
dev=$(ubdmap add -P disk.qcow2)
check "with -P the first partition appears" until_true 20 test -b "${dev}p1"
check "and the second" until_true 20 test -b "${dev}p2"
equal "with its size" "$(blockdev --getsize64 "${dev}p1")" $((100 << 20))
settle
equal "lsblk shows them below the disk" \
	"$(lsblk -nro NAME,TYPE "$dev" | tr '\n' ' ')" \
	"ubdmap0 disk ubdmap0p1 part ubdmap0p2 part "
check "udev knows the device" sh -c "udevadm info '$dev' | grep -q '^E: DEVTYPE=disk'"
mkfs.ext4 -q -L first "${dev}p1"
mkfs.xfs -q -L second "${dev}p2" 2>/dev/null
settle
equal "blkid sees what is in a partition" "$(blkid -o value -s LABEL "${dev}p1")" first
check "udev links it by its label" until_true 20 test -e /dev/disk/by-label/first
mount "${dev}p1" /tmp/mnt
cp -r /usr/include/linux/netfilter /tmp/mnt/
refuses "a disk with a mounted partition is not deleted" ubdmap del "$dev"
umount /tmp/mnt
check "else it is" ubdmap del "$dev"
check "and its partitions with it" until_true 10 sh -c "! ls ${dev}*"
check "its image is sound" qemu-img check disk.qcow2
dev=$(ubdmap add -r -P disk.qcow2)
until_true 20 test -b "${dev}p1"
mount -o ro "${dev}p1" /tmp/mnt
check "read-only, what was written is there" diff -r /usr/include/linux/netfilter /tmp/mnt/netfilter
umount /tmp/mnt
settle
ubdmap del "$dev"

# --- file systems ---

tar -C /usr/include -cf /tmp/files.tar linux/netfilter linux/dvb linux/can linux/usb
dd if=/dev/urandom of=/tmp/random bs=1M count=12 status=none

fill() {
	for i in 1 2 3; do
		mkdir /tmp/mnt/$i && tar -C /tmp/mnt/$i -xf /tmp/files.tar || return 1
	done
	cp /tmp/random /tmp/mnt/big && cp --reflink=never /tmp/random /tmp/mnt/gone &&
		sync -f /tmp/mnt && rm -r /tmp/mnt/2 /tmp/mnt/gone && fstrim /tmp/mnt || return 1
	(cd /tmp/mnt && find . -type f -print0 | xargs -0 md5sum) >"$1"
}

again() {
	mount "$dev" /tmp/mnt && (cd /tmp/mnt && md5sum -c --quiet "$1")
	rc=$?
	umount /tmp/mnt
	return $rc
}

# fs NAME CHECK-COMMAND IMAGE [SIZE]
try() {
	fs=$1 fsck=$2 image=$3
	dev=$(ubdmap add "$image") || { not_ok "$fs on $image"; return; }
	check "$fs on $image: mkfs" "mkfs.$fs" -q "$dev"
	check "$fs on $image: mount" mount "$dev" /tmp/mnt
	check "$fs on $image: fill and trim" fill "/tmp/$fs.sums"
	check "$fs on $image: umount" umount /tmp/mnt
	# shellcheck disable=SC2086  # words
	check "$fs on $image: nothing is wrong with it" $fsck "$dev"
	check "$fs on $image: del" ubdmap del "$dev"
	[ "${image%.qcow2}" = "$image" ] ||
		check "$fs on $image: the image is sound" qemu-img check "$image"
	dev=$(ubdmap add "$image")
	check "$fs on $image: all is there the next time" again "/tmp/$fs.sums"
	settle
	check "$fs on $image: del again" ubdmap del "$dev"
	rm "$image"
}

for fs in "ext4 fsck.ext4 -fn" "xfs xfs_repair -n" "btrfs btrfs check"; do
	qemu-img create -q -f qcow2 "a.qcow2" 600M
	try "${fs%% *}" "${fs#* }" a.qcow2
done
truncate -s 600M a.raw
try xfs "xfs_repair -n" a.raw
