#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 1G --timeout 600
#
# A mapper that hangs, one that is replaced while it works, and none at all.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio fsfreeze qemu-img

work_on /dev/vda

value() {
	ubdmap stat --json "$dev" | sed -n "s/^ *\"$1\": \([0-9]*\).*/\1/p"
}

ubdmap monitor >events &
monitor=$!
cleanup "kill $monitor"

# --- stopped ---

qemu-img create -q -f qcow2 a.qcow2 256M
dev=$(ubdmap add a.qcow2)
dd if=/dev/urandom of=known bs=1M count=4 status=none
dd if=known of="$dev" bs=1M oflag=direct status=none
sync "$dev"
mapper=$(field mapper "$dev")
faults=$(value faults)
kill -STOP "$mapper"
dd if=/dev/urandom of=miss bs=64k count=1 status=none
dd if=miss of="$dev" bs=64k seek=1600 oflag=direct status=none &
miss=$!
dd if="$dev" of=got bs=1M count=4 iflag=direct status=none
check "with its mapper stopped a device reads what is mapped" cmp got known
check "writes it" timeout 10 dd if=known of="$dev" bs=1M oflag=direct status=none
check "and flushes it" timeout 10 sync "$dev"
equal "nobody else was asked" "$(value flushes_mapper) $(($(value faults) - faults))" "1 0"
check "list tells that the mapper does not answer" until_true 15 is_state stalled
# The event comes with the driver's next look at who waits, up to half a second later.
check "and an event tells which request has none" \
	until_true 5 grep -q "$dev stalled write at byte 104857600, 65536 bytes" events
check "which still waits" kill -0 $miss
kill -CONT "$mapper"
check "and goes on with its mapper" wait $miss
check "which list tells" until_true 5 is_state live
check "and an event" until_true 5 grep -q "$dev recovered" events
equal "by the same mapper" "$(field mapper "$dev")" "$mapper"
check "what was written is there" sh -c \
	"dd if=$dev bs=64k skip=1600 count=1 iflag=direct status=none | cmp - miss"

# --- replaced ---

fio --filename="$dev" --direct=1 --ioengine=libaio --time_based --runtime=600 \
	--name=hits --size=4M --rw=randread --bs=4k --rate_iops=300 >hits.out 2>&1 &
hits=$!
writers() {
	while [ ! -e enough ]; do
		fio --name=writes --filename="$dev" --direct=1 --ioengine=libaio --iodepth=8 \
			--offset=16M --size=2M --rw=randwrite --bsrange=512-64k \
			--blockalign=512 --verify=crc32c --verify_fatal=1 \
			--verify_backlog=64 --fsync=64 --randrepeat=0 || return 1
		blkdiscard -f -o 16M -l 2M "$dev" || return 1
	done
}
writers >writes.out 2>&1 &
writers=$!
# Nothing but misses, by several, so that one is always there.
misses() {
	while [ ! -e enough ]; do
		# -f: several at a time
		blkdiscard -f -o $(($1 << 20)) -l 1M "$dev" || return 1
		dd if=known of="$dev" bs=64k count=16 seek=$(($1 * 16)) oflag=direct \
			status=none || return 1
		dd if="$dev" bs=64k count=16 skip=$(($1 * 16)) iflag=direct status=none |
			cmp -n 1048576 - known || return 1
	done
}
misses=()
for at in 32 33 34; do
	misses $at >misses.$at 2>&1 &
	misses+=($!)
done
upgrades() {
	for _ in 1 2 3; do
		sleep 1
		before=$(field mapper "$dev")
		ubdmap upgrade "$dev" || return 1
		[ "$(field mapper "$dev")" != "$before" ] || return 1
	done
}
sleep 1
check "a mapper is replaced under load, three times" sh -c "$(declare -f upgrades field)
	dev=$dev; upgrades >upgraded"
note "$(cat upgraded)"
equal "and prints how long a miss waited" "$(grep -c "pause of a miss: [0-9]* ms" upgraded)" 3
touch enough
check "writes and their verification saw nothing of it" wait $writers
for pid in "${misses[@]}"; do
	check "nor did misses" wait "$pid"
