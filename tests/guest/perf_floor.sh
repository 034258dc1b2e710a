#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --timeout 1800
# only: ordinary
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

jq -r '.rows[] | "# \(.row), QD \(.qd): \(.median) IOPS"' "$out"
while IFS=$'\t' read -r row than qd wanted times held; do
	equal "QD $qd, $row: at least $wanted times $than (it is $times)" \
		"$held" true
done < <(jq -r '.floors[] | [.row, .than, .qd, .wanted, .times, .held] | @tsv' "$out")
equal "all four were measured" "$(jq '.floors | length' "$out")" 4
