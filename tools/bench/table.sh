#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# table.sh FILE: what measure.sh's summary says, for people.

set -euo pipefail

jq -r '"Linux \(.kernel), \(.cpus) CPUs\(if .guest != "" then ", " + .guest else "" end), " +
	"\(.fio), \(.engine), O_DIRECT; \(.on), \(.mib) MiB",
	"medians of \(.turns) turns of \(.seconds) s; CPU is that of the whole machine",
	(.rows | reduce .[] as $r ({}; .[$r.load] += [$r]) | .[] |
		"", "#\(.[0].load)",
		(.[] | [.row, .median, .min, .max, .times, .p50_us, .p99_us, .cpu_us] | @tsv)),
	(if .skipped == [] then empty else "", "Not measured:",
		(.skipped[] | "  \(.row): \(.why)") end)' "$1" |
awk -F '\t' '
	/^#/ {
		printf "%-36s%9s  %-21s%6s%10s%10s%9s\n", substr($0, 2), "per s",
			"   least to most", "times", "p50 us", "p99 us", "CPU us"
		next
	}
	# A load that is no single request has no latency.
	function us(v) { return v == "" ? "-" : sprintf("%.1f", v) }
	NF == 8 {
		printf "%-36s%9d  %-21s%6.2f%10s%10s%9s\n", $1, $2,
			sprintf("%9d to %d", $3, $4), $5, us($6), us($7), us($8)
		next
	}
	{ print }'
