#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# chart.sh TITLE NOTE <TABLE >CHART.svg
#
# Bars, in panels with a scale each; the thin line ends at the least and the most.
# A line of the table: panel, row, which bar of the row (0 dark, 1 light), value,
# least, most, with tabs between. Rows that mention ubdmap are blue.

set -euo pipefail

escaped() {
	sed -e 's/&/\&amp;/g' -e 's/</\&lt;/g' -e 's/>/\&gt;/g'
}

escaped | awk -F '\t' -v title="$(escaped <<<"$1")" -v note="$(escaped <<<"$2")" '
	{
		if (!($1 in first)) { panel[np++] = $1; first[$1] = 1 }
		if (!(($1, $2) in at)) { at[$1, $2] = 1; name[$1, n[$1]++] = $2 }
		v[$1, $2, $3] = $4; lo[$1, $2, $3] = $5; hi[$1, $2, $3] = $6
		if ($3 + 1 > bars[$1]) bars[$1] = $3 + 1
		if ($6 > most[$1]) most[$1] = $6
	}
	# Of a round width: 1, 2 or 5 times a power of ten.
	function step_for(x,  s) {
		for (s = 1; x / s > 8; s *= 10) {
			if (x / (2 * s) <= 8) return 2 * s
			if (x / (5 * s) <= 8) return 5 * s
		}
		return s
	}
	function bar(p, row, i, y, colour,  key, from, to) {
		if (!((p, row, i) in v)) return
		from = left + lo[p, row, i] * scale; to = left + hi[p, row, i] * scale
		printf "<rect x=\"%d\" y=\"%d\" width=\"%.1f\" height=\"9\" fill=\"%s\"/>\n", left, y, v[p, row, i] * scale, colour
		printf "<path d=\"M%.1f %.1fH%.1fM%.1f %dv5M%.1f %dv5\" stroke=\"#000\"/>\n", from, y + 4.5, to, from, y + 2, to, y + 2
		printf "<text x=\"%.1f\" y=\"%d\" font-size=\"9\">%d</text>\n", to + 4, y + 8, v[p, row, i]
	}
	function draw(p,  x, i, row, ours, step, bottom) {
		pitch = bars[p] * 12 + 6; bottom = top + n[p] * pitch
		scale = width / (most[p] ? most[p] : 1); step = step_for(most[p])
		if (np > 1)
			printf "<text x=\"10\" y=\"%d\" font-weight=\"bold\">%s</text>\n", top - 8, p
		for (x = 0; x <= most[p]; x += step) {
			printf "<path d=\"M%.1f %dV%d\" stroke=\"#ddd\"/>\n", left + x * scale, top - 4, bottom
			printf "<text x=\"%.1f\" y=\"%d\" font-size=\"9\" text-anchor=\"middle\">%d</text>\n", left + x * scale, bottom + 12, x
		}
		for (i = 0; i < n[p]; i++) {
			row = name[p, i]; ours = row ~ /ubdmap/
			printf "<text x=\"%d\" y=\"%d\" text-anchor=\"end\">%s</text>\n", left - 8, top + i * pitch + pitch / 2, row
			bar(p, row, 0, top + i * pitch, ours ? "#1b6ca8" : "#888")
			bar(p, row, 1, top + i * pitch + 12, ours ? "#7fb6dd" : "#ccc")
		}
		top = bottom + gap
	}
	END {
		left = 210; width = 560; gap = 46; height = 44 - gap
		for (i = 0; i < np; i++) height += n[panel[i]] * (bars[panel[i]] * 12 + 6) + gap
		height += 26 + (np > 1 ? 16 : 0)
		printf "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" font-family=\"sans-serif\" font-size=\"12\">\n", left + width + 60, height
		printf "<rect width=\"100%%\" height=\"100%%\" fill=\"#fff\"/>\n"
		printf "<text x=\"10\" y=\"18\" font-weight=\"bold\">%s</text>\n", title
		printf "<text x=\"10\" y=\"34\" font-size=\"10\">%s</text>\n", note
		top = 44 + (np > 1 ? 16 : 0)
		for (i = 0; i < np; i++) draw(panel[i])
		print "</svg>"
	}'
