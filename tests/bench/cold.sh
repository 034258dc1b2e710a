#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --icount --mem 2G --timeout 3600
#
# What the first touch costs, beside qemu-nbd on the same image.
#
#   cold.sh [--mib N] [--turns N] [--jobs REGEX] [--json]
#
# fio, io_uring, O_DIRECT, on images on ext4 on a disk in memory, new for each
# turn. In a guest with --icount what is shown is instructions for each I/O,
# whatever program they are in; in another one, nanoseconds. A write job ends with
# an fsync, which is part of it. Takes some four minutes a turn.
#
#   sequential allocating writes    1 MiB, depth 4, all of an empty qcow2
#   random allocating writes        4 KiB, depth 1 and 16, of an empty qcow2
#   random copying writes           the same, where a backing file has the data
#   sequential compressed reads     128 KiB, depth 1 and 8, all of a compressed qcow2
#   random compressed reads         4 KiB, depth 1 and 16
#   64 GiB, random reads            4 KiB, of an image that is allocated in full
#   scattered, N KiB reads          of an image that was written in random order, so
#                                   that every cluster is elsewhere; four times
#
# What is compressed are programs: as much of this machine's /usr/bin.

set -euo pipefail

# shellcheck source=lib.sh
. "$(dirname "$(realpath "$0")")/lib.sh"

mib=64 turns=3 wanted=. json=''
while [ $# -gt 0 ]; do
	case $1 in
	--mib) mib=$2; shift ;;
	--turns) turns=$2; shift ;;
	--jobs) wanted=$2; shift ;;
	--json) json=1 ;;
	*) sed -n '5,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

work=$(mktemp -d) dir=/tmp/cold
trap 'set +e; umount $dir; rmdir /sys/kernel/config/nullb/benchmem; rm -rf "$work"' EXIT
results=$work/results.json
: >"$results"
sysctl -q kernel.sched_autogroup_enabled=0

memory_fs benchmem $((6 * mib + 128)) $dir
use_up $dir

noise() {
	head -c "${mib}M" /dev/urandom >"$1"
}

# cat is ended by a signal, which is no failure here.
programs() {
	head -c "${mib}M" < <(exec cat /usr/bin/* 2>/dev/null) >"$1"
}

noise $dir/base.raw
sync

empty() {
	qemu-img create -q -f qcow2 $dir/a.qcow2 "${mib}M"
}

overlay() {
	qemu-img create -q -f qcow2 -b base.raw -F raw $dir/a.qcow2
}

# Nothing is written to it.
large() {
	[ -e $dir/large.qcow2 ] || qemu-img create -q -f qcow2 \
		-o preallocation=metadata $dir/large.qcow2 64G
	ln $dir/large.qcow2 $dir/a.qcow2
}

packed() {
	if [ ! -e $dir/packed.qcow2 ]; then
		programs $dir/programs.raw
		qemu-img convert -c -f raw -O qcow2 $dir/programs.raw $dir/packed.qcow2
		rm $dir/programs.raw
	fi
	cp --reflink=never $dir/packed.qcow2 $dir/a.qcow2
}

# one_job IMAGE JOB WHO FIO-SETTING...
one_job() {
	local image=$1 job=$2 who=$3 out

	[ -z "$job" ] || echo "$job: $who" >&2
	$image
	sync
	serve "$who" $dir/a.qcow2
	out=$(fio --name=cold --filename="$dev" --ioengine=io_uring --direct=1 \
		--gtod_reduce=1 --output-format=json "--size=${mib}M" "${@:4}")
	unserve "$who"
	rm $dir/a.qcow2
	jq -c --arg job "$job" --arg who "$who" '.jobs[0] | (.read, .write) |
		select(.total_ios > 0) |
		{ job: $job, who: $who, is: (.runtime * 1e6 / .total_ios) }' \
		<<<"$out" >>"$results"
}

# job NAME IMAGE FIO-SETTING...: both in turns
job() {
	local turn who

	[[ $1 =~ $wanted ]] || return 0
	for ((turn = 0; turn < turns; turn++)); do
		for who in ubdmap qemu-nbd; do
			one_job "$2" "$1" $who "${@:3}"
		done
	done
}

# Every cluster elsewhere: written in random order.
scattered() {
	if [ ! -e $dir/scattered.qcow2 ]; then
		empty
		serve ubdmap $dir/a.qcow2
		fio --name=scatter --filename="$dev" --ioengine=psync --direct=1 \
			--rw=randwrite --bs=64k --size="${mib}M" >/dev/null
		unserve ubdmap
		mv $dir/a.qcow2 $dir/scattered.qcow2
	fi
	cp --reflink=never $dir/scattered.qcow2 $dir/a.qcow2
}

# For what happens only once.
for who in ubdmap qemu-nbd; do
	one_job empty "" $who --rw=write --bs=1M --io_size=4M
done
: >"$results"

job "sequential allocating writes" empty --rw=write --bs=1M --iodepth=4 --end_fsync=1
job "random allocating writes, QD 1" empty --rw=randwrite --bs=4k --io_size=2M --end_fsync=1
job "random allocating writes, QD 16" empty --rw=randwrite --bs=4k --io_size=2M \
	--iodepth=16 --end_fsync=1
job "random copying writes, QD 1" overlay --rw=randwrite --bs=4k --io_size=2M --end_fsync=1
job "random copying writes, QD 16" overlay --rw=randwrite --bs=4k --io_size=2M \
	--iodepth=16 --end_fsync=1
job "sequential compressed reads, QD 1" packed --rw=read --bs=128k
job "sequential compressed reads, QD 8" packed --rw=read --bs=128k --iodepth=8
job "random compressed reads, QD 1" packed --rw=randread --bs=4k --io_size=1M
job "random compressed reads, QD 16" packed --rw=randread --bs=4k --io_size=1M --iodepth=16
job "64 GiB, random reads" large --rw=randread --bs=4k --size=64G --io_size=8M
for kib in 64 256 1024; do
	job "scattered, $kib KiB reads" scattered --rw=randread --bs=${kib}k --iodepth=4 --loops=4
done

unit=nanoseconds
[ "${UBDMAP_GUEST#* }" != icount ] || unit=instructions
jq -s --arg kernel "$(uname -r)" --arg unit "$unit for each I/O" --argjson cpus "$(nproc)" \
	--argjson turns "$turns" '
	def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
	{ kernel: $kernel, unit: $unit, cpus: $cpus, turns: $turns, rows:
	  [group_by(.job)[] | (map(select(.who == "ubdmap").is)) as $u |
		(map(select(.who == "qemu-nbd").is)) as $q |
		{ job: .[0].job, ubdmap: ($u | median | round), nbd: ($q | median | round),
		  times: ([range($u | length) | $q[.] / $u[.]] | median * 100 | round / 100),
		  least: ([range($u | length) | $q[.] / $u[.]] | min * 100 | round / 100),
		  most: ([range($u | length) | $q[.] / $u[.]] | max * 100 | round / 100) }] }' \
	"$results" >"$work/summary.json"
if [ -n "$json" ]; then
	cat "$work/summary.json"
else
	jq -r '"\(.unit), \(.cpus) CPUs, medians of \(.turns) turns",
		(.rows[] | [.job, .ubdmap, .nbd, .times, .least, .most] | @tsv)' \
		"$work/summary.json" | awk -F '\t' '
		NF < 2 { printf "%s\n%-34s %10s %10s  times faster\n", $0, "", "ubdmap", "qemu-nbd"; next }
		{ printf "%-34s %10d %10d  %.2f (%.2f to %.2f)\n", $1, $2, $3, $4, $5, $6 }'
fi
