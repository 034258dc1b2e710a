#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --disk 128M --disk 64M --timeout 240
#
# What has missed goes on by the task that answered, if that keeps nobody waiting
# (kernel/redrive.c). The mapper is kscale: each block is an extent of its own, and so
# few are kept that nearly everything misses.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio mkfs.ext4

blocks=4096

# misses TARGET: kscale serves every other block of it: dev, n
misses() {
	kscale -w -n $blocks -m 128 "$1" >/tmp/kscale.out 2>&1 &
	until_true 10 grep -q '^/dev/ubdmap' /tmp/kscale.out || return
	dev=$(grep '^/dev/ubdmap' /tmp/kscale.out)
	n=${dev#/dev/ubdmap}
}
done_with() {
	kctl del "$n"
	until_true 10 gone "$n"
}
# read_all [GROUP]: each block once, one at a time, in that cgroup
read_all() {
	sh -c "[ -z '${1:-}' ] || echo \$\$ >'${1:-}/cgroup.procs'
		exec fio --name=reads --filename=$dev --direct=1 --ioengine=psync \
			--rw=randread --bs=4k --size=$((blocks * 4))k --allow_file_create=0"
}

# --- a disk that takes four requests at a time: others come back, and wait elsewhere ---
#
# Fails where end_tried() takes what came back for an error, or ends it.

echo none >/sys/block/vdb/queue/scheduler
echo 4 >/sys/block/vdb/queue/nr_requests

traced=/sys/kernel/tracing
mountpoint -q $traced || mount -t tracefs none $traced 2>/dev/null
if [ -d $traced/events/block ]; then
	echo 'error == -11' >$traced/events/block/block_bio_complete/filter
	echo 1 >$traced/events/block/block_bio_complete/enable
fi
misses /dev/vdb
check "writes that find no tag are done all the same" timeout 60 fio --name=crowd \
	--filename="$dev" --direct=1 --ioengine=libaio --iodepth=64 --rw=randwrite --bs=4k \
	--size=$((blocks * 4))k --io_size=8M --verify=crc32c --verify_fatal=1 \
	--allow_file_create=0
equal "nothing of it failed" "$(counter errors)" 0
note "$(counter read_misses) and $(counter write_misses) misses"
if [ -d $traced/events/block ]; then
	echo 0 >$traced/events/block/block_bio_complete/enable
	check "some found none" grep -q 'block_bio_complete.*\[-11\]' $traced/trace
	note "$(grep -c 'block_bio_complete.*\[-11\]' $traced/trace) came back"
fi

# Each is counted once, as by fio: 2048 writes, and as many reads that verify them.
equal "each hit is counted once" "$(counter write_hits)" 2048
equal "by the disk's own statistics, too" \
	"$(awk '{ print $1 + $5 }' "/sys/block/ubdmap$n/stat")" \
	"$(($(counter read_hits) + $(counter write_hits)))"
equal "where nothing is under way any more" \
	"$(awk '{ print $9 }' "/sys/block/ubdmap$n/stat")" 0

# io_uring asks for NOWAIT, and repeats by itself only what fails while it asks. Fails
# where a part of a request, or one that has waited for the mapper, keeps NOWAIT.
check "nor does who asked for NOWAIT hear of it later" timeout 120 fio --name=uring \
	--filename="$dev" --direct=1 --ioengine=io_uring --iodepth=32 --rw=randread --bs=16k \
	--size=$((blocks * 4))k --io_size=8M --allow_file_create=0
equal "nothing of that failed either" "$(counter errors)" 0

done_with

# --- a file: who answers reads it for them, but not for another cgroup ---

work_on /dev/vda
disk=$(cat /sys/block/vda/dev)
dd if=/dev/urandom of=backing bs=1M count=32 status=none
sync
groups=/sys/fs/cgroup
mountpoint -q $groups || mount -t cgroup2 none $groups
misses backing
read_all >/dev/null
was=$(counter inline)
# Nearly all of them on a machine that has nothing else to do; a try that took 4 ms is
# the last for 100.
check "who answers a miss reads the file, often" [ "$was" -gt $((blocks / 20)) ]
note "$was of $blocks"
done_with

mkdir $groups/customer
cleanup "rmdir $groups/customer"
if echo +io >$groups/cgroup.subtree_control; then
	misses backing
	read_all $groups/customer >/dev/null
	equal "what is read for a cgroup is charged to that" \
		"$(sed -n "s/^$disk rbytes=\([0-9]*\).*/\1/p" $groups/customer/io.stat)" \
		$((blocks * 4096))
	done_with
else
	skip "charging a cgroup" "the kernel has no io controller"
fi