done
note "$(sort misses.* | uniq -c)"
check "nor did hits" kill -0 $hits
kill -INT $hits
wait $hits
equal "no request failed" "$(value errors)" 0
kill -STOP "$(field mapper "$dev")"
dd if=miss of="$dev" bs=64k seek=3000 oflag=direct status=none &
miss=$!
waits() {
	[ "$(value parked)" != 0 ]
}
check "a miss waits for a mapper that hangs" until_true 10 waits
sleep 0.3
check "which is replaced as well" sh -c "timeout 60 ubdmap upgrade --all >upgraded"
check "by one that serves" wait $miss
check "and the miss waited as long as is said" \
	sh -c "[ \"\$(sed 's/.* \([0-9]*\) ms/\1/' upgraded)\" -ge 300 ]"
# A keeper that has nothing more to do sees that a moment later.
two_left() {
	[ "$(pgrep -f 'ubdmap mapper' | wc -l)" = 2 ]
}
check "there is one mapper and one keeper" until_true 5 two_left
check "it is deleted" ubdmap del "$dev"
check "the image is sound" qemu-img check a.qcow2
check "no process is left" until_true 10 no_mapper

# --- another one while del looks away ---

# Closing the image means writing to it, which waits: the mapper is asked to, and is
# killed over it.  del looks again from time to time; stopped, it sees only the end.
dev=$(ubdmap add a.qcow2)
dd if=known of="$dev" bs=1M seek=100 oflag=direct status=none
before=$(field mapper "$dev")
replaced() {
	is_state live && [ "$(field mapper "$dev")" != "$before" ]
}
fsfreeze -f /tmp/fs
ubdmap del "$dev" >/tmp/out 2>/tmp/err &
del=$!
check "closing an image waits for the file system below" until_true 10 is_state dying
sleep 1
kill -STOP $del
kill -KILL "$before"
fsfreeze -u /tmp/fs
check "a mapper killed over it has a successor" until_true 20 replaced
kill -CONT $del
rc=0
wait $del || rc=$?
equal "del does not claim that the device is gone" \
	"$rc $(grep -c ': not deleted' /tmp/err) $(wc -l </tmp/err)" "1 1 1"
check "which has what was written" sh -c \
	"dd if=$dev bs=1M skip=100 count=4 iflag=direct status=none | cmp - known"
check "a second del deletes it" ubdmap del "$dev"
equal "for good" "$(ubdmap list)" ""
check "the image is sound then" qemu-img check -q a.qcow2
check "and no process is left" until_true 10 no_mapper

# It asks for three seconds, whatever stands still meanwhile: who was too late for that
# tries again.
dev=$(ubdmap add a.qcow2)
gave_up() {
	grep -q ': in use' /tmp/err
}
dying_or_not() {
	is_state dying || gave_up
}
for _ in 1 2 3; do
	exec 9<"$dev"
	ubdmap del "$dev" 9<&- >/tmp/out 2>/tmp/err &
	del=$!
	sleep 0.5
	kill -STOP $del
	ubdmap upgrade "$dev" 9<&- >/tmp/upgraded
	after=$(field mapper "$dev")
	kill -STOP "$after"
	exec 9<&-
	kill -CONT $del
	until_true 10 dying_or_not
	gave_up || break
	note "too late: $(cat /tmp/err)"
	kill -CONT "$after"
	wait $del
done
check "del waits for the user of a device, whoever its mapper is" is_state dying
sleep 1
check "and for that mapper to close the image" kill -0 $del
kill -CONT "$after"
check "which it does" wait $del
equal "del says nothing else" "$(cat /tmp/out /tmp/err)" ""
# What its parent has not waited for yet has ended, too.
runs() {
	grep -q '^State:[[:space:]]*[^ZX]' "/proc/$1/status"
}
refuses "the mapper has ended when del returns" runs "$after"
equal "and the device is gone" "$(ubdmap list)" ""
check "no process is left of it" until_true 10 no_mapper

# --- not needed ---

