#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 512M --timeout 240
#
# The file system below is frozen and thawed under writes: a backup does that.
# Whoever starts a write has to wait then, and must not have to complete others.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio fsfreeze

mkfs.ext4 -q /dev/vda
mkdir -p /tmp/below /tmp/above
mount /dev/vda /tmp/below
fallocate -l 128M /tmp/below/image
dd if=/dev/zero of=/tmp/below/image bs=1M count=128 conv=notrunc oflag=direct status=none
serve -g 11 /tmp/below/image
mkfs.ext4 -q "$dev"
mount "$dev" /tmp/above		# with a holder, hits are issued by workers
fio --name=load --directory=/tmp/above --size=24M --numjobs=2 --direct=1 \
	--ioengine=libaio --iodepth=16 --rw=randwrite --bs=4k --verify=crc32c \
	--verify_fatal=1 --time_based --runtime=25 --group_reporting >/tmp/load 2>&1 &
load=$!
until_true 20 test -e /tmp/above/load.1.0
sleep 3

rounds() {
	for _ in 1 2 3 4 5 6; do
		timeout 30 fsfreeze -f /tmp/below || return 1
		sleep 0.5
		timeout 30 fsfreeze -u /tmp/below || return 1
		sleep 0.7
	done
}
check "it is frozen and thawed six times under load" rounds
check "no write failed, and all are found again" wait $load
note "$(grep -m 2 "bw=" /tmp/load)"
check "what is above can be unmounted" timeout 60 umount /tmp/above
check "it is deleted" kctl del "$n"
