# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# Measuring side by side, for scripts in a guest: . tests/bench/lib.sh
#
# Every row is a block device, or a file, with the same content on the same
# storage. Rows are measured in turns (A B C A B C ...), so that what disturbs
# the machine for a while disturbs all of them, and compared by the median over
# the turns of the ratio within one turn.

declare -A row_of=() iops_of=()
rows=()

# take_options "NAME[=VARIABLE]..." "FLAG..." WORD...: --NAME VALUE sets a variable;
# --FLAG calls option_FLAG, or sets the variable FLAG to 1. For anything else the
# script's head says how to call it.
take_options() {
	local values=" $1 " flags=" $2 " name

	shift 2
	while [ $# -gt 0 ]; do
		name=${1#--}
		if [[ $# -gt 1 && $1 == --* && $values =~ \ $name(=([^ ]*))?\  ]]; then
			printf -v "${BASH_REMATCH[2]:-$name}" %s "$2"
			shift
		elif [[ $1 == --* && $flags == *" $name "* ]]; then
			if declare -F "option_$name" >/dev/null; then
				"option_$name"
			else
				printf -v "$name" 1
			fi
		else
			sed -n '5,/^$/s/^# \{0,1\}//p' "$0" >&2
			exit 2
		fi
		shift
	done
}

# memory_disk NAME MIB [MORE=VALUE]...: /dev/NAME, a null_blk that keeps what is
# written in memory and completes at once; the words are its configfs files.
memory_disk() {
	local dir=/sys/kernel/config/nullb/$1 word

	modprobe null_blk nr_devices=0
	mountpoint -q /sys/kernel/config ||
		mount -t configfs configfs /sys/kernel/config
	mkdir "$dir" || return
	for word in "size=$2" memory_backed=1 irqmode=0 blocksize=512 discard=1 \
		"${@:3}" power=1; do
		echo "${word#*=}" >"$dir/${word%%=*}" || return
	done
}

# memory_fs NAME MIB DIR [MORE=VALUE]...: an ext4 file system on such a disk.
# Initialised at once: the kernel would do it later, in the midst of a measurement.
memory_fs() {
	memory_disk "$1" "$2" "${@:4}" && mkdir -p "$3" &&
		mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0 "/dev/$1" &&
		mount "/dev/$1" "$3"
}

# add_row NAME TARGET: a contender.
add_row() {
	rows+=("$1")
	row_of[$1]=$2
}

# touch_all TARGET: read all of it once, past the page cache.
touch_all() {
	dd if="$1" of=/dev/null bs=1M iflag=direct status=none
}

# jobs "QD..." [FIO-SETTING]...: a fio job file, every row once at every depth.
jobs() {
	local qd row n=0

	printf '%s\n' "[global]" ioengine=io_uring direct=1 rw=randread \
		bs=4k norandommap randrepeat=0 gtod_reduce=1 time_based stonewall \
		"${@:2}"
	for qd in $1; do
		for row in "${rows[@]}"; do
			n=$((n + 1))
			printf '%s\n' "[$n]" "filename=${row_of[$row]}" "iodepth=$qd"
		done
	done
}

# one_turn "QD..." [FIO-SETTING]...: a single fio does one after the other, as
# starting it takes longer than a measurement.
one_turn() {
	local qd row n=0 file values

	file=$(mktemp)
	jobs "$@" >"$file"
	mapfile -t values < <(fio --readonly --output-format=json "$file" |
		jq '.jobs[] | select(.error == 0) | .read.iops')
	rm "$file"
	for qd in $1; do
		for row in "${rows[@]}"; do
			if [ -z "${values[n]:-}" ]; then
				echo "fio failed on $row" >&2
				return 1
			fi
			iops_of[$row/$qd]+=" ${values[n]}"
			n=$((n + 1))
		done
	done
}

median() {
	printf '%s\n' "$@" | sort -n | awk '
		{ v[NR] = $1 }
		END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# median_iops ROW QD
median_iops() {
	# shellcheck disable=SC2086  # numbers
	printf '%.0f\n' "$(median ${iops_of[$1/$2]})"
}

# ratio ROW OTHER QD: how many times as fast, turn by turn; the median.
ratio() {
	local -a a b ratios=()
	local i

	read -ra a <<<"${iops_of[$1/$3]}"
	read -ra b <<<"${iops_of[$2/$3]}"
	for i in "${!a[@]}"; do
		ratios+=("$(awk "BEGIN { print ${a[i]} / ${b[i]} }")")
	done
	printf '%.2f\n' "$(median "${ratios[@]}")"
}

# at_least X Y
at_least() {
	awk "BEGIN { exit !($1 >= $2) }"
}
