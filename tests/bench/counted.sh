#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --icount --mem 1G --timeout 900
#
# How many instructions does a read of mapped data take?
#
#   counted.sh [--ms N] [--json]
#
# In a guest whose clock counts instructions (one CPU, repeatable to about 1 %,
# whatever else the machine does), with fio's own share, for 4K random reads at
# queue depth 1 and 32, io_uring, O_DIRECT, on a null_blk disk that keeps data
# in memory and completes at once, for MS milliseconds of guest time (300) each. Wake-ups across CPUs are what this cannot
# show; bench.sh can.

set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$(realpath "$0")")/lib.sh"

ms=300 json=''
while [ $# -gt 0 ]; do
	case $1 in
	--ms) ms=$2; shift ;;
	--json) json=1 ;;
	*) sed -n '5,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

if [ "${UBDMAP_GUEST#* }" != icount ]; then
	echo "counted.sh wants a guest with --icount: tests/run --show $0" >&2
	exit 2
fi

depths=(1 32)

# On a disk, and each over that; then the same on a file.
on_disk() {
	local dev

	memory_disk benchraw 64
	dd if=/dev/urandom of=/dev/benchraw bs=1M count=64 oflag=direct status=none
	add_row "disk (null_blk)" /dev/benchraw
	modprobe dm_mod
	dmsetup create --noudevsync benchlinear --table "0 131072 linear /dev/benchraw 0"
	add_row "disk: dm-linear" /dev/dm-0
	dev=$(losetup --direct-io=on --find --show /dev/benchraw)
	add_row "disk: loop" "$dev"
	dev=$(ubdmap add --read-only -f raw /dev/benchraw)
	add_row "disk: ubdmap" "$dev"
}

on_file() {
	local dir=/tmp/bench dev

	memory_fs benchmem 256 $dir
	dd if=/dev/benchraw of=$dir/a.raw bs=1M status=none
	qemu-img convert -f raw -O qcow2 $dir/a.raw $dir/a.qcow2
	sync
	add_row "file (ext4)" $dir/a.raw
	dev=$(losetup --direct-io=on --find --show $dir/a.raw)
	add_row "file: loop" "$dev"
	dev=$(ubdmap add --read-only $dir/a.raw)
	add_row "file: ubdmap" "$dev"
	dev=$(ubdmap add --read-only $dir/a.qcow2)
	add_row "qcow2: ubdmap" "$dev"
	qemu-nbd --read-only -f qcow2 --cache=none --aio=io_uring \
		--connect=/dev/nbd0 $dir/a.qcow2
	add_row "qcow2: qemu-nbd" /dev/nbd0
}

# instructions ROW QD
instructions() {
	awk "BEGIN { printf \"%.0f\n\", 1e9 / $(median_iops "$1" "$2") }"
}

print_table() {
	local row qd is floor

	printf '%-24s' "instructions per read"
	printf ' %11s         ' "${depths[@]/#/QD }"
	echo
	for row in "${rows[@]}"; do
		[[ $row = *:* ]] || floor=$row
		printf '%-24s' "$row"
		for qd in "${depths[@]}"; do
			is=$(instructions "$row" "$qd")
			if [ "$row" = "$floor" ]; then
				printf ' %11d %8s' "$is" ""
			else
				printf ' %11d (%+6d)' "$is" \
					$((is - $(instructions "$floor" "$qd")))
			fi
		done
		echo
	done
}

print_json() {
	local row qd

	for row in "${rows[@]}"; do
		for qd in "${depths[@]}"; do
			jq -n --arg row "$row" --argjson qd "$qd" \
				--argjson instructions "$(instructions "$row" "$qd")" \
				'$ARGS.named'
		done
	done | jq -s --arg kernel "$(uname -r)" --argjson ms "$ms" \
		'$ARGS.named + { job: "4K random reads, io_uring, O_DIRECT", rows: . }'
}

modprobe loop
modprobe nbd
on_disk
on_file
for row in "${rows[@]}"; do
	touch_all "${row_of[$row]}"
done
one_turn "${depths[*]}" runtime=50ms
iops_of=()
one_turn "${depths[*]}" "runtime=${ms}ms"
if [ -n "$json" ]; then
	print_json
else
	print_table | sed 's/ *$//'
fi
