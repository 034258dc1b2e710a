#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --icount --mem 1G --timeout 3600
#
# What extents cost when there are many: to install one, in bytes, in a hit, and
# when there is no room for all.
#
#   scale.sh [--parts "map hit sweep"] [--nr N] [--ms N] [--json]
#
# In a guest whose clock counts instructions, with a mapper that knows no format
# (tests/tools/kscale.c) on a null_blk disk that keeps nothing and completes at
# once. Every 4 KiB block is an extent; N of them (1,000,000).
#
#   map     instructions for an extent of a MAP, all of it from the system call
#           to its result, and the memory that the TLB then has for each
#   hit     a read at random, beside the same with 1,000 extents
#   sweep   reads at random with room for a part of the blocks only: the others
#           are evicted, and their next read asks the mapper for this one block

set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$(realpath "$0")")/lib.sh"
# shellcheck source=rows.sh
. "$(dirname "$(realpath "$0")")/rows.sh"

nr=1000000 ms=200 json='' parts="map hit sweep"
take_options "parts nr ms" json "$@"

# shellcheck source=icount.sh
. "$(dirname "$(realpath "$0")")/icount.sh"
trap 'set +e; undo_all; rm -rf "$work"' EXIT

results=$work/results.json
: >"$results"

# serve KSCALE-ARG...: dev, n, and in the file out what it said
serve() {
	out=$work/kscale
	: >"$out"
	kscale "$@" /dev/benchscale >"$out" 2>&1 &
	until grep -q '^/dev/' "$out"; do
		kill -0 $! || { cat "$out" >&2; return 1; }
		pause 0.05
	done
	dev=$(grep '^/dev/' "$out")
	n=${dev#/dev/ubdmap}
}

# Nodes are 2 KiB each; what else takes such memory does not change much here.
node_bytes() {
	awk '/^kmalloc-2k/ { print $2 * $4 }' /proc/slabinfo
}

# tell OBJECT-FIELD...
tell() {
	jq -nc "{ $* }" >>"$results"
}

# one_map ORDER BATCH
one_map() {
	local before after cost nr=$((nr / 4))

	echo 3 >/proc/sys/vm/drop_caches
	before=$(node_bytes)
	serve -n "$nr" -o "$1" -b "$2"
	after=$(node_bytes)
	cost=$(sed -n 's/.*: \([0-9]*\) ns.*/\1/p' "$out")
	tell "part: \"map\", order: \"$1\", batch: $2, instructions: $cost," \
		"bytes: $(((after - before + nr / 2) / nr))"
	kctl del "$n"
	wait
}

# reads PART KEY VALUE: of $dev, at both depths
reads() {
	rows=(x) row_of=([x]=$dev) stat_of=([x]=/sys/class/block/${dev##*/}/stat)
	one_run read 120 >/dev/null
	one_run read "$ms" | while IFS=$'\t' read -r _ qd cost; do
		tell "part: \"$1\", \"$2\": $3, qd: $qd, instructions: ($cost | round)"
	done
}

memory_disk benchscale $((nr / 128 + 1)) memory_backed=0 discard=0
undo_later rmdir /sys/kernel/config/nullb/benchscale

part_map() {
	local batch

	for batch in 4096 448 64; do
		one_map rising $batch
	done
	for batch in 4096 448 49; do
		one_map falling $batch
	done
	for batch in 448 64; do
		one_map random $batch
	done
}

part_hit() {
	local many

	for many in 1000 "$nr"; do
		serve -n "$many"
		reads hit extents "$many"
		kctl del "$n"
		wait
	done
}

part_sweep() {
	local percent blocks=20000

	for percent in 5 10 25 50 75 90 100; do
		serve -n $blocks -m $((blocks * percent / 100))
		reads sweep percent $percent
		kctl del "$n"
		wait
	done
}

for part in $parts; do
	"part_$part"
done

if [ -n "$json" ]; then
	jq -s --arg kernel "$(uname -r)" --argjson nr "$nr" \
		'{ kernel: $kernel, nr: $nr, rows: . }' "$results"
else
	jq -r '[.part, .order // "", .batch // .extents // .percent, .qd // "",
		.instructions, .bytes // ""] | @tsv' "$results" |
	awk -F '\t' '
		$1 == "map" { printf "MAP %-8s %5d at a time  %6d instructions  %3d bytes\n", $2, $3, $5, $6 }
		$1 == "hit" { printf "hit among %7d extents, QD %-2d  %6d instructions\n", $3, $4, $5 }
		$1 == "sweep" { printf "room for %3d %%, QD %-2d  %6d instructions\n", $3, $4, $5 }'
fi
