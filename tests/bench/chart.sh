#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# chart.sh FILE [OP] [COMPLETION] >CHART.svg
#
# What counted.sh --json wrote as bars: instructions for each I/O, QD 1 above
# QD 32; the thin line ends at the least and the most of the turns.

set -euo pipefail

op=${2:-read} completion=${3:-inline}
jq -r --arg op "$op" --arg c "$completion" '.rows[] |
	select(.op == $op and .completion == $c) |
	["", .row, if .qd == 1 then 0 else 1 end, .instructions, .min, .max] | @tsv' "$1" |
"$(dirname "$(realpath "$0")")/../../tools/bench/chart.sh" \
	"4K $op at random, completion $completion: instructions for each I/O" \
	"Linux $(jq -r .kernel "$1"), fio with its own share; upper bar QD 1, lower bar QD 32"
