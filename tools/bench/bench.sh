#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# What "ubdmap bench" starts once it has looked at the arguments (cmd_bench.c).
#
#   bench.sh TARGET KIND MIB SECONDS TURNS ROWS LOADS FORMAT SVG
#
# KIND: new (a file to be made, and removed in the end), empty (to be emptied again),
# file or disk. FORMAT: table or json. SVG: a file, or nothing. In the environment:
# UBDMAP, the program. Ends with 1 and a line on stderr if something fails, with 143
# after SIGTERM; what it made is gone then.

set -euo pipefail

here=$(dirname "$(realpath "$0")")
target=$1 kind=$2 mib=$3 seconds=$4 turns=$5 wanted=$6 wanted_loads=$7 format=$8 svg=$9

# shellcheck source=stack.sh
. "$here/stack.sh"
# shellcheck source=contenders.sh
. "$here/contenders.sh"
# shellcheck source=measure.sh
. "$here/measure.sh"

give_up() {
	echo "ubdmap: $*" >&2
	exit 1
}

# For somebody who waits.
progress() {
	[ ! -t 2 ] || printf '\r\033[K%s' "$*" >&2
}

finish() {
	local status=$?

	set +e
	progress
	undo_all
	exit $status
}

# Noise. Past the page cache, as what is measured.
fill() {
	patiently dd if=/dev/urandom of="$target" bs=1M count="$mib" iflag=fullblock \
		oflag=direct conv=notrunc,fsync status=none 2>"$work/said" ||
		give_up "writing to $target: $(tail -n 1 "$work/said")"
}

prepare_target() {
	local folder

	folder=$(dirname "$target")
	case $kind in
	new)
		(set -C && : >"$target") 2>/dev/null || give_up "cannot create $target"
		undo_later "rm -f ${target@Q}"
		;;
	empty) undo_later "truncate -s 0 ${target@Q}" ;;
	esac
	if [ "$kind" = new ] || [ "$kind" = empty ]; then
		room "$folder" "$mib" || give_up "$target: $why; see --size"
	fi
	progress "filling $target"
	fill
	[ "$kind" != disk ] || { disk_contenders "$target" "$mib"; return; }
	images=$(mktemp -d "$folder/ubdmap-bench.XXXXXX")
	undo_later "rm -rf ${images@Q}"
	file_contenders "$target" "$mib" "$images"
}

for tool in fio jq; do
	has $tool || give_up "$why; bench measures with it"
done
trap finish EXIT
interruptible
work=$(mktemp -d)
undo_later "rm -rf ${work@Q}"

# Before minutes are spent.
[ -z "$svg" ] || [ -w "$svg" ] || { [ ! -e "$svg" ] && [ -w "$(dirname "$svg")" ]; } ||
	give_up "cannot write $svg"
choose_loads "$wanted_loads"
[ ${#loads[@]} -gt 0 ] || give_up "no load has '$wanted_loads' in its name"
prepare_target
if [ ${#rows[@]} = 0 ]; then
	why=${skipped[0]-"no row has '$wanted' in its name"}
	give_up "nothing to measure: ${why/$'\t'/: }"
fi
choose_engine "$target" || give_up "fio: $why"
touch_rows
for ((turn = 1; turn <= turns; turn++)); do
	progress "turn $turn of $turns, $((seconds * ${#rows[@]} * ${#loads[@]})) s"
	measure_turn || give_up "$why"
done

on=$(findmnt -n -o FSTYPE -T "$target") || on='a file'
[ "$kind" != disk ] || on=$target
summary >"$work/summary"
progress
if [ -n "$svg" ]; then
	timed_chart "$work/summary" >"$svg" || give_up "cannot write $svg"
fi
if [ "$format" = json ]; then
	cat "$work/summary"
else
	"$here/table.sh" "$work/summary"
fi
