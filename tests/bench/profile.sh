#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
#
# Where do the instructions of one hit go, by function?
#
#   profile.sh [--row "disk: ubdmap"] [--op read|write] [--qd 1|32]
#              [--completion inline|timer] [--top N] [--save FILE]
#   profile.sh --compare BEFORE AFTER    two files of --save
#
# On the host. Boots a guest as counted.sh has it, with a QEMU plugin that counts
# (tcg_profile.c). Rows are those of rows.sh, and "first: copying, WHO" with ubdmap or
# qemu-nbd: 4 KiB each in a cluster of its own that a backing file has. Time that is
# idle is not counted; what is counted beside the I/O itself, ticks above all, is less
# than 1 %.

set -euo pipefail

here=$(dirname "$(realpath "$0")")
src=$(realpath "$here/../..")
row='disk: ubdmap' op=read qd=1 completion=inline top=45 save='' share=''

# In the guest: some 400 of 512 writes, so that neither fio's start nor its end counts.
inside_first() {
	local who=${row##*, } dev stat

	dir=/tmp/first
	memory_fs firstmem 256 $dir
	trap 'set +e; umount $dir; rmdir /sys/kernel/config/nullb/firstmem' EXIT
	use_up $dir
	head -c 64M /dev/urandom >$dir/base.raw
	qemu-img create -q -f qcow2 -b base.raw -F raw $dir/a.qcow2
	sync
	serve "$who" $dir/a.qcow2
	stat=/sys/block/${dev#/dev/}/stat
	/tmp/profmark "$stat" 1 400 >/share/ios &
	fio --name=first --filename="$dev" --ioengine=io_uring --direct=1 --rw=randwrite \
		--bs=4k --gtod_reduce=1 --size=64M --io_size=2M --iodepth="$qd" >/dev/null
	wait $!
	unserve "$who"
}

# In the guest.
inside() {
	# shellcheck source=lib.sh
	. "$here/lib.sh"
	# shellcheck source=rows.sh
	. "$here/rows.sh"
	# rows.sh's
	# shellcheck disable=SC2034
	wanted="^$row\$"
	trap 'set +e; undo_all' EXIT
	sysctl -q kernel.sched_autogroup_enabled=0 kernel.kptr_restrict=0
	cp "$src/build/profmark" /tmp/profmark
	if [[ $row == first:* ]]; then
		inside_first
		cat /proc/kallsyms >/share/kallsyms
		return
	fi
	prepare_rows "$completion"
	local batch=()
	[ "$qd" = 1 ] || batch=(--iodepth_batch_submit=16
		--iodepth_batch_complete_min=4 --iodepth_batch_complete_max="$qd")
	for ms in 50 100; do
		fio --name=profile --filename="${row_of[$row]}" --ioengine=io_uring \
			--direct=1 --rw="rand$op" --bs=4k --norandommap \
			--randrepeat=0 --gtod_reduce=1 --fixedbufs=1 \
			--registerfiles=1 --scramble_buffers=0 --time_based \
			--runtime=${ms}0ms --iodepth="$qd" "${batch[@]}" >/dev/null &
		# Not for the row's own processes, a mapper perhaps.
		local fio=$! was ios
		# Until it runs.
		read -r was _ _ _ ios _ <"${stat_of[$row]}"; was=$((was + ios))
		while read -r now _ _ _ ios _ <"${stat_of[$row]}" &&
			[ $((now + ios - was)) -lt 100 ]; do
			sleep 0.01
		done
		/tmp/profmark "${stat_of[$row]}" $ms >/share/ios
		wait "$fio"
	done
	cat /proc/kallsyms >/share/kallsyms
}

# Lines of "instructions-for-each-I/O function [module]", from counts by address.
resolve() {
	local ios

	ios=$(<"$1/ios")
	# User space has the low addresses.
	{
		grep -i ' [tw] ' "$1/kallsyms" | awk '{ print $1, "s", $3 $4 }'
		awk '{ print $1, "z", $2 }' "$1/counts"
	} | LC_ALL=C sort -k1,1 -k2,2 | awk -v ios="$ios" '
		$2 == "s" { if ($1 != at || name ~ /^__pfx_/) name = $3; at = $1; next }
		{ sum[$1 < "8" ? "(user space)" : name] += $3; all += $3 }
		END { for (n in sum) printf "%.1f\t%s\n", sum[n] / ios, n
		      printf "%.1f\t(all)\n", all / ios }' |
	sort -rn
}

compare() {
	awk -F '\t' 'NR == FNR { was[$2] = $1; next } { is[$2] = $1 }
		END { for (n in was) if (!(n in is)) is[n] = 0
		      for (n in is) { d = is[n] - was[n]
			if (d * d >= 4) printf "%+8.1f %8.1f %8.1f  %s\n",
				d, was[n], is[n], n } }' "$1" "$2" | sort -rn
}

while [ $# -gt 0 ]; do
	case $1 in
	--row) row=$2; shift ;;
	--op) op=$2; shift ;;
	--qd) qd=$2; shift ;;
	--completion) completion=$2; shift ;;
	--top) top=$2; shift ;;
	--save) save=$2; shift ;;
	--compare) compare "$2" "$3"; exit ;;
	--inside) inside; exit ;;
	*) sed -n '5,/^$/s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
	esac
	shift
done

share=$(mktemp -d)
trap 'rm -rf "$share"' EXIT
# shellcheck disable=SC2086  # words
"$src/tests/vm/run" --icount --mem 1G --timeout ${TIMEOUT:-900} --share "$share" \
	--qemu -plugin --qemu "$src/build/tcg_profile.so,out=$share/counts" \
	${VM_ARGS:-} "$here/profile.sh" --row "$row" --op "$op" --qd "$qd" \
	--completion "$completion" --inside
resolve "$share" >"$share/table"
[ -z "$save" ] || cp "$share/table" "$save"
[[ $row != first:* ]] || op=write completion=inline
echo "instructions for each 4K $op at QD $qd of \"$row\", completion $completion"
head -n "$top" "$share/table" | awk -F '\t' '{ printf "%9.1f  %s\n", $1, $2 }'
