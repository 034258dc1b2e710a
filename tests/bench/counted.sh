#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --icount --mem 1G --timeout 3600
#
# How many instructions does a 4K read or write of mapped data take?
#
#   counted.sh [--full | --guard] [--rows REGEX] [--ops "read write"]
#              [--completions "inline timer"] [--ms N] [--turns N] [--json]
#
# In a guest whose clock counts instructions (one CPU, repeatable to about 1 %,
# whatever else the machine does), with fio's own share: io_uring, O_DIRECT, 4K at
# random places, queue depth 1 and 32. The clock also runs while the CPU waits
# for a disk; that time is taken off. Storage is a null_blk disk that completes
# at once (inline) or by a timer's interrupt after 10 us (timer). Without
# options: reads, inline, the rows that "make bench" shows. --full: everything.
# --guard: the rows of "make check-perf". Wake-ups across CPUs are what this
# cannot show; bench.sh can. See docs/performance.md.

set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$(realpath "$0")")/lib.sh"
# shellcheck source=rows.sh
. "$(dirname "$(realpath "$0")")/rows.sh"

ms=300 turns=1 json='' ops=read completions=inline
wanted='^(disk: |file: (direct|loop|ubdmap)|qcow2: (ubdmap, preallocated|qemu-nbd))'
while [ $# -gt 0 ]; do
	case $1 in
	--full) wanted=. ops="read write" completions="inline timer" turns=3 ;;
	--guard)
		wanted='^(disk: (raw|ubdmap)|file: (direct|ubdmap)|qcow2: ubdmap, thin)'
		wanted+='|^zero: ubdmap'
		ops="read write" completions="inline timer"
		;;
	--rows) wanted=$2; shift ;;
	--ops) ops=$2; shift ;;
	--completions) completions=$2; shift ;;
	--ms) ms=$2; shift ;;
	--turns) turns=$2; shift ;;
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
work=$(mktemp -d)
trap 'set +e; undo_all; rm -rf "$work"' EXIT

# fio alone in a scheduling group of its own would pay for the group with each
# switch to a kernel thread and back, and the kernel threads' users with it.
sysctl -q kernel.sched_autogroup_enabled=0

# write_jobs OP MS: a fio job file, every row once at every depth.
#
# Registered files and buffers, and 16 requests for each system call at depth
# 32, keep fio's own share small. To wait for four completions at once makes the
# rows with a worker repeatable: with one, whether worker and fio take turns for
# each request or for many is the scheduler's mood.
write_jobs() {
	local qd row

	printf '%s\n' "[global]" ioengine=io_uring direct=1 "rw=rand$1" bs=4k \
		norandommap randrepeat=0 gtod_reduce=1 fixedbufs=1 registerfiles=1 \
		scramble_buffers=0 time_based stonewall "runtime=${2}ms"
	for qd in "${depths[@]}"; do
		for row in "${active[@]}"; do
			printf '%s\n' "[$row]" "filename=${row_of[$row]}" "iodepth=$qd"
			[ "$qd" = 1 ] || printf '%s\n' iodepth_batch_submit=16 \
				iodepth_batch_complete_min=4 \
				"iodepth_batch_complete_max=$qd"
		done
	done
}

# The guest's clock in the midst of a job, how much of it the CPU was idle, and
# what the row's disk has completed: from two of these comes what an I/O takes,
# without fio's start and end and to the nanosecond. All with what bash has in
# itself: a fork, or a program from the host's file system, would disturb.
mkfifo "$work/never"
exec 9<>"$work/never"

pause() {
	read -rt "$1" -u 9 || :
}

# ios_of STAT: reads and writes that were completed, to $ios
ios_of() {
	local -a f

	read -ra f <"$1"
	ios=$((f[0] + f[4]))
}

# sample STAT: to $lines and $ios; parsing it can wait until the job's end
sample() {
	mapfile -t lines </proc/timer_list
	ios_of "$1"
}

# The clock without the time the CPU was idle, from $lines, to $busy.
busy_of() {
	local line

	busy=0
	for line in "${lines[@]}"; do
		case $line in
		"now at "*) line=${line#now at }; busy=${line%% *} ;;
		*idle_sleeptime*) line=${line##*: }; busy=$((busy - ${line%% *})) ;;
		*iowait_sleeptime*) line=${line##*: }; busy=$((busy - ${line%% *})); break ;;
		esac
	done
}

