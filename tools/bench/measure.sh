# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154
#
# Measuring in turns: . measure.sh, after contenders.sh
#
# In each turn a single fio takes one row after the other, load by load (A B C, A B C,
# ...), so that what disturbs the machine for a while disturbs all of them. Starting
# fio for each would take longer than a measurement. rows and row_of say who, loads
# what; $mib of each are used, for $seconds. Lines of JSON go to $work/results.

# What there is: name, and fio's settings.
declare -A load_of=(
	["4K random reads, QD 1"]="rw=randread bs=4k iodepth=1"
	["4K random reads, QD 32"]="rw=randread bs=4k iodepth=32"
	["4K random writes, QD 1"]="rw=randwrite bs=4k iodepth=1"
	["4K random writes, QD 32"]="rw=randwrite bs=4k iodepth=32"
	["128K sequential reads, QD 8"]="rw=read bs=128k iodepth=8"
	["128K sequential writes, QD 8"]="rw=write bs=128k iodepth=8"
	["4K random, 70 % reads, QD 32"]="rw=randrw rwmixread=70 bs=4k iodepth=32"
	["4K random writes, each with fsync"]="rw=randwrite bs=4k iodepth=1 fsync=1"
)
all_loads=(
	"4K random reads, QD 1" "4K random reads, QD 32"
	"4K random writes, QD 1" "4K random writes, QD 32"
	"128K sequential reads, QD 8" "128K sequential writes, QD 8"
	"4K random, 70 % reads, QD 32" "4K random writes, each with fsync"
)
loads=() engine=''

# choose_loads REGEX
choose_loads() {
	local load

	for load in "${all_loads[@]}"; do
		[[ ! $load =~ $1 ]] || loads+=("$load")
	done
}

# choose_engine TARGET: io_uring, or libaio where that is forbidden or not there
choose_engine() {
	for engine in io_uring libaio; do
		! fio --name=try --filename="$1" --readonly --ioengine=$engine --direct=1 \
			--rw=read --bs=4k --io_size=4k --size=1M --output=/dev/null \
			>/dev/null 2>"$work/try" || return 0
	done
	why=$(tail -n 1 "$work/try")
	return 1
}

# touch_rows: all of each is read once, so that it is mapped
touch_rows() {
	local row

	for row in "${rows[@]}"; do
		[ "${row_of[$row]}" = null ] ||
			patiently dd if="${row_of[$row]}" of=/dev/null bs=1M \
				count="$mib" iflag=direct status=none
	done
}

# A job for each load and row, with the CPUs' time before and after it. What a row
# leaves dirty in the page cache is written after that: the next row shall not pay for
# it. Rows go by links without characters that mean something to fio. If a device is gone
# meanwhile, fio shall not make a file of its name.
jobs_of_turn() {
	local load row n=0 i now='read -r all </proc/stat && echo $all'

	printf '%s\n' "[global]" "ioengine=$engine" direct=1 norandommap randrepeat=0 \
		allow_file_create=0 time_based stonewall lat_percentiles=1 \
		percentile_list=50:99 "runtime=$seconds" \
		"size=${mib}M" "exec_prerun=$now" "exec_postrun=$now"
	for load in "${loads[@]}"; do
		for i in "${!rows[@]}"; do
			row=${rows[i]}
			ln -sfn "${row_of[$row]}" "$work/row$i"
			# shellcheck disable=SC2086  # words
			printf '%s\n' "[$((n++))]" "filename=$work/row$i" ${load_of[$load]}
			[ "${row_of[$row]}" != null ] || echo ioengine=null
			[[ $row != *cache ]] || echo "exec_postrun=($now && sync)"
		done
	done
}

# What all CPUs worked in each job, in milliseconds: lines of "number <tab> ms".
busy_of() {
	awk -v hz="$(getconf CLK_TCK)" '$1 == "cpu" {
		n = FILENAME; sub(/\..*/, "", n)
		busy = ($2 + $3 + $4 + $7 + $8) * 1000 / hz
		ms[n] += FILENAME ~ /postrun/ ? busy : -busy
	} END { for (n in ms) printf "%s\t%d\n", n, ms[n] }' [0-9]*.txt
}