qemu-img create -q -f qcow2 -o preallocation=falloc full.qcow2 32M
truncate -s 32M full.raw
data packed.raw 4
qemu-img convert -c -O qcow2 packed.raw packed.qcow2
for image in full.qcow2 full.raw; do
	dev=$(ubdmap add $image)
	dd if=known of="$dev" bs=1M seek=3 oflag=direct status=none
	check "$image: it is detached" ubdmap detach "$dev"
	equal "$image: list tells" "$(field state "$dev")" detached
	check "$image: no process is left" until_true 10 no_mapper
	check "$image: all of it is read" sh -c \
		"dd if=$dev bs=1M skip=3 count=4 iflag=direct status=none | cmp - known"
	check "$image: and written, everywhere" fio --name=w --filename="$dev" --direct=1 \
		--ioengine=libaio --iodepth=8 --offset=8M --rw=randwrite --bs=64k --size=4M \
		--verify=crc32c --verify_fatal=1 --end_fsync=1
	check "$image: a discard is no error" blkdiscard -o 8M -l 1M "$dev"
	check "$image: zeroing zeroes" sh -c "blkdiscard -z -o 8M -l 1M $dev &&
		cmp -n 1048576 -i 8388608:0 $dev /dev/zero"
	refuses "$image: it stays locked" qemu-img resize -q -f ${image#*.} $image 64M
	check "$image: it can be attached again" ubdmap attach "$dev"
	equal "$image: and is as before" "$(field state "$dev")" live
	check "$image: discards work again" blkdiscard -o 8M -l 1M "$dev"
	dd if=/dev/zero of="$dev" bs=1M seek=8 count=1 oflag=direct status=none
	check "$image: it is detached once more" ubdmap detach "$dev"
	check "$image: and deleted" ubdmap del "$dev"
	[ $image = full.raw ] || check "$image: it is sound" qemu-img check -q $image
	check "$image: and has the data" sh -c "qemu-img convert -f ${image#*.} -O raw $image out &&
		cmp -n 4194304 -i 3145728:0 out known"
done

dev=$(ubdmap add --detach -r full.qcow2)
equal "a device is detached from the start" "$(field state "$dev")" detached
check "and without a process" until_true 10 no_mapper
check "and read" sh -c "dd if=$dev bs=1M skip=3 count=4 iflag=direct status=none | cmp - known"
check "and deleted" ubdmap del "$dev"

rc=0
ubdmap add --detach packed.qcow2 >out 2>err || rc=$?
equal "what needs a mapper is refused, in one line" \
	"$rc $(grep -c 'needs its mapper' err) $(wc -l <err)" "1 1 1"
check "and leaves no device" until_true 10 nothing_is_left
dev=$(ubdmap add a.qcow2)
rc=0
ubdmap detach "$dev" >out 2>err || rc=$?
equal "a device that needs its mapper keeps one" \
	"$rc $(grep -c 'needs its mapper' err) $(field state "$dev")" "1 1 live"
check "that works" timeout 10 dd if=miss of="$dev" bs=64k seek=3100 oflag=direct status=none
check "and is deleted" ubdmap del "$dev"
check "no process is left at the end" until_true 10 no_mapper

# --- deletion that its mapper does not live to see ---
#
#	mapper                  del                     next mapper
#	is stopped
#	                        DYING, SHUTDOWN waits
#	                        to be fetched
#	dies
#	                        the deletion is off     is not to finish

truncate -s 16M gone.raw
dev=$(ubdmap add gone.raw)
mapper=$(field mapper "$dev")
kill -STOP "$mapper"
ubdmap del "$dev" >out 2>err &
del=$!
check "a device whose mapper hangs is being deleted" until_true 10 is_state dying
kill -KILL "$mapper"
refuses "which fails when that dies" wait $del
lives() {
	is_state live && [ "$(field mapper "$dev")" != "$mapper" ]
}
check "the device has another one then" until_true 10 lives
sleep 2
check "which stays" lives
check "and serves it" timeout 20 dd if="$dev" of=/dev/null bs=64k count=1 iflag=direct
check "the next deletion works" timeout 60 ubdmap del "$dev"
check "and leaves no process" until_true 10 no_mapper

# --- somebody else's ---

truncate -s 1M other.raw
serve other.raw
rc=0
ubdmap upgrade "$dev" >out 2>err || rc=$?
equal "a mapper that is no program of ours is not told to go, and the message names it" \
	"$rc $(grep -c "process $mapper (kmap)" err) $(wc -l <err) $(wc -c <out)" "1 1 1 0"
check "it serves on" dd if="$dev" of=/dev/null bs=64k iflag=direct
kctl del "$n"
