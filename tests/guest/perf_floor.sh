#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --timeout 900
#
# The two floors of "make bench": reads of mapped data at least as fast as loop
# with direct I/O, and three times as fast as qemu-nbd. Who else uses the machine
# is not known here, so that a floor that is missed is tried once more, longer.

. "$(dirname "$0")/lib.sh"
requires fio qemu-img qemu-nbd jq

bench=$UBDMAP_SRC/tests/bench/bench.sh
out=$(mktemp)

"$bench" --json --mib 32 --turns 3 --seconds 1 >"$out" ||
	"$bench" --json --mib 32 --turns 9 --seconds 1 >"$out"

note "$(jq -c '.rows[] | [.row, .qd, .median]' "$out")"
while IFS=$'\t' read -r row than qd wanted times held; do
	equal "$row is at least $wanted times as fast as $than at QD $qd ($times)" \
		"$held" true
done < <(jq -r '.floors[] | [.row, .than, .qd, .wanted, .times, .held] | @tsv' "$out")
equal "all four were measured" "$(jq '.floors | length' "$out")" 4