# What fio says of each job. Latency is from before submission to completion, that of
# reads where there are both, that of the fsync where there is one.
take_results() {
	sed '/^{/,$!d' out | jq -c --rawfile names names --rawfile busy busy '
		($names | split("\n") | map(split("\t"))) as $names |
		([$busy | split("\n")[] | select(. != "") | split("\t") |
			{ key: .[0], value: (.[1] | tonumber) }] | from_entries) as $busy |
		.jobs[] | $names[.jobname | tonumber] as $name |
		(.read.total_ios + .write.total_ios) as $ios |
		([(.sync.lat_ns, .read.lat_ns, .write.lat_ns).percentile // empty] | first)
			as $lat |
		if .error != 0 or $ios == 0 then error($name | join(", ")) else
		{ load: $name[0], row: $name[1], qd: (.["job options"].iodepth | tonumber),
		  iops: (.read.iops + .write.iops),
		  p50_us: ($lat["50.000000"] / 1000), p99_us: ($lat["99.000000"] / 1000),
		  cpu_us: ($busy[.jobname] * 1000 / $ios) } end' >>results
}

# Whose device is not there any more: fio looks for all of them before it begins.
lost_row() {
	local row

	for row in "${rows[@]}"; do
		if [ "${row_of[$row]}" != null ] && [ ! -e "${row_of[$row]}" ]; then
			echo "$row: ${row_of[$row]} is gone"
			return
		fi
	done
}

# measure_turn: every row once with every load
measure_turn() {
	local load row status=0

	cd "$work" || return
	rm -f ./*.txt
	jobs_of_turn >jobs.fio
	for load in "${loads[@]}"; do
		for row in "${rows[@]}"; do
			printf '%s\t%s\n' "$load" "$row"
		done
	done >names
	patiently fio --output-format=json --output=out jobs.fio 2>said || status=$?
	if ! { busy_of >busy && take_results; } 2>failed || [ $status != 0 ]; then
		why=$(sed -n 's/^jq: error ([^)]*): //p' failed)
		why="${why:-$(lost_row)}: "
		why="fio: ${why#: }$(cat said out | sed -n '/^{/q; s/^fio: //p' | head -n 1)"
		return 1
	fi
	cd "$OLDPWD" || return
}

# summary: JSON of all turns. What a row makes of what the first row of its kind
# makes, turn by turn, is "times"; qcow2 is compared with the file. A median of an
# even number is between the two in the middle.
summary() {
	jq -s --arg kernel "$(uname -r)" --arg fio "$(fio --version)" \
		--arg engine "$engine" --arg guest "${UBDMAP_GUEST:-}" \
		--arg on "$on" --argjson cpus "$(nproc)" --argjson mib "$mib" \
		--argjson seconds "$seconds" --argjson turns "$turns" \
		--arg skipped "$(printf '%s\n' "${skipped[@]}")" '
	def median: map(numbers) | sort |
		if . == [] then null
		else (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2 end;
	def digits(n): if . then . * n | round / n else . end;
	def kind: .row | split(":")[0] | if . == "qcow2" then "file" else . end;
	reduce .[] as $r ({}; .["\($r.load)\t\($r.row)"] += [$r]) |
	(reduce .[] as $all ({}; ($all[0] | "\(.load)\t\(kind)") as $key |
		.[$key] //= ($all | map(.iops)))) as $first |
	{ kernel: $kernel, cpus: $cpus, guest: $guest, fio: $fio, engine: $engine, on: $on,
	  mib: $mib, seconds: $seconds, turns: $turns,
	  rows: [.[] | $first[.[0] | "\(.load)\t\(kind)"] as $base | {
		load: .[0].load, row: .[0].row, qd: .[0].qd,
		median: (map(.iops) | median | round),
		min: (map(.iops) | min | round), max: (map(.iops) | max | round),
		times: ([map(.iops), $base] | transpose | map(.[0] / ([.[1], 1e-9] | max)) |
			median | digits(1000)),
		p50_us: (map(.p50_us) | median | digits(10)),
		p99_us: (map(.p99_us) | median | digits(10)),
		cpu_us: (map(.cpu_us) | median | digits(10)),
		iops: map(.iops | round) }],
	  skipped: [$skipped | split("\n")[] | select(. != "") | split("\t") |
		{ row: .[0], why: .[1] }] }' "$work/results"
}

# timed_chart FILE: an SVG of what summary wrote
timed_chart() {
	jq -r '.rows[] | [.load, .row, 0, .median, .min, .max] | @tsv' "$1" |
	"$(dirname "$(realpath "${BASH_SOURCE[0]}")")/chart.sh" \
		"I/O each second, $(jq -r '"\(.on), medians of \(.turns) turns of \(.seconds) s"' "$1")" \
		"Linux $(jq -r '"\(.kernel), \(.cpus) CPUs, \(.fio), \(.engine), O_DIRECT"' "$1")"
}
