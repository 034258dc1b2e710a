# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2154
#
# Counting the instructions of an I/O, in a guest whose clock counts them:
# . tests/bench/icount.sh, after rows.sh
#
# rows, row_of and stat_of say what is to be measured (rows.sh), read_only what
# takes no writes; at the queue depths in depths. Makes the folder $work.

if [ "${UBDMAP_GUEST#* }" != icount ]; then
	echo "$0 wants a guest with --icount: tests/run --show $0" >&2
	exit 2
fi

depths=(1 32)
work=$(mktemp -d)

# fio alone in a scheduling group of its own would pay for the group with each
# switch to a kernel thread and back, and the kernel threads' users with it.
sysctl -q kernel.sched_autogroup_enabled=0

# write_jobs OP MS: a fio job file, every row once at every depth.
#
# Registered files and buffers, and 16 requests for each system call at depth
# 32, keep fio's own share small. To wait for four completions at once makes the
# rows with a worker repeatable: with one, whether worker and fio take turns for
# each request or for many is the scheduler's mood.
write_jobs() {
	local qd row

	printf '%s\n' "[global]" ioengine=io_uring direct=1 "rw=rand$1" bs=4k \
		norandommap randrepeat=0 gtod_reduce=1 fixedbufs=1 registerfiles=1 \
		scramble_buffers=0 time_based stonewall "runtime=${2}ms"
	for qd in "${depths[@]}"; do
		for row in "${active[@]}"; do
			printf '%s\n' "[$row]" "filename=${row_of[$row]}" "iodepth=$qd"
			[ "$qd" = 1 ] || printf '%s\n' iodepth_batch_submit=16 \
				iodepth_batch_complete_min=4 \
				"iodepth_batch_complete_max=$qd"
		done
	done
}

# The guest's clock in the midst of a job, how much of it the CPU was idle, and
# what the row's disk has completed: from two of these comes what an I/O takes,
# without fio's start and end and to the nanosecond. All with what bash has in
# itself: a fork, or a program from the host's file system, would disturb.
mkfifo "$work/never"
exec 9<>"$work/never"

pause() {
	read -rt "$1" -u 9 || :
}

# ios_of STAT: reads and writes that were completed, to $ios
ios_of() {
	local -a f

	read -ra f <"$1"
	ios=$((f[0] + f[4]))
}

# sample STAT: to $lines and $ios; parsing it can wait until the job's end
sample() {
	mapfile -t lines </proc/timer_list
	ios_of "$1"
}

# The clock without the time the CPU was idle, from $lines, to $busy.
busy_of() {
	local line

	busy=0
	for line in "${lines[@]}"; do
		case $line in
		"now at "*) line=${line#now at }; busy=${line%% *} ;;
		*idle_sleeptime*) line=${line##*: }; busy=$((busy - ${line%% *})) ;;
		*iowait_sleeptime*) line=${line##*: }; busy=$((busy - ${line%% *})); break ;;
		esac
	done
}

# Wait until what is counted in $1 moves (or, with $2, no longer does).
await() {
	local was ios

	ios_of "$1"
	while kill -0 "$fio" 2>/dev/null; do
		was=$ios
		pause 0.004
		ios_of "$1"
		if [ -n "${2:-}" ]; then
			[ "$ios" != "$was" ] || return 0
		else
			[ $((ios - was)) -lt 30 ] || return 0
		fi
	done
	return 1
}

# one_run OP MS: lines of ROW <tab> QD <tab> instructions for each I/O
one_run() {
	local row qd stat fio ios before busy busy0 all=()
	local -a lines first
	local -a active=()

	for row in "${rows[@]}"; do
		[ "$1" = write ] && [ -n "${read_only[$row]:-}" ] || active+=("$row")
	done
	[ ${#active[@]} -gt 0 ] || return 0
	write_jobs "$1" "$2" >"$work/job"
	fio --output="$work/out" "$work/job" &
	fio=$!
	for qd in "${depths[@]}"; do
		for row in "${active[@]}"; do
			stat=${stat_of[$row]}
			await "$stat" || break 2
			pause 0.03
			sample "$stat"
			before=$ios first=("${lines[@]}")
			pause "$(printf '0.%03d' $(($2 - 60)))"
			sample "$stat"
			before=$((ios - before))
			await "$stat" stopped || :
			busy_of
			busy0=$busy lines=("${first[@]}")
			busy_of
			all+=("$row	$qd	$((busy0 - busy))	$before")
		done
	done
	if ! wait $fio || [ ${#all[@]} != $((${#active[@]} * ${#depths[@]})) ]; then
		cat "$work/out" >&2
		exit 1
	fi
	printf '%s\n' "${all[@]}" | awk -F '\t' '{ printf "%s\t%s\t%f\n", $1, $2, $3 / $4 }'
}
