#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# report.sh [COUNTED-OPTION]...
#
# On the host, behind "make bench MODE=counted": all rows of counted.sh in a guest,
# as tables here, as JSON in build/bench/counted.json, and as charts beside it.

set -euo pipefail

cd "$(dirname "$(realpath "$0")")/../.."
out=build/bench
mkdir -p $out
tests/run --show tests/bench/counted.sh --full --json "$@" >$out/counted.json.new
mv $out/counted.json.new $out/counted.json
tests/bench/show.sh $out/counted.json
jq -r '.rows | map("\(.op) \(.completion)") | unique[]' $out/counted.json |
while read -r op completion; do
	tests/bench/chart.sh $out/counted.json "$op" "$completion" \
		>"$out/counted-$op-$completion.svg"
done
echo
echo "$out/counted.json, and charts: $out/counted-*.svg"
