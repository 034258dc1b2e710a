#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --disk 64M --disk 1G --timeout 400
#
# What a mapper does while something else is under way. The mappers are toys, one
# for each, in tests/tools/corners.c; each claim names without what it fails.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires corners dmsetup

modprobe dm-mod
modprobe dm-delay
export DM_DISABLE_UDEV=1	# nobody else makes the nodes

work_on /dev/vdc

# try WORD ARG...: what came of it is in WORD.out
try() {
	local rc=0

	corners "$@" >"$1.out" 2>"$1.err" || rc=$?
	[ $rc = 0 ] || note "corners $*: status $rc, $(cat "$1.err")"
}

# came CLAIM WORD WHAT RESULT
came() {
	equal "$1" "$(sed -n "s/^$3: //p" "$2.out")" "$4"
}

# --- a backing that is given up ---

# Without ubdm_place_uses_backing() in ubdm_backing_del().

dmsetup create late --table \
	"0 $(blockdev --getsz /dev/vda) delay /dev/vda 0 0 /dev/vda 0 $((1500 * ${UBDMAP_SLOW:-1}))"
try place /dev/mapper/late
came "a backing is not given up while a PLACE writes to it" place \
	"given up while it is written to" "Device or resource busy"
came "the write ends well" place "the write" "done"
came "nor while an extent points to it" place "given up while it is mapped" \
	"Device or resource busy"
came "what was placed is read" place "read" "done"
came "and it is when nobody needs it" place "given up in the end" "done"
dmsetup remove late

# --- waiting behind what is given up ---

# Without ubdm_ftab_pending() in watch_held().

try space /dev/vda
came "a flush waits behind one for which there is no space" space "flushes that wait" 2
came "which is given up in time" space "the first flush" "No space left on device"
came "then the mapper is told of the second" space "the second is delivered" "done"
came "and ends it" space "the second flush" "done"

# --- a second DETACH ---

# Without was_pinned in ubdm_dev_detach().

truncate -s 16M detach.raw
try detach detach.raw
came "want of memory takes extents that a mapper can give again" detach \
	"with a mapper all stays" "No such file or directory"
came "a device is detached" detach "detached" "done"
came "not by who is its mapper no more" detach "once more" "Stale file handle"
came "and it still loses no extent" detach "extents then" 4096
dev=$(sed -n 's,^/dev/,&,p' detach.out)
n=${dev#/dev/ubdmap}
dd if="$dev" of=detach.got bs=64k iflag=direct status=none &
reader=$!
check "so that all of it is read" until_true 30 sh -c "! kill -0 $reader"
equal "without a miss" "$(counter read_misses)" 0
timeout 60 kctl del -f "$n"
wait $reader

# --- a command that hangs ---

# Without cmd_mutex before ubdm_ctl_mutex in ubdm_dev_attach().

dmsetup create slow --table "0 $(blockdev --getsz /dev/vdb) linear /dev/vdb 0"
corners hang /dev/vda /dev/mapper/slow >hang.out 2>hang.err &
hanging=$!
state_of() {
	[ "$(ps -o state= -p $hanging)" = "$1" ]
}
until_true 20 state_of T
n=$(sed -n 's,^/dev/ubdmap,,p' hang.out)
dmsetup suspend --noflush --nolockfs slow
kill -CONT $hanging
check "a mapper's command can wait for its disk" until_true 20 state_of D
sh -c "kmap -a $n /dev/vda 2>attach.err; echo \$? >attach.rc" &
attach=$!
sleep 1
sh -c "ubdmap list >list.out; echo \$? >list.rc" &
check "with somebody who would attach meanwhile all devices are told of" \
	until_true 15 grep -qx 0 list.rc
truncate -s 1M other.raw
check "another is made" serve other.raw
sh -c "kctl del $n 2>del.err; echo \$? >del.rc" &
check "and deleted" until_true 15 grep -qx 0 del.rc
refuses "who would attach still waits" test -e attach.rc
dmsetup resume slow
check "then the command ends" until_true 20 grep -qx "given up: done" hang.out
check "and who would attach is refused" until_true 20 grep -qx 1 attach.rc
check "for the device has its mapper" grep -q "busy" attach.err
wait $attach
wait $hanging
dmsetup remove slow

# --- START and a deletion ---

# Without the look at DYING behind ubdm_wait_add() in ubdm_dev_start().

truncate -s 128M start.raw
try start start.raw
note "$(grep '^the command took' start.out)"
came "a device that is deleted while it is started goes" start "the deletion" "done"
came "with its disk" start "opened afterwards" "No such file or directory"
came "and its name can be had again" start "another of that name" "done"

# Without "dev->going" in take_back(): it is told that the deletion is off, and then its end.

try removed start.raw
came "a deletion is told to be off or to be done, not both" removed told 1
note "$(cat removed.err)"

# Without "!dev->disk_added" in ubdm_dev_chan_gone() and add_work().

try twice start.raw
came "a device is added once, whoever deletes it meanwhile and whoever starts it then" twice \
	rounds 40
note "$(cat twice.err)"

# --- each other's storage ---

# Without is_ours() in is_loop().

try mutual start.raw
came "a device may lie on another" mutual "one on another" "done"
came "which may then not lie on it" mutual "the other way round, too" \
	"Too many levels of symbolic links"

# --- a read that nobody fills ---

# Without reveals() in answer_ok(): its pages show what they had before.

truncate -s 1M reveal.raw
chmod 666 reveal.raw /dev/ubdmap
setpriv --reuid=65534 --clear-groups "$(command -v corners)" reveal "$PWD/reveal.raw" \
	>reveal.out 2>reveal.err &
revealing=$!
until_true 20 grep -q '^/dev/ubdmap' reveal.out
dev=$(sed -n 's,^/dev/,&,p' reveal.out)
timeout 60 dd if="$dev" of=reveal.got bs=4k count=1 iflag=direct status=none
came "a read is not done when nobody filled it" reveal "nothing of it filled" "Invalid argument"
came "nor if a part is missing" reveal "not all of it filled" "Invalid argument"
came "but it is with all of it" reveal "all of it filled" "done"
equal "as it was filled" "$(tr -d Z <reveal.got | wc -c) $(stat -c %s reveal.got)" "0 4096"
kill -KILL $revealing
timeout 60 kctl del -f "${dev#/dev/ubdmap}"
chmod 600 /dev/ubdmap
equal "none is left" "$(ls -d /sys/block/ubdmap* 2>/dev/null)" ""
