#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# report.sh counted|timed [OPTION]...
#
# On the host, behind "make bench MODE=...": all rows of counted.sh or bench.sh in a
# guest, as tables here, as JSON in build/bench/, and as charts beside it.

set -euo pipefail

mode=$1
shift
cd "$(dirname "$(realpath "$0")")/../.."
out=build/bench
mkdir -p $out
json=$out/$mode.json

# measure SCRIPT OPTION...: to $json; a floor that is missed is told after it
measure() {
	local status=0

	tests/run --show "tests/bench/$1" --full --json "${@:2}" >"$json.new" || status=$?
	[ $status = 0 ] || [ $status = 3 ] || exit $status
	mv "$json.new" "$json"
	return $status
}

status=0
case $mode in
counted)
	measure counted.sh "$@"
	tests/bench/show.sh $out/counted.json
	jq -r '.rows | map("\(.op) \(.completion)") | unique[]' $out/counted.json |
	while read -r op completion; do
		tests/bench/chart.sh $out/counted.json "$op" "$completion" \
			>"$out/counted-$op-$completion.svg"
	done
	echo
	echo "$out/counted.json, and charts: $out/counted-*.svg"
	;;
timed)
	measure bench.sh "$@" || status=$?
	tools/bench/table.sh $out/timed.json
	# shellcheck source=../../tools/bench/measure.sh
	. tools/bench/measure.sh
	timed_chart $out/timed.json >$out/timed.svg
	echo
	jq -r '.floors[] | select(.held | not) |
		"MISSED: QD \(.qd), \(.row): \(.times) times \(.than)"' $out/timed.json
	echo "$out/timed.json, and a chart: $out/timed.svg"
	;;
*)
	echo "$0: counted or timed" >&2
	exit 2
	;;
esac
exit $status
