#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 512M --disk 64M --timeout 180
#
# A FLUSH that the kernel serves alone, while the mapper has another that it has
# not answered: what was written before both is not durable yet. The mapper here
# commits, so that nothing needs it, and never answers.
#
# Seen to fail without ubdm_ftab_flush_waits() in needs_sync().

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"

flushes() {
	awk '{ print $16 }' /sys/block/vda/stat
}

tid() {
	ubdmap stat --json "$dev" | sed -n "s/^ *\"$1_tid\": \([0-9]*\).*/\1/p"
}

committed() {
	[ "$(tid committed)" -ge "$(tid max)" ]
}

serve -p -W /dev/vda
dd if=/dev/zero of="$dev" bs=64k count=1 oflag=direct status=none
refuses "a write leaves something to commit" committed
sync "$dev" &
first=$!
check "a flush has it committed" until_true 10 committed
check "and waits for its answer" kill -0 $first
before=$(flushes)
check "another flush does not wait" timeout 20 sync "$dev"
check "but is not over before the disk was flushed" test "$(flushes)" -gt "$before"
check "the first one still waits" kill -0 $first
timeout 60 kctl del -f "$n"
wait $first || note "which ended with an error, as it had to"
