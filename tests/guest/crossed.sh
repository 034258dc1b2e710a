#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 1G --timeout 400
#
# Commands that meet a mapper between two things: one that has come and does not serve
# yet, one that is about to leave, one that is to go before anybody had the device.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fsfreeze qemu-img ubdmap

mkfs.ext4 -q /dev/vda
mkdir -p /tmp/below
mount /dev/vda /tmp/below
cleanup "cd /; fsfreeze -u /tmp/below 2>/dev/null; umount /tmp/below"
cd /tmp/below || exit 1
dd if=/dev/urandom of=/tmp/data bs=1M count=1 status=none

has_another() {
	local now

	now=$(field mapper "$dev")
	[ "$now" != null ] && [ "$now" != "$1" ]
}

# --- deleted while the next mapper completes the metadata ---

# Whose writes wait for the thaw. What was written has not been committed then: that is done
# by itself after five seconds. Fails where del takes a device in state "orphaned" for
# one that has no mapper.
qemu-img create -q -f qcow2 start.qcow2 64M
dev=$(ubdmap add start.qcow2)
mapper=$(field mapper "$dev")
dd if=/tmp/data of="$dev" bs=64k count=16 oflag=direct status=none
fsfreeze -f /tmp/below
kill -KILL "$mapper"
check "a mapper that is killed has a successor" until_true 20 has_another "$mapper"
check "which does not serve yet" is_state orphaned
(sleep 5; fsfreeze -u /tmp/below) &
thaw=$!
check "del waits for it" timeout 120 ubdmap del "$dev"
wait $thaw
check "and what was written without a flush is in the image" sh -c \
	"qemu-img check -q start.qcow2 && qemu-img convert -O raw start.qcow2 /tmp/got &&
		cmp -n 1048576 /tmp/got /tmp/data"

# --- deleted while the mapper leaves ---

# It commits first, which waits for the thaw. Fails where leaving is not given up for what
# came meanwhile: it takes a mapper to delete, and "that ended; try again".
qemu-img create -q -f qcow2 leave.qcow2 64M
dev=$(ubdmap add leave.qcow2)
mapper=$(field mapper "$dev")
dd if=/tmp/data of="$dev" bs=64k count=16 oflag=direct status=none
fsfreeze -f /tmp/below
sh -c "ubdmap upgrade $dev >/tmp/upgrade.out 2>&1; echo \$? >/tmp/upgrade.rc" &
upgrade=$!
sleep 1
sh -c "timeout 120 ubdmap del $dev >/tmp/del.out 2>&1; echo \$? >/tmp/del.rc" &
del=$!
check "a device is being deleted whose mapper is about to leave" until_true 4 is_state dying
equal "for another" "$(field mapper "$dev")" "$mapper"
fsfreeze -u /tmp/below
wait $del $upgrade
equal "it completes the image instead" "$(cat /tmp/del.rc /tmp/del.out)" 0
equal "and the other one has no device to serve" "$(cat /tmp/upgrade.rc)" 3
note "$(cat /tmp/upgrade.out)"
check "the image has what was written" sh -c \
	"qemu-img check -q leave.qcow2 && qemu-img convert -O raw leave.qcow2 /tmp/got &&
		cmp -n 1048576 /tmp/got /tmp/data"
check "no process is left" until_true 10 no_mapper

# --- nobody had its name, and somebody looks at it ---

# As udev does, for a second. Fails where a deletion is asked for once.
truncate -s 16M full.raw
looks() {
	until (exec 3</dev/ubdmap0 && touch /tmp/looked && sleep 1) 2>/dev/null; do
		:
	done
}
# Who looks may be too late for it.
withdrawn() {
	rm -f /tmp/looked
	for _ in 1 2 3 4 5 6; do
		looks &
		looker=$!
		rc=0
		says 1 "deleted again, but its name could not be printed" \
			sh -c "exec ubdmap add $1 full.raw >/dev/full" || rc=1
		kill $looker
		wait $looker
		[ $rc = 0 ] && [ -z "$(ubdmap list)" ] || return 1
		# What the command has said is so when it ends.
		dev=$(ubdmap add full.raw) && ubdmap del "$dev" || return 1
		[ ! -e /tmp/looked ] || break
	done
}
for how in "" --detach; do
	check "${how:-served}: a device whose name cannot be printed goes, and its image is free" \
		withdrawn "$how"
	check "${how:-served}: though somebody looked at it" test -e /tmp/looked
done

# --- told to end when its device has gone, and another one has its number ---

# As systemd does it: TERM, then CONT. Fails where a mapper asks for the number alone, or
# without a look at whether it serves any more.
truncate -s 16M other.raw
dev=$(ubdmap add full.raw)
mapper=$(field mapper "$dev")
kill -STOP "$mapper"
ubdmap del --force "$dev"
until_true 20 sh -c '! ubdmap stat ubdmap0'
equal "the next device has the number of the one that went" "$(ubdmap add other.raw)" "$dev"
kill -TERM "$mapper"
kill -CONT "$mapper"
check "a mapper that is told to end then ends" until_true 20 sh -c "! kill -0 $mapper"
sleep 1
check "and leaves the other one alone" sh -c "ubdmap list $dev | grep other.raw"
check "whose mapper serves it" timeout 20 dd if="$dev" of=/dev/null bs=1M count=1 iflag=direct
ubdmap del "$dev"

# --- what has failed leaves nothing behind when it ends ---

qemu-img create -q -f qcow2 thin.qcow2 64M
again() {
	for _ in 1 2 3 4 5 6 7 8; do
		! ubdmap add --detach thin.qcow2 2>/tmp/err || return 1
		grep -q "needs its mapper" /tmp/err || return 1
		dev=$(ubdmap add thin.qcow2) || return 1
		ubdmap del "$dev" || return 1
	done
}
check "an image of which no device was made can be used at once" again

# --- what is below can be unmounted when del ends ---

# Of a device without a mapper the kernel's is the last reference to the file. Fails
# without __fput_sync() in ubdm_backing_release_all(), now and then.
unmounts() {
	for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do
		dev=$(ubdmap add --detach /tmp/below/full.raw) || return 1
		# It had the file, too.
		until_true 10 no_mapper || return 1
		ubdmap del "$dev" || return 1
		umount /tmp/below || return 1
		mount /dev/vda /tmp/below || return 1
	done
}
cd / || exit 1
check "a file system can be unmounted as soon as the device on it is deleted" unmounts
cd /tmp/below || exit 1
check "no process is left at the end" until_true 10 no_mapper
