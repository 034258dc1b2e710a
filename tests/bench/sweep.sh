#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# sweep.sh FILE >CHART.svg
#
# The sweep of scale.sh --json as a chart: what a 4K read at random takes when the
# TLB has room for a part of the extents only. Each mark is a measurement.

set -euo pipefail

jq -r '.rows[] | select(.part == "sweep") | [.qd, .percent, .instructions] | @tsv' "$1" |
sort -n -k1,1 -k2,2 |
awk -F '\t' -v kernel="$(jq -r .kernel "$1")" '
	{ qd[NR] = $1; x[NR] = $2; y[NR] = $3; if ($3 > most) most = $3 }
	function px(v) { return left + v / 100 * width }
	function py(v) { return top + height - v / most * height }
	END {
		left = 70; top = 50; width = 520; height = 260
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"11\">\n", left + width + 40, top + height + 50
		print "<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>"
		print "<text x=\"10\" y=\"18\" font-size=\"12\" font-weight=\"bold\">4K reads at random, room in the TLB for a part of the extents: instructions for each</text>"
		printf "<text x=\"10\" y=\"34\" font-size=\"10\">Linux %s; an extent for each block, a miss brings one; dark QD 1, light QD 32</text>\n", kernel
		for (v = 0; v <= most; v += 10000) {
			printf "<path d=\"M%d %.1fH%d\" stroke=\"#ddd\"/>\n", left, py(v), left + width
			printf "<text x=\"%d\" y=\"%.1f\" text-anchor=\"end\">%d</text>\n", left - 6, py(v) + 4, v
		}
		for (v = 0; v <= 100; v += 10)
			printf "<text x=\"%.1f\" y=\"%d\" text-anchor=\"middle\">%d %%</text>\n", px(v), top + height + 18, v
		for (i = 1; i <= NR; i++) {
			colour = qd[i] == 1 ? "#1b6ca8" : "#7fb6dd"
			if (qd[i] == qd[i - 1])
				printf "<path d=\"M%.1f %.1fL%.1f %.1f\" stroke=\"%s\" stroke-width=\"2\"/>\n", px(x[i - 1]), py(y[i - 1]), px(x[i]), py(y[i]), colour
			printf "<circle cx=\"%.1f\" cy=\"%.1f\" r=\"3\" fill=\"%s\"/>\n", px(x[i]), py(y[i]), colour
		}
		print "</svg>"
	}'
