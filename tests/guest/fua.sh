#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --disk 64M --disk 512M --timeout 240
#
# The parts of a request go their ways, and one must not hold what another waits
# for. Here a FUA write over two extents waits for the mapper's commit, and that
# for I/O on what was mapped:
#
#	write, FUA		mapper
#	part 1: written, waits for a commit
#	part 2: written
#				FLUSH: drain, then COMMIT

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img filefrag mkfs.ext4

# A disk without a write cache never sees FUA: the block layer takes it off. The commit
# is waited for all the same. (What dsync has flushed afterwards has nothing left to ask
# the mapper for then.)
#
# Fails where the flags are not put back in end_io() of hit_bdev.c.
echo "write through" >/sys/block/vda/queue/write_cache
serve -p -g 3 /dev/vda
dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct status=none
asked=$(counter flush_mapper) not_asked=$(counter flush_kernel)
dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct,dsync status=none
equal "a FUA write waits for the commit of its extent, also where the disk has no cache" \
	"$(($(counter flush_mapper) - asked)) $(($(counter flush_kernel) - not_asked))" "1 1"
timeout 60 kctl del -f "$n"
echo "write back" >/sys/block/vda/queue/write_cache

serve -D -p -g 3 /dev/vda
dd if=/dev/zero of="$dev" bs=4k count=4 oflag=direct status=none
check "a FUA write over two changes does not wait for itself" timeout 20 \
	dd if=/dev/zero of="$dev" bs=16k count=1 oflag=direct,dsync status=none
timeout 60 kctl del -f "$n"

# --- placed in part ---

# The mapper places what it can, and the rest is looked up again. That may meet
# storage that has been committed, and must not end alone:
#
#	write, FUA		mapper
#	cluster A: a miss	PLACE for A, uncommitted
#	cluster B: a hit, committed
#
# Who writes to the device itself has it flushed afterwards, whatever FUA did; a file
# system leaves it at FUA where only data was written.
#
# Fails without bio_split() in mapped().

cluster=65536
work_on /dev/vdb
truncate -s 64M base.raw
mkfs.ext4 -q -b 4096 base.raw
mkdir /tmp/inner
dev=$(ubdmap add base.raw)
mount "$dev" /tmp/inner
fallocate -l 1M /tmp/inner/file
dd if=/dev/zero of=/tmp/inner/file bs=1M count=1 conv=notrunc oflag=direct status=none
sync
at=$(filefrag -b512 -e /tmp/inner/file |
	awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4 * 512 }')
pieces=$(filefrag /tmp/inner/file | sed 's/.*: \([0-9]*\) extent.*/\1/')
umount /tmp/inner
ubdmap del "$dev"
equal "the file lies in one piece" "$pieces" 1
# The first whole cluster in the file, on the device and in the file.
a=$(((at + cluster - 1) / cluster * cluster))
lead=$((a - at))
note "the file begins at byte $at, cluster A at $a"

# committed BYTE: the extent there may be written, and its change was committed when
# $state was had
committed() {
	changed=$(kctl map "$n" | awk -v at=$(($1 / 512)) \
		'$1 <= at && at < $1 + $2 && $4 == 3 { print $6; found = 1 }
		 END { exit !found }') || return
	tid=$(echo "$state" | sed -n 's/^ *"committed_tid": \([0-9]*\).*/\1/p')
	echo "tid $changed, committed up to $tid"
	[ "$changed" -le "$tid" ]
}
# write_at CLUSTER COUNT FLAG: to the file
write_at() {
	dd if=/dev/urandom iflag=fullblock bs=$cluster count="$2" status=none |
	dd of=/tmp/inner/file iflag=fullblock bs=$((cluster * $2)) count=1 \
		seek=$((lead + $1 * cluster)) conv=notrunc oflag=direct,seek_bytes"${3:-}" \
		status=none
}

qemu-img create -q -f qcow2 -b base.raw -F raw a.qcow2
dev=$(ubdmap add a.qcow2)
n=${dev#/dev/ubdmap}
mount -o noatime,commit=600 "$dev" /tmp/inner
write_at 1 1
sync
state=$(ubdmap stat --json "$dev")
check "what was written and synced is committed" committed $((a + cluster))
refuses "nothing of the cluster before it is" committed "$a"
before=$(counter flush_mapper)
# The mapper commits by itself what has become old, so be quick.
write_at 0 2 ,dsync
state=$(ubdmap stat --json "$dev")
check "all that a FUA write over both has written is committed" committed "$a"
check "the rest, too" committed $((a + cluster))
check "for which the mapper was asked" test "$(counter flush_mapper)" -gt "$before"
umount /tmp/inner
check "the device goes" ubdmap del "$dev"
