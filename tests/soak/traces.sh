#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Random tests with seeds of their own, for as long as one likes.
#
#   tests/soak/traces.sh [SECONDS]    rounds of new seeds (default 60 seconds)
#   SEED=n ROUNDS=1 tests/soak/traces.sh       one round again
#
# A round: power cuts of random traces, of every kind, with kills, full disks and
# I/O errors; the directed tests and the fault sweeps with another fake kernel's
# luck; requests compared with QEMU's answers. The first that fails ends it, and
# tells how to have that round again.

set -uo pipefail
cd "$(dirname "$(realpath "$0")")/../.." || exit 1

end=$((SECONDS + ${1:-60}))
seed=${SEED:-$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')}
rounds=${ROUNDS:-0}
work=$(mktemp -d "${TMPDIR:-/tmp}/ubdmap-soak.XXXXXX") || exit 1
log=$work/log
round=0
declare -A sum=()

# Adds up what the tests tell: "# 12 places of 3 recordings decided, ..."
count() {
	local n what

	while read -r n what; do
		sum[$what]=$((${sum[$what]:-0} + n))
	done < <(grep -aoE '[0-9]+ (places|recordings|kills|images rebuilt|failures)' "$log")
}

run() {
	env "$@" >"$log" 2>&1 </dev/null && { count; return; }
	echo "round $round, seed $seed: ${*: -1} fails; again with:"
	echo "  SEED=$seed ROUNDS=1 tests/soak/traces.sh"
	grep -a -m 1 -A 60 'ERROR: \|FAILED' "$log" || tail -n 30 "$log"
	exit 1
}

tell() {
	echo "$round rounds, the last of seed $((seed - 1)):" \
		"${sum[places]:-0} places of ${sum[recordings]:-0} recordings," \
		"${sum[images rebuilt]:-0} images rebuilt, ${sum[kills]:-0} kills," \
		"${sum[failures]:-0} single failures, all survived"
}

trap 'rm -rf "$work"' EXIT
trap 'tell; exit 130' INT TERM
echo "soak: from seed $seed, $((end - SECONDS)) seconds"
while [ "$rounds" -gt 0 ] || [ "$SECONDS" -lt "$end" ]; do
	round=$((round + 1))
	run CUT_SEED="$seed" TRACES=8 CUTS=6 CUT_OPS=$((30 + seed % 4 * 40)) \
		build/asan/test_powercut
	run SEED="$seed" build/asan/test_directed
	run SEED="$seed" build/asan/test_directed_disk
	run SEED="$seed" build/asan/test_directed_end
	run SEED="$seed" build/asan/test_cost
	[ $((round % 4)) -ne 1 ] || run SEED="$seed" build/asan/test_sweep
	[ ! -x build/asan/test_oracle ] || run ORACLE_SEED="$seed" build/asan/test_oracle
	seed=$((seed + 1))
	[ "$rounds" -eq 0 ] || [ "$round" -lt "$rounds" ] || break
done
tell
