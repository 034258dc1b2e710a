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
	[.row, .qd, .instructions, .min, .max] | @tsv' "$1" |
awk -F '\t' -v title="4K $op at random, completion $completion: instructions for each I/O" \
	-v kernel="$(jq -r .kernel "$1")" '
	{
		if (!($1 in at)) { at[$1] = n; name[n++] = $1 }
		v[$1, $2] = $3; lo[$1, $2] = $4; hi[$1, $2] = $5
		if ($5 > most) most = $5
	}
	# Of a round width: 1, 2 or 5 times a power of ten.
	function step_for(x,  s) {
		for (s = 1000; x / s > 8; s *= 10) {
			if (x / (2 * s) <= 8) return 2 * s
			if (x / (5 * s) <= 8) return 5 * s
		}
		return s
	}
	function bar(row, qd, y, colour,  len) {
		if (!((row, qd) in v)) return
		len = v[row, qd] * scale
		printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"9\" fill=\"%s\"/>\n", left, y, len, colour
		printf "<path d=\"M%.1f %.1fH%.1fM%.1f %dv5M%.1f %dv5\" stroke=\"#000\"/>\n", left + lo[row, qd] * scale, y + 4.5, left + hi[row, qd] * scale, left + lo[row, qd] * scale, y + 2, left + hi[row, qd] * scale, y + 2
		printf "<text x=\"%.1f\" y=\"%d\" font-size=\"9\">%d</text>\n", left + hi[row, qd] * scale + 4, y + 8, v[row, qd]
	}
	END {
		left = 210; width = 560; pitch = 30; top = 44
		scale = width / most; step = step_for(most)
		height = top + n * pitch + 26
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", left + width + 60, height
		printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
		printf "<text x=\"10\" y=\"18\" font-weight=\"bold\">%s</text>\n", title
		printf "<text x=\"10\" y=\"34\" font-size=\"10\">Linux %s, fio with its own share; upper bar QD 1, lower bar QD 32</text>\n", kernel
		for (x = 0; x <= most; x += step) {
			printf "<path d=\"M%.1f %dV%d\" stroke=\"#ddd\"/>\n", left + x * scale, top - 4, top + n * pitch
			printf "<text x=\"%.1f\" y=\"%d\" font-size=\"9\" text-anchor=\"middle\">%d</text>\n", left + x * scale, top + n * pitch + 12, x
		}
		for (i = 0; i < n; i++) {
			ours = name[i] ~ /ubdmap/
			printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 8, top + i * pitch + 15, name[i]
			bar(name[i], 1, top + i * pitch, ours ? "#1b6ca8" : "#888")
			bar(name[i], 32, top + i * pitch + 12, ours ? "#7fb6dd" : "#ccc")
		}
		print "</svg>"
	}'
