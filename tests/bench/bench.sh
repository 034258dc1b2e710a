#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --timeout 900
#
# How fast are reads of mapped data, beside kernel loop and qemu-nbd?
#
#   bench.sh [--mib N] [--turns N] [--seconds S] [--json]
#
# fio, io_uring, O_DIRECT, 4K random reads at queue depth 1 and 32, of a file on
# ext4 on a disk in memory. A raw file goes by itself, through loop with direct
# I/O, and through ubdmap; a qcow2 of the same content through qemu-nbd and
# through ubdmap, all of it read once before. Status 3 where a floor is missed:
# ubdmap as fast as loop, and three times as fast as qemu-nbd.

set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$(realpath "$0")")/lib.sh"

mib=64 turns=5 seconds=2 json=''
while [ $# -gt 0 ]; do
	case $1 in
	--mib) mib=$2; shift ;;
	--turns) turns=$2; shift ;;
	--seconds) seconds=$2; shift ;;
	--json) json=1 ;;
	*) sed -n '5,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

depths=(1 32)
loop_floor=1 nbd_floor=3

say() {
	[ -n "$json" ] || echo "$*"
}

undo=:
at_end() {
	undo="$*; $undo"
}
trap 'set +e; eval "$undo" >/dev/null 2>&1' EXIT

prepare() {
	local dir=/tmp/bench dev

	memory_fs benchmem $((3 * mib + 64)) $dir
	at_end "umount $dir; rmdir /sys/kernel/config/nullb/benchmem"
	dd if=/dev/urandom of=$dir/a.raw bs=1M count="$mib" status=none
	qemu-img convert -f raw -O qcow2 $dir/a.raw $dir/a.qcow2
	sync

	add_row "raw: the file itself" $dir/a.raw

	modprobe loop
	dev=$(losetup --direct-io=on --find --show $dir/a.raw)
	at_end "losetup -d $dev"
	add_row "raw: loop, direct I/O" "$dev"

	dev=$(ubdmap add --read-only $dir/a.raw)
	at_end "ubdmap del $dev"
	add_row "raw: ubdmap" "$dev"

	modprobe nbd
	qemu-nbd --read-only -f qcow2 --cache=none --aio=io_uring \
		--connect=/dev/nbd0 $dir/a.qcow2
	at_end "qemu-nbd -d /dev/nbd0; sleep 1"
	add_row "qcow2: qemu-nbd" /dev/nbd0

	dev=$(ubdmap add --read-only $dir/a.qcow2)
	at_end "ubdmap del $dev"
	add_row "qcow2: ubdmap" "$dev"
}

print_table() {
	local row qd

	echo
	printf '%-24s' "4K random reads, IOPS"
	printf ' %12s' "${depths[@]/#/QD }"
	echo
	for row in "${rows[@]}"; do
		printf '%-24s' "$row"
		for qd in "${depths[@]}"; do
			printf ' %12s' "$(median_iops "$row" "$qd")"
		done
		echo
	done
	echo
}

print_json() {
	local row qd

	for row in "${rows[@]}"; do
		for qd in "${depths[@]}"; do
			# shellcheck disable=SC2086  # numbers
			jq -n --arg row "$row" --argjson qd "$qd" \
				--argjson median "$(median_iops "$row" "$qd")" \
				'$ARGS.named + { iops: $ARGS.positional }' \
				--jsonargs ${iops_of[$row/$qd]}
		done
	done | jq -s --arg kernel "$(uname -r)" \
		--arg guest "${UBDMAP_GUEST:-none}" --argjson cpus "$(nproc)" \
		--argjson seconds "$seconds" --argjson floors "$floors" \
		'$ARGS.named + { job: "4K random reads, io_uring, O_DIRECT", rows: . }'
}

floors='[]' missed=0

# floor ROW OTHER TIMES
floor() {
	local qd is held word

	for qd in "${depths[@]}"; do
		is=$(ratio "$1" "$2" "$qd")
		held=true word=ok
		if ! at_least "$is" "$3"; then
			held=false word=MISSED missed=3
		fi
		[ -n "$json" ] ||
			printf '%-6s QD %-3s %s: %s times %s (at least %s)\n' \
				"$word" "$qd" "$1" "$is" "${2#*: }" "$3"
		floors=$(jq -n --argjson all "$floors" --arg row "$1" --arg than "$2" \
			--argjson qd "$qd" --argjson times "$is" \
			--argjson wanted "$3" --argjson held $held \
			'$all + [$ARGS.named | del(.all)]')
	done
}

prepare
say "$(uname -r), ${UBDMAP_GUEST:-}, $(nproc) CPUs; medians of $turns turns of $seconds s each"
for row in "${rows[@]}"; do
	touch_all "${row_of[$row]}"
done
for ((turn = 0; turn < turns; turn++)); do
	one_turn "${depths[*]}" "runtime=$seconds"
done

[ -n "$json" ] || print_table
floor "raw: ubdmap" "raw: loop, direct I/O" $loop_floor
floor "qcow2: ubdmap" "qcow2: qemu-nbd" $nbd_floor
[ -z "$json" ] || print_json
exit $missed
