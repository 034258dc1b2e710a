#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# show.sh FILE: what counted.sh --json wrote, as tables; in brackets what a row
# adds to the one it stands on.

set -euo pipefail

jq -r '(.rows | group_by([.completion, .op])[] |
	"4K \(.[0].op), completion \(.[0].completion)\tQD 1\t\tQD 32\t",
	(reduce .[] as $r ({}; .[$r.row] += [$r]) | to_entries[] |
		[.key, (.value | sort_by(.qd)[] | .instructions,
			(if .row == .floor or .added == null then "-"
			 else .added end))] | @tsv), ""),
	(.skipped // [] | .[] | "#\(.row): not measured, \(.why)")' "$1" |
awk -F '\t' '
	function add(v) { return v == "-" ? "" : sprintf("(%+d)", v) }
	/^4K/ { printf "%-34s %11s %19s\n", $1, $2, $4; next }
	NF > 1 { printf "%-34s %8d %9s %8d %9s\n", $1, $2, add($3), $4, add($5); next }
	{ print substr($0, 2) }' |
sed -e 's/ *$//' -e '${/^$/d}'
