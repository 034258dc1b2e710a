#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --timeout 600
#
# A mapper that means harm gets errors, and nobody else is disturbed.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio

mkdir /tmp/dir
serve -g 5 /dev/vda
fio --name=other --filename="$dev" --size=16M --direct=1 --ioengine=libaio --iodepth=4 \
	--rw=randwrite --bsrange=512-16k --blockalign=512 --verify=crc32c \
	--verify_fatal=1 --time_based --runtime=40 >/tmp/fio 2>&1 &
load=$!

check "random and mutated commands are survived" timeout 300 chanfuzz -t 35 /tmp/dir
cat "$tap_log" >/tmp/told
note "$(tr '\n' ',' </tmp/told)"

# NAME taken refused: a fuzzer that never gets in, or is never refused, is no test.
both() {
	awk -v name="$1" '$1 == name && $2 > 0 && $3 > 0 { found = 1 }
			  END { exit !found }' /tmp/told
}
for op in START STOP FETCH RESOLVE MAP INVALIDATE COMMIT BACKING_ADD BACKING_GET \
	  BACKING_DEL DUMP; do
	check "$op was taken at times, and refused" both $op
done
check "bytes of parked requests were moved" \
	awk '$1 == "xfers" && $2 > 0 { found = 1 } END { exit !found }' /tmp/told
check "I/O on another device goes on, with the right content" wait $load
equal "which did not fail" "$(counter errors)" 0
check "it can be deleted" kctl del "$n"
# --- memory of the mapper's that does not come ---

held_up() {
	holdup "$1" >/tmp/holdup 2>&1 &
	holder=$!
	until_true 10 grep -q '^/dev/' /tmp/holdup || { cat /tmp/holdup; return 1; }
	until_true 10 sh -c '[ "$(grep -c ^/dev/ /tmp/holdup)" = 2 ]' || return
	first=$(sed -n 's,^/dev/,,p' /tmp/holdup | head -n 1)
	second=$(sed -n 's,^/dev/,,p' /tmp/holdup | tail -n 1)
	dd if=/dev/zero of="/dev/$first" bs=4k count=1 oflag=direct 2>/tmp/dd &
	writer=$!
	until_true 10 grep -q '^held up' /tmp/holdup
}
gone() {
	[ ! -e "/sys/block/$1" ] && ! ubdmap list | grep "$1 "
}
for how in pread map; do
	check "$how waits for the mapper's own memory" held_up $how
	check "others are told of all devices meanwhile" timeout 10 ubdmap list
	check "and the device can be deleted by force" timeout 60 kctl del -f "${first#ubdmap}"
	refuses "the write that waits fails" wait "$writer"
	check "then the device is gone, though its mapper still waits" until_true 20 gone "$first"
	refuses "which has had no answer" grep -E '^(pread|map):' /tmp/holdup
	check "so can the other" timeout 60 kctl del -f "${second#ubdmap}"
	check "and the mapper gets an error" sh -c "timeout 20 tail --pid=$holder -f /dev/null"
	note "$(tail -n 1 /tmp/holdup)"
done

check "nothing of any device is left, so the module can go" until_true 10 rmmod ubdmap
