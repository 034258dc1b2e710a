#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --disk 512M --timeout 240
#
# At a shutdown everybody is killed, then somebody calls sync() and reboots.
# With a file system mounted on a device that takes no longer than the device's
# orphans wait.
#
# The last part is not in this script: the guest's init kills all there is when
# the script has ended, syncs and reboots.  If that hangs the guest does not end
# in time, and the test fails.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img mkfs.ext4

mkfs.ext4 -q /dev/vda
mkdir /tmp/fs /tmp/mnt
mount /dev/vda /tmp/fs
cd /tmp/fs || exit 1

# A file system with something to write to where nothing is allocated yet.
make_dirty() {
	dev=$(ubdmap add --orphan-timeout 5 a.qcow2)
	mount "$dev" /tmp/mnt
	dd if=/dev/urandom "of=/tmp/mnt/file.$1" bs=1M count=8 status=none
	m=$(field mapper "$dev")
	k=$(keeper_of "$m")
}

qemu-img create -q -f qcow2 a.qcow2 256M
dev=$(ubdmap add a.qcow2)
mkfs.ext4 -q "$dev"
ubdmap del "$dev"

unmounts() {
	timeout 60 umount /tmp/mnt || [ $? != 124 ]
}

for order in "mapper first" "keeper first" "mapper stopped"; do
	make_dirty "${order// /-}"
	case $order in
	"keeper first") kill -KILL "$k"; sleep 0.2; kill -KILL "$m" ;;
	"mapper first") kill -STOP "$k"; kill -KILL "$m"; sleep 0.2; kill -KILL "$k" ;;
	"mapper stopped") kill -STOP "$m"; kill -KILL "$k" "$m" ;;
	esac
	check "$order: sync ends" timeout 60 sync
	check "$order: unmounting too" unmounts
	check "$order: and the device can be deleted" timeout 60 ubdmap del --force "$dev"
done
check "the image is sound, but for leaks" sh -c \
	'qemu-img check a.qcow2; rc=$?; [ $rc = 0 ] || [ $rc = 3 ]'

make_dirty last
touch /tmp/mnt/{1..100}
check "a file system stays mounted" mountpoint -q /tmp/mnt
