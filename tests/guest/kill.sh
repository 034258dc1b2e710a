#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 2G --timeout 600
#
# Mappers that die at any moment under load: nobody above the device notices.
# KILLS=N (24) kills them N times.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio qemu-img killer

kills=${KILLS:-24}
work_on /dev/vda

# A base with data below, some of it compressed; an image over it.
data base.raw 8
qemu-img convert -c -O qcow2 base.raw base.qcow2
rm base.raw
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 a.qcow2 128M
dev=$(ubdmap add a.qcow2)

# --- under load ---

# What is mapped is read all the time, the rest is changed in every way.
dd if=/dev/urandom of="$dev" bs=1M seek=12 count=2 oflag=direct status=none
sync "$dev"
fio --output=load.out --output-format=terse --terse-version=3 \
	--filename="$dev" --direct=1 --ioengine=libaio --time_based --runtime=600 \
	--name=hits --offset=12M --size=2M --rw=randread --bs=4k --rate_iops=200 \
	>/dev/null 2>&1 &
hits=$!

# verified ARG...: rounds of writes that are read back, until told to end
verified() {
	while [ ! -e enough ]; do
		fio --filename="$dev" --direct=1 --ioengine=libaio --iodepth=8 \
			--verify=crc32c --verify_fatal=1 --verify_backlog=256 \
			--randrepeat=0 --norandommap=0 "$@" || return 1
	done
}
verified --name=partial --offset=0 --size=1M --rw=randwrite --bsrange=512-16k \
	--blockalign=512 --fsync=32 >partial.out 2>&1 &
partial=$!
verified --name=whole --offset=16M --size=4M --rw=randwrite \
	--bs=64k --fdatasync=16 >whole.out 2>&1 &
whole=$!
discards() {
	i=0
	while [ ! -e enough ]; do
		i=$(((i + 7) % 16))
		blkdiscard -o $(((24 + i) << 20)) -l 1M "$dev" || return 1
		dd if=/dev/urandom of=piece bs=64k count=4 status=none
		dd if=piece of="$dev" bs=64k seek=$(((24 + i) * 16 + 3)) oflag=direct \
			status=none || return 1
		dd if="$dev" bs=64k skip=$(((24 + i) * 16 + 3)) count=4 iflag=direct \
			status=none | cmp - piece || return 1
	done
}
discards >discards.out 2>&1 &
discards=$!
flushes() {
	while [ ! -e enough ]; do
		sync "$dev" || return 1
		sleep 0.1
	done
}
flushes >flushes.out 2>&1 &
flushes=$!

sleep 2
check "a new mapper serves in under a second (the median of $kills)" \
	sh -c "killer $dev $kills 50 1200 >killed"
note "$(cat killed)"
touch enough
check "partial writes and their verification saw no error" wait $partial
check "nor did writes of whole clusters" wait $whole
check "nor discards and reads of what was written there" wait $discards
check "nor flushes" wait $flushes
check "nor reads of what is mapped" kill -0 $hits
kill -INT $hits
wait $hits
check "hits go on while there is no mapper" \
	sh -c '[ "$(sed "s/.*hits_while_dead //" killed)" -gt 0 ]'
equal "nothing waits" "$(ubdmap stat "$dev" | awk '/waiting now/ { print $NF }')" 0
equal "no request failed" "$(ubdmap stat "$dev" | awk '/requests failed/ { print $NF }')" 0
dd if="$dev" of=after.raw bs=1M count=40 iflag=direct status=none
check "it is deleted" ubdmap del "$dev"
check "the image is sound and leaks nothing" qemu-img check a.qcow2
qemu-img convert -O raw a.qcow2 image.raw
check "and holds what the device showed" cmp -n 41943040 after.raw image.raw
check "no process is left" until_true 10 no_mapper
rm -f after.raw image.raw enough

# --- what was acknowledged and not flushed ---

dev=$(ubdmap add a.qcow2)
dd if=/dev/urandom of=late bs=64k count=64 status=none
for i in 1 2 3; do
	dd if=late of="$dev" bs=64k seek=$((700 + i * 100)) oflag=direct status=none
	m=$(field mapper "$dev")
	kill -KILL "$m"
done
# One that was killed is the device's mapper for a moment more.
another() {
	is_state live && [ "$(field mapper "$dev")" != "$m" ]
}
check "another mapper comes" until_true 10 another
check "writes that were not flushed are still there" sh -c "
	for i in 1 2 3; do
		dd if=$dev bs=64k skip=\$((700 + i * 100)) count=64 iflag=direct status=none |
			cmp - late || exit 1
	done"

# --- nobody keeps it ---

m=$(field mapper "$dev")
k=$(keeper_of "$m")
kill -KILL "$k" "$m"
check "without its keeper a device is orphaned" until_true 5 is_state orphaned
dd if="$dev" of=/dev/null bs=64k count=1 skip=1500 iflag=direct status=none &
miss=$!
rc1=0 rc2=0
ubdmap attach "$dev" >one.out 2>one.err &
one=$!
ubdmap attach "$dev" >two.out 2>two.err || rc2=$?
wait $one || rc1=$?
equal "of two mappers that attach at once one wins, the other is told" \
	"$(printf '%s\n' $rc1 $rc2 | sort | tr '\n' ' ')" "0 4 "
equal "in one line" "$(cat one.err two.err)" "ubdmap: $dev: has a mapper; nothing to do"
check "what waited goes on" wait $miss

kill -KILL "$(keeper_of "$(field mapper "$dev")")" "$(field mapper "$dev")"
until_true 5 is_state orphaned
chmod 666 /dev/ubdmap
rc=0
setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" attach "$dev" 2>err || rc=$?
equal "who does not own a device cannot attach to it" "$rc $(grep -c "somebody else's" err)" "6 1"
chmod 600 /dev/ubdmap
check "its owner still can" ubdmap attach "$dev"
check "it is live" is_state live

# --- ends of other kinds ---

m=$(field mapper "$dev")
kill -ABRT "$m"
check "a mapper that crashes is replaced too" until_true 10 another
m=$(field mapper "$dev")
k=$(keeper_of "$m")
kill -TERM "$k"
check "a keeper that is asked to end takes an unused device along" \
	until_true 10 sh -c "! ubdmap list $dev"
check "and no process is left" until_true 10 no_mapper
check "nor an error in the image" qemu-img check a.qcow2
