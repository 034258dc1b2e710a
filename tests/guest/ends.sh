#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 256M --timeout 400
#
# Ends at the wrong moment: deletion at every stage of a device's making, while
# udev and the partition scan wait for a mapper that is stopped, rings that are
# closed, channels that are stopped, and mappers that go on when another is.
# CYCLES=N (1000) devices are made and deleted, ROUNDS=N (300) rings closed.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires qemu-img parted udevadm stages stale rings

work_on /dev/vda

told() {
	while read -r line; do
		note "$line"
	done <"$tap_log"
}

# --- commands of a predecessor ---

# Fails without the comparison of cookies in ubdm_ftab_find(), without dev->epoch++
# in ubdm_dev_attach(), and without served() in run().

dd if=/dev/zero of=stale.raw bs=1M count=1 status=none
check "what a mapper says after another has attached is refused and changes nothing" \
	timeout 200 stale stale.raw
told

# --- rings that end, FETCHes that are cancelled ---

# Both fail if ubdm_ftab_requeue() leaves out what was DELIVERED.

python3 - <<'END'
with open("rings.raw", "wb") as f:
    for i in range(4096):
        f.write(i.to_bytes(8, "little") * 64)
END
rounds=${ROUNDS:-300}
check "no miss is lost when rings end with none, some or all FETCHes armed" \
	timeout 300 rings close "$rounds" rings.raw
told
check "nor when STOP cancels FETCHes while they complete" \
	timeout 300 rings stop "$rounds" rings.raw
told

# --- every stage, in parallel ---

truncate -s 1M stages.raw
cycles=${CYCLES:-$((1000 / ${UBDMAP_SLOW:-1}))}
check "devices are deleted at every stage of their making, $cycles of them" \
	timeout 300 stages -j 4 "$cycles" stages.raw
told
equal "none is left" "$(ls -d /sys/block/ubdmap* 2>/dev/null)" ""

# --- udev and the partition scan, and a mapper that is stopped ---

/lib/systemd/systemd-udevd --daemon 2>/tmp/udev.err
cleanup "udevadm control --exit"
truncate -s 64M disk.raw
parted -s disk.raw mklabel gpt mkpart one 1MiB 31MiB mkpart two 31MiB 63MiB
truncate -s 1M beside.raw

parked() {
	[ "$(counter parked)" -gt 0 ]
}
# Another device comes and goes, with events for udev.
beside() {
	kmap beside.raw >beside.out 2>&1 &
	beside=$!
	until_true 20 grep -q '^/dev/ubdmap' beside.out || return 1
	dd if="$(cat beside.out)" of=/dev/null bs=64k count=2 iflag=direct || return 1
	timeout 60 kctl del "$(sed 's/[^0-9]*//' beside.out)" && wait $beside
}

qemu-img convert -f raw -O qcow2 disk.raw disk.qcow2
# Stops itself as soon as the device is there.
serve -P -s live disk.raw
check "the scan for partitions waits for a mapper that is stopped" until_true 20 parked
check "which does not hold up other devices" beside
check "nor questions" timeout 10 kctl state "$n"
kill -CONT "$mapper"
check "when it goes on there are the partitions" until_true 30 test -b "${dev}p2"
udevadm settle --timeout=60
check "and data" timeout 20 cmp -n 4194304 disk.raw "$dev"
check "it is deleted" until_true 20 kctl del "$n"
check "and nothing is left" until_true 20 gone "$n"

# By force, which gives the mapper half a minute; three at a time, therefore.
stalled() {
	serve -P -s live disk.raw && until_true 20 parked
}
stalled
forced=$n mappers=$mapper
# One who asks politely waits for the scan, and must not keep others from force.
# Fails if ubdm_dev_delete() leaves it to del_work to let go of what is parked.
stalled
polite=$n mappers="$mappers $mapper"
timeout 100 kctl del "$polite" >polite.out 2>&1 &
asked=$!
dev=$(ubdmap add -P disk.qcow2)
n=${dev#/dev/ubdmap}
m=$(field mapper "$dev")
kill -STOP "$m"
sleep 1
timeout 90 kctl del -f "$forced" >forced.out 2>&1 &
one=$!
timeout 90 kctl del -f "$polite" >forced2.out 2>&1 &
two=$!
# Fails with mod_delayed_work() in queue_remove_later(): each time it has half a minute anew.
while kctl state "$forced" >/dev/null 2>&1; do
	command timeout 1 kctl del -f "$forced" 2>/dev/null
done &
again=$!
timeout 90 kctl del -f "$n" >forced3.out 2>&1 &
three=$!
check "by force it goes while its mapper is stopped, however often one asks" wait $one
check "also after somebody has asked without" wait $two
check "and so does one of the command's mapper" wait $three
check "nothing is left of any" sh -c "! ls /dev/ubdmap[0-9]* 2>/dev/null"
wait $again
wait $asked
note "who asked without: status $?, $(cat polite.out)"
# shellcheck disable=SC2086  # words
kill -CONT $mappers "$m"
# shellcheck disable=SC2086  # words
wait $mappers
check "no mapper is left" until_true 30 no_mapper
check "udev gets over it" udevadm settle --timeout=60

# Stopped from outside, at whatever udev reads just then, and with a write that misses.
stopped_from_outside() {
	for _ in 1 2 3; do
		dev=$(ubdmap add -P disk.qcow2) || return 1
		n=${dev#/dev/ubdmap}
		m=$(field mapper "$dev")
		kill -STOP "$m"
		dd if=/dev/zero of="$dev" bs=64k count=1 seek=600 oflag=direct &
		writer=$!
		until_true 20 parked && beside || return 1
		kill -CONT "$m"
		wait $writer || return 1
		until_true 30 test -b "${dev}p2" || return 1
		udevadm settle --timeout=60
		cmp -n 4194304 disk.raw "$dev" || return 1
		until_true 30 ubdmap del "$dev" || return 1
	done
}
check "a mapper that is stopped and goes on, three times" stopped_from_outside
check "its image is sound" qemu-img check -q disk.qcow2

udevadm control --exit
cd /
check "nothing of any device is left, so the module can go" until_true 20 rmmod ubdmap
