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
option_full() {
	wanted=. ops="read write" completions="inline timer" turns=3
}
option_guard() {
	wanted='^(disk: (raw|ubdmap)|file: (direct|ubdmap)|qcow2: ubdmap, thin)|^(zero|null): ubdmap|^miss: '
	ops="read write" completions="inline timer"
}
take_options "rows=wanted ops completions ms turns" "full guard json" "$@"

# shellcheck source=icount.sh
. "$(dirname "$(realpath "$0")")/icount.sh"
trap 'set +e; undo_all; rm -rf "$work"' EXIT

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
		--arg kernel "$(uname -r)" --arg fio "$(fio --version)" --argjson ms "$ms" --argjson turns "$turns" \
		--arg skipped "$(printf '%s\n' "${skipped[@]}")" '
	def floor_of: if startswith("disk") then "disk: raw"
		elif startswith("bare") or startswith("miss") then "bare: raw"
		elif startswith("zero") then "disk: raw"
		elif startswith("null") then . else "file: direct" end;
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
	  kernel: $kernel, fio: $fio, ms: $ms, turns: $turns, rows: .,
	  skipped: [$skipped | split("\n")[] | select(. != "") | split("\t") |
		{ row: .[0], why: .[1] }] }' "$results"
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
