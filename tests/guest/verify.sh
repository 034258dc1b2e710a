#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 256M --disk 2G --disk 64M --timeout 800
#
# Many at once, verified by fio: the driver alone, with kmap as its mapper.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio mkfs.ext4

mkfs.ext4 -q -b 4096 /dev/vdb
mkdir /tmp/fs
mount /dev/vdb /tmp/fs
cleanup "umount /tmp/fs"
truncate -s 48M /tmp/fs/file /tmp/fs/slow

# Three writers of their own thirds, each verifying what it wrote; the requests
# of one touch the same granules as its others.
storm() {
	fio --name=storm --filename="$dev" --size=8M --offset_increment=15M \
		--numjobs=3 --ioengine=io_uring --iodepth=16 --rw=randrw \
		--rwmixread=30 --bsrange=512-64k --blockalign=512 \
		--verify=crc32c --verify_backlog=64 --verify_fatal=1 \
		--fsync=200 --group_reporting "$@"
}

# As many, all on the same place: nothing to verify but the end, whose sectors
# must each be what one of them wrote there.
same_place() {
	fio --name=same --filename="$dev" --size=256k --numjobs=4 --direct=1 \
		--ioengine=libaio --iodepth=32 --rw=randwrite --bs=512 \
		--io_size=1M --norandommap --verify=meta --do_verify=0 \
		--group_reporting &&
		fio --name=check --filename="$dev" --size=256k --direct=1 --rw=read \
			--bs=512 --verify=meta --verify_only
}

quiet() {
	[ "$(counter parked)" = 0 ] && [ "$(counter errors)" = 0 ]
}

try() {
	claim=$1
	shift
	serve "$@" || { not_ok "$claim"; return; }
	check "$claim: what three writers wrote is there" storm --direct=1
	check "$claim: and through the page cache" storm --direct=0
	check "$claim: nobody waits, nothing has failed" quiet
	check "$claim: it can be deleted" kctl del "$n"
}

try "on a block device" -r 64 /dev/vda
try "placed on a block device, in small granules" -p -g 3 /dev/vda
try "on a file" -r 16 /tmp/fs/file
try "on a buffered file" -b -g 6 /tmp/fs/file
try "placed on a file" -p /tmp/fs/file
try "moved by pread and pwrite" -x -g 8 /tmp/fs/file
try "over extents of five kinds" -m -g 4 /tmp/fs/file /tmp/fs/slow
try "with faults that are held" -h -g 9 /tmp/fs/file

# Four requests of 4 KiB at a time: nearly each of ours is cut below, and parts of it find
# no tag, which is to be nobody's error.
echo none >/sys/block/vdc/queue/scheduler
echo 4 >/sys/block/vdc/queue/nr_requests
echo 4 >/sys/block/vdc/queue/max_sectors_kb
try "on a disk that takes little at a time" -g 4 /dev/vdc

serve -g 0 /dev/vda
check "writers of the same sectors do not mix them" same_place
check "and wait for nothing afterwards" quiet
kctl del "$n"
