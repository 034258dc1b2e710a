#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 512M --timeout 240
#
# The file system below is frozen and thawed under writes: a backup does that.
# Whoever starts a write has to wait then, and must not have to complete others.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio fsfreeze qemu-img ubdmap

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

# --- more writes than workers, and a read that needs one ---

# What is decompressed lies in memory, which has nothing to do with the file system. Fails
# where blocking reads and writes share a queue.
cd /tmp/below || exit 1
rm image
head -c 128k /usr/bin/bash >src.raw
truncate -s 64M src.raw
qemu-img convert -c -f raw -O qcow2 src.raw image.qcow2
dev=$(ubdmap add image.qcow2)
dd if=/dev/zero of="$dev" bs=1M seek=1 count=32 oflag=direct status=none
sync
cmp -n 131072 src.raw "$dev"
blockdev --flushbufs "$dev"
fsfreeze -f /tmp/below
fio --name=stuck --filename="$dev" --offset=1M --size=32M --direct=1 --ioengine=libaio \
	--iodepth=400 --rw=randwrite --bs=4k --io_size=2M --allow_file_create=0 \
	>/tmp/stuck 2>&1 &
load=$!
in_flight() {
	awk '{ exit !($9 >= 300) }' "/sys/block/${dev#/dev/}/stat"
}
check "hundreds of writes wait for the thaw" until_true 20 in_flight
dd if="$dev" of=/tmp/read bs=64k count=2 iflag=direct status=none &
reader=$!
has_read() {
	! kill -0 $reader
}
check "what is in memory is read meanwhile" until_true 20 has_read
fsfreeze -u /tmp/below
check "it is what it should be" cmp -n 131072 src.raw /tmp/read
check "then the writes go on" wait $load
check "the image is deleted, too" timeout 60 ubdmap del "$dev"
cd /
