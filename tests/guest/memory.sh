#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 256M --disk 3G --disk 320M --timeout 600
#
# Little memory, much to write: a file system on a thin image on a file system,
# with the swap on another such device.  What frees memory needs the mappers, so
# these must need none.
#
# The swap lies on a disk, not on a file: see "Limits" in docs/durability.md.  For
# the same reason reclaim's habit of raising the watermarks for a while, which on
# so small a machine triples them, is turned off.
#
# MIB=N writes N MiB (1024).  Several times the memory is all that matters: from
# the first 200 MiB on nothing is written but by reclaim and write-back.  2048
# takes twice the time, most of which emulation needs to make and compare data.
# Of the memory that is left, whatever the kernel (one that checks itself has more
# and needs it), a program wants all but 16 MiB all the time, and the file system's
# data wants it too: hence the swap.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img mkswap hog

mib=${MIB:-1024}
work_on /dev/vda
mkdir /tmp/mnt

# PF_MEMALLOC_NOIO and PF_LOCAL_THROTTLE: what the kernel calls an io-flusher.
is_flusher() {
	local task flags

	for task in /proc/"$1"/task/*; do
		flags=$(sed 's/.*) //' "$task/stat" | cut -d ' ' -f 7)
		[ $((flags & 0x180000)) = $((0x180000)) ] || return 1
	done
}

vmstat() {
	sed -n "s/^$1 //p" /proc/vmstat
}

available_mib() {
	sed -n 's/^MemAvailable: *\([0-9]*\) kB/\1/p' /proc/meminfo | awk '{ print int($1 / 1024) }'
}

locked_kib() {
	sed -n 's/^VmLck:[^0-9]*\([0-9]*\).*/\1/p' "/proc/$1/status"
}

# --- an image that wants the memory ---

# A hole costs its owner nothing; each of its clusters would cost the mapper four bytes.
total_kib=$(sed -n 's/^MemTotal: *\([0-9]*\) kB/\1/p' /proc/meminfo)
qemu-img create -q -f qcow2 -o cluster_size=512 wants.qcow2 1M
truncate -s $((total_kib * 40))K wants.qcow2
check "an image for which a mapper would lock a third of the memory is refused" \
	says 1 "of memory; open it read-only" ubdmap add wants.qcow2
dev=$(ubdmap add -r wants.qcow2)
check "read-only it needs none of it" ubdmap del "$dev"
truncate -s $((total_kib * 8))K wants.qcow2
dev=$(ubdmap add wants.qcow2)
check "for a sixteenth it is served, locked" \
	test "$(locked_kib "$(field mapper "$dev")")" -gt $((total_kib / 16))
ubdmap del "$dev"
check "and the image is sound" qemu-img check -q wants.qcow2
equal "nobody was killed for it" "$(vmstat oom_kill)" 0
rm wants.qcow2

# --- much to write ---

qemu-img create -q -f qcow2 a.qcow2 $((mib + 512))M
dev=$(ubdmap add a.qcow2)
swap=$(ubdmap add /dev/vdb)
echo 0 >/proc/sys/vm/watermark_boost_factor
mapper=$(field mapper "$dev")
for m in $mapper $(field mapper "$swap"); do
	check "each thread of a mapper is an io-flusher" is_flusher "$m"
	check "its memory is locked" test "$(locked_kib "$m")" -gt 1000
	equal "and the OOM killer spares it" "$(cat "/proc/$m/oom_score_adj")" -1000
done
note "locked: $(locked_kib "$mapper") KiB"

mkswap "$swap" >/dev/null
swapon "$swap"
mkfs.ext4 -q -E lazy_itable_init=1,lazy_journal_init=1 "$dev"
mount "$dev" /tmp/mnt
out=$(vmstat pswpout) in=$(vmstat pswpin)
hog_mib=$(($(available_mib) - 16))
hog $hog_mib /tmp/enough >/tmp/hog.out &
hog=$!
check "several times the memory is written through the page cache, and read back" \
	fio --name=pressure --directory=/tmp/mnt --size=$((mib / 2))M --numjobs=2 --rw=write \
	--bs=256k --ioengine=psync --end_fsync=1 --verify=pattern \
	--verify_pattern=%o --verify_fatal=1 --group_reporting
touch /tmp/enough
check "memory that was swapped out came back as it was" wait $hog
out=$(($(vmstat pswpout) - out)) in=$(($(vmstat pswpin) - in))
note "a program of $hog_mib MiB; pages swapped out $out, in $in; rounds: $(cat /tmp/hog.out)"
check "the swap was used" test "$out" -gt 1000 -a "$in" -gt 100
equal "nobody was killed for want of memory" "$(vmstat oom_kill)" 0
equal "the mapper is still the one it was" "$(field mapper "$dev")" "$mapper"
check "the swap can be turned off" timeout 100 swapoff "$swap"
check "the file system unmounted" timeout 100 umount /tmp/mnt
for d in $dev $swap; do
	equal "no request failed" \
		"$(ubdmap stat --json "$d" | sed -n 's/^ *"errors": \([0-9]*\).*/\1/p')" 0
	check "it is deleted" timeout 100 ubdmap del "$d"
done
check "the image is sound" qemu-img check -q a.qcow2
