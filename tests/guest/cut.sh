#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 1 --mem 1G --disk 128M --disk 2G --disk 128M --timeout 400
#
# Power cuts with the real driver: dm-log-writes keeps what the disk below the
# image's file system was told, in what order, and the disk is rebuilt as it was
# at some of these places. The log has its entries in the order in which flushes
# ended, and that of two at a time is the disk's own only where the disk has one
# queue, so one CPU. CUTS=N (12) of them in each round, of OPS=N (400) writes.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img dmsetup killer powercut mkfs.ext4

slow=${UBDMAP_SLOW:-1}
cuts=${CUTS:-$((12 / slow))} ops=${OPS:-400}
if ! modprobe dm-log-writes; then
	skip "power cuts" "the kernel has no dm-log-writes"
	exit 0
fi
mkdir -p /tmp/fs /tmp/then
cleanup "umount /tmp/then /tmp/fs 2>/dev/null; dmsetup remove lw"
powercut fill /tmp/base.raw 16

entries() {
	blockdev --flushbufs /dev/vdb
	powercut entries /dev/vdb
}

# as_flushed IMAGE ENTRY: has it what was flushed before that entry?
as_flushed() {
	rm -f /tmp/then.raw
	qemu-img convert -O raw "$1" /tmp/then.raw &&
		powercut check /dev/vdb "$2" /tmp/trace /tmp/then.raw 16
}

# One cut: is what a machine finds when it comes up again as it may be?
survives() {
	dd if=/tmp/disk of=/dev/vdc bs=1M oflag=direct status=none
	mount /dev/vdc /tmp/then || return 1
	qemu-img check /tmp/then/a.qcow2 >/tmp/check 2>&1
	rc=$?
	[ $rc = 0 ] || [ $rc = 3 ] || {
		cat /tmp/check
		return 1
	}
	[ $rc = 0 ] || leaky=$((leaky + 1))
	if [ $((done % 4)) = 0 ]; then
		again=$(ubdmap add /tmp/then/a.qcow2) || return 1
		dd if="$again" of=/tmp/then.raw bs=1M iflag=direct status=none || return 1
		# Who writes to it also gives back what leaked.
		dd if=/tmp/then.raw of="$again" bs=4k count=1 oflag=direct status=none || return 1
		ubdmap del "$again" || return 1
		qemu-img check -q /tmp/then/a.qcow2 || return 1
		powercut check /dev/vdb "$1" /tmp/trace /tmp/then.raw 16 || return 1
	else
		as_flushed /tmp/then/a.qcow2 "$1" || return 1
	fi
	umount /tmp/then
}

survive_all() {
	at=0
	rm -f /tmp/disk
	truncate -s 128M /tmp/disk
	for to in $(shuf -n "$cuts" -i "$start-$end" | sort -n) "$end"; do
		powercut replay /dev/vdb /tmp/disk "$at" "$to" || return 1
		at=$to
		survives "$to" || {
			echo "cut before entry $to of $end"
			return 1
		}
		done=$((done + 1))
	done
}

# round CLAIM CLUSTER KILLS
round() {
	blkdiscard -f /dev/vda 2>/dev/null
	dmsetup create lw --table "0 $(blockdev --getsz /dev/vda) log-writes /dev/vda /dev/vdb"
	dmsetup mknodes
	mkfs.ext4 -q -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 /dev/mapper/lw
	mount /dev/mapper/lw /tmp/fs
	qemu-img convert -c -O qcow2 /tmp/base.raw /tmp/fs/base.qcow2
	(cd /tmp/fs && qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 \
		-o cluster_size="$2" a.qcow2)
	sync -f /tmp/fs
	dev=$(ubdmap add /tmp/fs/a.qcow2)
	dmsetup message lw 0 mark begin
	sleep 0.5
	start=$(entries)
	check "$1: written, zeroed, discarded and flushed by four" \
		sh -c "powercut load -s $RANDOM $dev 16 $ops /tmp/trace lw >/tmp/load &
			load=\$!
			[ $3 = 0 ] || killer -l 30000 $dev $3 50 900 || exit 1
			wait \$load"
	check "$1: deleted" ubdmap del "$dev"
	umount /tmp/fs
	dmsetup remove lw
	end=$(entries)
	mount -r /dev/vda /tmp/then
	check "$1: without a cut, too, it has what was flushed" as_flushed /tmp/then/a.qcow2 "$end"
	umount /tmp/then
	leaky=0 done=0
	check "$1: whenever the power is cut, it opens, and has what was flushed" survive_all
	note "$1: $(cat /tmp/load), $((end - start)) entries, $done cuts, $leaky with leaks"
	umount /tmp/then 2>/dev/null || true
}

round "clusters of 64 KiB" 64k 0
round "clusters of 4 KiB, mappers killed" 4k 4