# Wait until what is counted in $1 moves (or, with $2, no longer does).
await() {
	local was ios

	ios_of "$1"
	while kill -0 "$fio" 2>/dev/null; do
		was=$ios
		pause 0.004
		ios_of "$1"
		if [ -n "${2:-}" ]; then
			[ $ios != "$was" ] || return 0
		else
			[ $((ios - was)) -lt 30 ] || return 0
		fi
	done
	return 1
}

# one_run OP MS: lines of ROW <tab> QD <tab> instructions for each I/O
one_run() {
	local row qd stat fio ios before busy busy0 all=()
	local -a lines first
	local -a active=()

	for row in "${rows[@]}"; do
		[ "$1" = write ] && [ -n "${read_only[$row]:-}" ] || active+=("$row")
	done
	[ ${#active[@]} -gt 0 ] || return 0
	write_jobs "$1" "$2" >"$work/job"
	fio --output="$work/out" "$work/job" &
	fio=$!
	for qd in "${depths[@]}"; do
		for row in "${active[@]}"; do
			stat=${stat_of[$row]}
			await "$stat" || break 2
			pause 0.03
			sample "$stat"
			before=$ios first=("${lines[@]}")
			pause "$(printf '0.%03d' $(($2 - 60)))"
			sample "$stat"
			before=$((ios - before))
			await "$stat" stopped || :
			busy_of
			busy0=$busy lines=("${first[@]}")
			busy_of
			all+=("$row	$qd	$((busy0 - busy))	$before")
		done
	done
	if ! wait $fio || [ ${#all[@]} != $((${#active[@]} * ${#depths[@]})) ]; then
		cat "$work/out" >&2
		exit 1
	fi
	printf '%s\n' "${all[@]}" | awk -F '\t' '{ printf "%s\t%s\t%f\n", $1, $2, $3 / $4 }'
}

results=$work/results.json
: >"$results"

# measure OP COMPLETION: after a short run for what happens only once
measure() {
	local turn

	one_run "$1" 100 >/dev/null
	for ((turn = 0; turn < turns; turn++)); do
		one_run "$1" "$ms"
	done | jq -R --arg op "$1" --arg completion "$2" '
		split("\t") | { row: .[0], op: $op, completion: $completion,
				qd: (.[1] | tonumber), is: (.[2] | tonumber) }' >>"$results"
}

# A row is compared with what it stands on: the raw disk or the file itself.
summary() {
	jq -s --argjson order "$(printf '%s\n' "${order[@]}" | jq -R . | jq -s .)" \
		--arg kernel "$(uname -r)" --arg fio "$(fio --version)" --argjson ms "$ms" --argjson turns "$turns" '
	def floor_of: if startswith("disk") then "disk: raw"
		elif startswith("bare") then "bare: raw"
		elif startswith("zero") then "disk: raw" else "file: direct" end;
	def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
	group_by([.completion, .op, .row, .qd]) | map(.[0] + {
		instructions: (map(.is) | median | round),
		min: (map(.is) | min | round), max: (map(.is) | max | round) } | del(.is)) |
	(map({ key: "\(.completion)/\(.op)/\(.qd)/\(.row)", value: .instructions }) |
		from_entries) as $all |
	map($all["\(.completion)/\(.op)/\(.qd)/\(.row | floor_of)"] as $floor |
		. + { floor: (.row | floor_of),
		      added: (if $floor then .instructions - $floor else null end) }) |
	sort_by([.completion, .op, (.row as $r | $order | index($r)), .qd]) |
	{ job: "4K at random, io_uring, O_DIRECT", unit: "instructions for each I/O",
	  kernel: $kernel, fio: $fio, ms: $ms, turns: $turns, rows: . }' "$results"
}

order=()
for completion in $completions; do
	rows=() row_of=()
	prepare_rows "$completion"
	order=("${rows[@]}")
	for op in $ops; do
		measure "$op" "$completion"
	done
	undo_all
done
if [ -n "$json" ]; then
	summary
else
	summary >"$work/summary.json"
	"$(dirname "$0")/show.sh" "$work/summary.json"
fi
