#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --disk 256M --timeout 400
#
# Corners where several meet: storage that moves below hits, many writers of one
# cluster, FUA after a miss.  Each names the line without which it fails.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img dmsetup mkfs.ext4 filefrag mover crowd

modprobe dm-mod
modprobe dm-delay
export DM_DISABLE_UDEV=1	# nobody else makes the nodes

# late NAME DISK: like DISK, but what is sent there arrives later than what is
# sent to DISK itself
late() {
	dmsetup create "$1" --table "0 $(blockdev --getsz "$2") delay $2 0 6"
}

# --- storage that moves below hits ---

# Fails without synchronize_srcu_expedited() in ubdm_drain_work().

late late /dev/vda
late latefs /dev/vdb
mkfs.ext4 -q -b 4096 /dev/mapper/latefs
mkdir /tmp/fs
mount /dev/mapper/latefs /tmp/fs
cleanup "umount /tmp/fs"
# Written, in one piece: so that its bytes can be had below the file system.
fallocate -l 6M /tmp/fs/file
dd if=/dev/zero of=/tmp/fs/file bs=1M count=6 conv=notrunc oflag=direct status=none
sync
piece=$(filefrag -b512 -e /tmp/fs/file | awk '$1 == "0:" { sub(/\.\..*/, "", $4); print $4, $6 }')
note "the file lies at ${piece% *}, sectors ${piece#* }"
dmsetup create part --table "0 12288 linear /dev/mapper/late 0"

moving() {
	claim=$1
	shift
	mover "$@" >mover.out 2>mover.err &
	mover=$!
	if ! until_true 20 grep -q '^/dev/ubdmap' mover.out; then
		not_ok "$claim" "$(cat mover.err)"
		return
	fi
	dev=$(head -n 1 mover.out)
	n=${dev#/dev/ubdmap}
	check "$claim: all who read see what they wrote" fio --name=verify \
		--filename="$dev" --size=1M --offset_increment=1M --numjobs=3 \
		--direct=1 --ioengine=io_uring --iodepth=16 --rw=randrw \
		--rwmixread=50 --bsrange=512-32k --blockalign=512 \
		--verify=crc32c --verify_backlog=32 --verify_fatal=1 \
		--time_based --runtime=5 --serialize_overlap=1 --fsync=100 --group_reporting --minimal
	check "$claim: nothing waits or has failed" \
		sh -c "[ \"\$(kctl stat $n parked errors | tr '\n' ' ')\" = '0 0 ' ]"
	hits=$(kctl stat "$n" read_hits write_hits | tr '\n' ' ')
	check "$claim: the device goes" timeout 60 kctl del "$n"
	check "$claim: and nobody wrote to what had drained" wait $mover
	moves=$(awk '$1 == "moves" { print $2 }' mover.out)
	check "$claim: it was moved all the time" test "${moves:-0}" -gt 100
	note "$moves moves; read and write hits: $hits$(head -n 3 mover.err)"
}

cd /tmp || exit 1
moving "replaced on a disk" /dev/mapper/part /dev/vda
moving "invalidated on a disk" -i /dev/mapper/part /dev/vda
if [ "${piece#* }" = 12288: ]; then
	moving "replaced in a file" /tmp/fs/file /dev/vdb "${piece% *}"
	moving "invalidated in a file" -i /tmp/fs/file /dev/vdb "${piece% *}"
else
	not_ok "the file is in one piece" "$(filefrag -b512 -e /tmp/fs/file)"
fi
dmsetup remove part
dmsetup remove late

# --- many writers, one cluster ---

# The count fails if place_on_fault() makes a new fault where one waits already:
# then each write makes one.  A write that looked before the answer came and parks
# after it asks once more, which is harmless: the mapper finds the cluster allocated.

cd /tmp/fs || exit 1
dd if=/dev/urandom of=base.raw bs=64k count=40 status=none
qemu-img create -q -f qcow2 -b base.raw -F raw crowd.qcow2
dev=$(ubdmap add crowd.qcow2)
n=${dev#/dev/ubdmap}
dd if=base.raw of="$dev" bs=512 count=1 oflag=direct status=none	# prepares the image
crowds() {
	for i in {1..20}; do
		dd if=base.raw bs=64k skip="$i" count=1 status=none |
			crowd "$dev" $((i << 16)) 65536 || return 1
		# The next one is not to be mapped ahead.
		[ "$(counter errors)" = 0 ] || return 1
	done
}
faults=$(counter faults) misses=$(counter write_misses)
check "64 writers of a sector each lose none, nor what is between them" crowds
faults=$(($(counter faults) - faults)) misses=$(($(counter write_misses) - misses))
note "20 clusters, $misses writes missed, $faults faults"
check "each cluster is asked for once, but for writes that meet the answer" \
	test $faults -ge 20 -a $faults -le 30
check "for many at a time" test $misses -gt 200
allocated() {
	qemu-img check --output=json crowd.qcow2 |
		sed -n 's/.*"allocated-clusters": \([0-9]*\).*/\1/p'
}
dd if="$dev" of=after.raw bs=64k iflag=direct status=none
check "the device goes" ubdmap del "$dev"
equal "and copied once" "$(allocated)" 21
check "the image is sound and leaks nothing" qemu-img check -q crowd.qcow2
qemu-img convert -O raw crowd.qcow2 image.raw
check "and holds what the device showed" cmp image.raw after.raw

# --- FUA on a hit, after a miss has changed metadata ---

# Fails if ubdm_hit_needs_flush() says no, and the flush without
# ubdm_tlb_must_commit() in ubdm_flush_bio().

flushes() {
	kctl stat "$n" flush_kernel flush_mapper | tr '\n' ' '
}
put() {
	dd if=/dev/zero of="$dev" bs=4k count=1 conv=notrunc status=none "$@"
}
fua_checks() {
	claim=$1
	shift
	serve "$@" || { not_ok "$claim"; return; }
	put oflag=direct seek=1				# a miss, changes metadata
	hits=$(counter write_hits) misses=$(counter write_misses)
	put oflag=direct,dsync seek=1			# a hit
	# The block layer has a flush follow, which the kernel can do by then.
	equal "$claim: FUA on a hit after a miss goes through the mapper" "$(flushes)" "1 1 "
	equal "$claim: and was a hit" \
		"$(($(counter write_hits) - hits)) $(($(counter write_misses) - misses))" "1 0"
	put oflag=direct,dsync seek=1
	equal "$claim: the next one, nothing being changed, does not" \
		"$(flushes | cut -d' ' -f2)" 1
	put oflag=direct seek=100			# another miss
	put oflag=direct seek=1
	sync "$dev"
	equal "$claim: nor does fsync stay with the kernel after another miss" \
		"$(flushes | cut -d' ' -f2)" 2
	sync "$dev"
	equal "$claim: but the next does" "$(flushes | cut -d' ' -f2)" 2
	kctl del "$n"
}
fua_checks "on a disk" -p /dev/vda
truncate -s 8M flat
fua_checks "in a file" -p flat
# A mapper that never answers FLUSH: nobody is told that it is done.
serve -w -p /dev/vda
put oflag=direct seek=1
put oflag=direct,dsync seek=1 2>/dev/null &
fua=$!
check "FUA on such a hit waits for the mapper" until_true 10 sh -c "[ \"\$(kctl stat $n parked)\" = 1 ]"
sleep 0.5
check "as long as it takes" kill -0 $fua
kctl del -f "$n"
refuses "and fails if that goes" wait $fua
cd /
