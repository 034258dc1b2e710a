#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 2G --timeout 5400
#
# How fast is mapped data, beside kernel loop, qemu-nbd and others, by the clock?
#
#   bench.sh [--full] [--rows REGEX] [--loads REGEX] [--mib N] [--turns N]
#            [--seconds S] [--json]
#
# What "ubdmap bench" measures, in a guest, on disks in memory: fio, io_uring, O_DIRECT,
# all rows in turns. Without --full: 4K random reads at queue depth 1 and 32 of a raw
# file on ext4, through loop with direct I/O, and through ubdmap, and of qcow2 images
# of the same content through qemu-nbd and ubdmap. With it: everything that "ubdmap
# bench" has for a file and for a disk, and what there is below that: fio's null
# engine, null_blk, brd, a file on ext4 and one on xfs; all loads, and work with files
# in a file system on each device. Status 3 where a floor is missed: ubdmap as fast
# as loop, and three times as fast as qemu-nbd.

set -euo pipefail

here=$(dirname "$(realpath "$0")")
# shellcheck source=lib.sh
. "$here/lib.sh"
# shellcheck source=../../tools/bench/measure.sh
. "$here/../../tools/bench/measure.sh"
# shellcheck source=files.sh
. "$here/files.sh"

mib=64 turns=5 seconds=2 json='' full=''
wanted='^(file: (direct|loop, direct I/O|ubdmap)|qcow2: (ubdmap, preallocated|qemu-nbd))$'
wanted_loads='^4K random reads, QD'
# By take_options.
# shellcheck disable=SC2317
option_full() {
	full=1 wanted=. wanted_loads=. turns=3 seconds=1
}
take_options "rows=wanted loads=wanted_loads mib turns seconds" "full json" "$@"

loop_floor=1 nbd_floor=3
on="disks in memory"

say() {
	[ -n "$json" ] || echo "$*"
}

work=$(mktemp -d)
trap 'set +e; cd /; undo_all; rm -rf "$work"' EXIT
interruptible

noise() {
	dd if=/dev/urandom of="$1" bs=1M count="$mib" oflag=direct status=none "${@:2}"
}

# What all else stands on.
floors_below() {
	add_row "floor: fio alone (null engine)" null
	memory_disk benchnull "$mib" memory_backed=0 discard=0
	undo_later "rmdir /sys/kernel/config/nullb/benchnull"
	contender "floor: null_blk that keeps nothing" nothing /dev/benchnull
	modprobe brd rd_nr=1 rd_size=$((mib * 1024))
	undo_later "modprobe -r brd"
	noise /dev/ram0
	contender "floor: brd" nothing /dev/ram0
	memory_disk benchxfs $((mib + 400))
	undo_later "rmdir /sys/kernel/config/nullb/benchxfs"
	mkfs.xfs -q /dev/benchxfs
	mkdir -p /tmp/benchxfs
	mount /dev/benchxfs /tmp/benchxfs
	undo_later "umount /tmp/benchxfs"
	noise /tmp/benchxfs/a.raw
	contender "floor: file on xfs" nothing /tmp/benchxfs/a.raw
}

prepare() {
	local dir=/tmp/bench

	if [ -n "$full" ]; then
		[[ ! "floor: " =~ $wanted ]] || floors_below
		memory_disk benchdisk "$mib"
		undo_later "rmdir /sys/kernel/config/nullb/benchdisk"
		noise /dev/benchdisk
		disk_contenders /dev/benchdisk "$mib"
		# dm-linear holds the disk: nothing can be mounted from it.
		memory_disk benchbare "$mib"
		undo_later "rmdir /sys/kernel/config/nullb/benchbare"
		files_on["disk: direct"]=/dev/benchbare
	fi
	memory_fs benchmem $((5 * mib + 128)) $dir
	undo_later "umount $dir; rmdir /sys/kernel/config/nullb/benchmem"
	noise $dir/a.raw
	sync
	file_contenders $dir/a.raw "$mib" $dir
}

# ratio ROW OTHER QD: how many times as fast 4K random reads are, turn by turn; the median
ratio() {
	jq --arg row "$1" --arg other "$2" --arg load "4K random reads, QD $3" '
		def of(row): .rows[] | select(.load == $load and .row == row) | .iops;
		[[of($row), of($other)] | transpose[] | .[0] / .[1]] | sort |
		(.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2 |
		. * 100 | round / 100' "$work/summary"
}

floors='[]' missed=0

# floor ROW OTHER TIMES
floor() {
	local qd is held word

	for qd in 1 32; do
		[[ -v row_of[$1] && -v row_of[$2] &&
			" ${loads[*]} " == *" 4K random reads, QD $qd "* ]] || continue
		is=$(ratio "$1" "$2" "$qd")
		held=true word=ok
		if awk "BEGIN { exit !($is < $3) }"; then
			held=false word=MISSED missed=3
		fi
		say "$(printf '%-6s QD %-3s %s: %s times %s (at least %s)' \
			"$word" "$qd" "$1" "$is" "$2" "$3")"
		floors=$(jq -n --argjson all "$floors" --arg row "$1" --arg than "$2" \
			--argjson qd "$qd" --argjson times "$is" \
			--argjson wanted "$3" --argjson held $held \
			'$all + [$ARGS.named | del(.all)]')
	done
}

prepare
choose_loads "$wanted_loads"
choose_engine /tmp/bench/a.raw
touch_rows
for ((turn = 0; turn < turns; turn++)); do
	measure_turn || { echo "$why" >&2; exit 1; }
done
if [ -n "$full" ]; then
	for ((turn = 0; turn < turns; turn++)); do
		files_turn "$wanted_loads" || { echo "$why" >&2; exit 1; }
	done
fi
summary >"$work/summary"
if [ -z "$json" ]; then
	"$here/../../tools/bench/table.sh" "$work/summary"
	echo
fi
floor "file: ubdmap" "file: loop, direct I/O" $loop_floor
floor "qcow2: ubdmap, preallocated" "qcow2: qemu-nbd" $nbd_floor
[ -z "$json" ] || jq --argjson floors "$floors" '. + { floors: $floors }' "$work/summary"
exit $missed
