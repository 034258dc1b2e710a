#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 1G --timeout 400
#
# The file system below is full: what needs space waits, the rest goes on.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img

mkfs.ext4 -q -m 0 -O ^has_journal /dev/vda 96M
mkdir /tmp/fs
mount /dev/vda /tmp/fs
cleanup "cd /; umount /tmp/fs"
cd /tmp/fs || exit 1

# What was deleted may become free a moment later.
fill() {
	for i in 1 2 3 4; do
		dd if=/dev/zero of=ballast$i bs=1M status=none 2>/dev/null
		dd if=/dev/zero of=ballast$i.small bs=4k status=none 2>/dev/null
		sync -f /tmp/fs
		sleep 0.5
	done
}

drain() {
	rm -f ballast*
	sync -f /tmp/fs
}

# Writes to what was not written before, 8 MiB more each time.
at=16
burst() {
	at=$((at + 8))
	dd if=/dev/zero of="$dev" bs=64k count=128 seek=$((at * 16)) oflag=direct status=none
}

dd if=/dev/urandom of=/tmp/random bs=64k count=64 status=none
ubdmap monitor >/tmp/events &
monitor=$!
cleanup "kill $monitor"

for image in a.qcow2 a.raw; do
	: >/tmp/events
	qemu-img create -q -f ${image#*.} $image 1G
	# Not so soon that a slow guest comes too late with the space.
	dev=$(ubdmap add --space-timeout 600 $image)
	dd if=/tmp/random of="$dev" bs=64k oflag=direct status=none
	sync "$dev"
	fill
	# More than the pool and a reserve may hold.
	{
		rc=0
		burst && burst && burst || rc=$?
		echo $rc >/tmp/burst.rc
	} 2>/tmp/burst.err &
	burst=$!
	check "$image: list tells that writes wait for space" until_true 90 is_state space
	check "$image: and an event" until_true 5 grep -q "$dev space" /tmp/events
	check "$image: they wait" kill -0 $burst
	check "$image: reads go on" sh -c "timeout 20 dd if=$dev bs=64k count=64 iflag=direct \
		status=none | cmp - /tmp/random"
	check "$image: of what was never read too" timeout 20 dd if="$dev" of=/dev/null bs=64k \
		count=16 skip=15000 iflag=direct status=none
	check "$image: overwrites go on" timeout 20 dd if=/tmp/random of="$dev" bs=64k count=64 \
		oflag=direct status=none
	check "$image: a flush of them too" timeout 20 sync "$dev"
	if [ ${image#*.} = qcow2 ]; then
		check "$image: the image is sound meanwhile" sh -c \
			"qemu-img check -U $image >/tmp/check 2>&1; ! grep -i '^[0-9]* error' /tmp/check"
	fi
	drain
	check "$image: with space they go on" wait $burst
	equal "$image: without an error" "$(cat /tmp/burst.rc /tmp/burst.err)" 0
	check "$image: which list tells" until_true 15 is_state live
	check "$image: and an event" until_true 10 grep -q "$dev recovered" /tmp/events
	check "$image: it is deleted" ubdmap del "$dev"
	[ ${image#*.} = raw ] || check "$image: the image is sound" qemu-img check -q $image
	rm $image
done

qemu-img create -q -f qcow2 a.qcow2 1G
dev=$(ubdmap add --space-timeout 3 a.qcow2)
dd if=/tmp/random of="$dev" bs=64k oflag=direct status=none
sync "$dev"
fill
{ burst && burst && burst && burst && burst && burst; } 2>/tmp/err
check "after its time a write fails for want of space" grep -qi "no space left" /tmp/err
check "overwrites go on" timeout 20 dd if=/tmp/random of="$dev" bs=64k count=64 oflag=direct \
	status=none
mapper=$(field mapper "$dev")
kill -KILL "$mapper"
replaced() {
	[ "$(field mapper "$dev")" != "$mapper" ] && { is_state live || is_state space; }
}
check "a mapper is replaced on the full disk" until_true 20 replaced
check "and links what is not linked" timeout 60 sync "$dev"
check "what was written is there" sh -c \
	"dd if=$dev bs=64k count=64 iflag=direct status=none | cmp - /tmp/random"
drain
check "it is deleted" ubdmap del "$dev"
check "and sound" qemu-img check -q a.qcow2

# What comes bit by bit is enough for each of them, and each waits for a moment only. Fails
# where all have the time of the first that found none.
for i in $(seq 24); do
	dd if=/dev/zero of="bit$i" bs=1M count=1 status=none
done
truncate -s 1G c.raw
dev=$(ubdmap add --space-timeout $((6 * ${UBDMAP_SLOW:-1})) c.raw)
dd if=/tmp/random of="$dev" bs=64k count=1 oflag=direct status=none
fill
dd if=/dev/zero of="$dev" bs=64k count=320 seek=256 oflag=direct status=none 2>/tmp/err &
burst=$!
began=$(date +%s)
for i in $(seq 24); do
	rm -f "bit$i"
	sync -f /tmp/fs
	sleep 1
	kill -0 $burst 2>/dev/null || break
done
check "with a little space each second no write fails" wait $burst
note "$(cat /tmp/err) $(($(date +%s) - began)) s"
drain
check "it is deleted as well" ubdmap del "$dev"
rm c.raw

truncate -s 1G b.raw
dev=$(ubdmap add --space-timeout 2 b.raw)
dd if=/tmp/random of="$dev" bs=64k oflag=direct status=none
fill
at=16
{ burst && burst && burst; } 2>/tmp/err
check "a hit that finds no space fails in time as well" grep -qi "no space left" /tmp/err
check "what is there is read and written" sh -c "dd if=/tmp/random of=$dev bs=64k oflag=direct \
	status=none && dd if=$dev bs=64k count=64 iflag=direct status=none | cmp - /tmp/random"
drain
check "with space again it takes writes" burst
check "it is deleted too" ubdmap del "$dev"

# Nobody is needed for that, so a device without a mapper has the same time for it, also
# when that of what needs a mapper is over. Fails where the orphan's watch gives up both.
dev=$(ubdmap add --space-timeout 5 --orphan-timeout 1 b.raw)
dd if="$dev" of=/dev/null bs=64k count=1 iflag=direct status=none
fill
mapper=$(field mapper "$dev")
kill -KILL "$(keeper_of "$mapper")" "$mapper"
check "a mapper is gone for good" until_true 10 is_state orphaned
sleep 2
at=80
sh -c "dd if=/dev/zero of=$dev bs=64k count=128 seek=$((at * 16)) oflag=direct status=none \
	2>/tmp/err; echo \$? >/tmp/orphan.rc" &
check "a write that finds no space fails in time without it" until_true 30 test -s /tmp/orphan.rc
equal "and for want of space" "$(cat /tmp/orphan.rc) $(grep -ci 'no space left' /tmp/err)" "1 1"
drain
check "that one is deleted" ubdmap del "$dev"
