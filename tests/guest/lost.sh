#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --disk 64M --timeout 180
#
# The kernel tells an open file once that writing back has failed. Here a mapper is
# told, and killed before it says so: its successor syncs without an error, and yet
# the application must hear of it, and every flush from then on.
#
# Seen to fail without ubdm_flush_check() in end_fault(), the last claim but one
# without lost_writes() in ubdm_backing_sync().

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires dmsetup

modprobe dm-mod
export DM_DISABLE_UDEV=1	# nobody else makes the nodes
sectors=$(blockdev --getsz /dev/vda)

# become TARGET...: without a sync of what lies in the page cache
become() {
	dmsetup load bad --table "0 $sectors $*" &&
		dmsetup suspend --nolockfs --noflush bad && dmsetup resume bad
}

told() {
	grep -q '^synced: Input/output error' "$tap_out"
}

dmsetup create bad --table "0 $sectors linear /dev/vda 0"
serve -p -b -S /dev/mapper/bad
check "a write that the page cache has" dd if=/dev/zero of="$dev" bs=64k count=1 \
	oflag=direct status=none
check "the disk below fails" become error
sync "$dev" &
app=$!
check "the mapper is told that writing back has failed" until_true 20 told
kill -KILL "$mapper"
check "the disk below is well again" become linear /dev/vda 0
check "the device is without a mapper" until_true 10 mapperless
check "a new mapper comes" serve -a "$n" -b /dev/mapper/bad
rc=0
wait $app || rc=$?
equal "who waited for the flush hears of it" "$rc" 1
refuses "so does who flushes later" timeout 60 sync "$dev"
refuses "and who writes" timeout 60 dd if=/dev/zero of="$dev" bs=4k count=1 oflag=direct
check "reads go on" timeout 60 dd if="$dev" of=/dev/null bs=64k count=1 iflag=direct
equal "and the device says so" "$(kctl state "$n")" failed
kctl del -f "$n"

# --- and where no mapper is asked ---

dmsetup remove bad
dmsetup create bad --table "0 $sectors linear /dev/vda 0"
check "another device" serve -b -S /dev/mapper/bad
dd if=/dev/zero of="$dev" bs=64k count=1 oflag=direct status=none
become error
kill -USR1 "$mapper"
check "a mapper that syncs for itself is told" until_true 20 told
become linear /dev/vda 0
refuses "the flush that the kernel serves alone fails too" timeout 60 sync "$dev"
kctl del -f "$n"
check "the module can go" until_true 20 rmmod ubdmap
