# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash
#
# What scripts that measure in a guest share: . tests/bench/lib.sh
#
# Disks in memory, options; and, from tools/bench, rows and what makes them. Every row
# is a block device, or a file.

# shellcheck source=../../tools/bench/stack.sh
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../tools/bench/stack.sh"
# shellcheck source=../../tools/bench/contenders.sh
. "$(dirname "$(realpath "${BASH_SOURCE[0]}")")/../../tools/bench/contenders.sh"

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

# touch_all TARGET: read all of it once, past the page cache.
touch_all() {
	dd if="$1" of=/dev/null bs=1M iflag=direct status=none
}

# use_up DIR: have the disk in memory below a file system allocate its memory now. Else
# most of what a first write takes would be the zeroing of pages for a disk that no real
# one needs.
use_up() {
	dd if=/dev/zero of="$1/fill" bs=1M oflag=direct status=none 2>/dev/null || :
	rm "$1/fill"
	sync
}

# serve ubdmap|qemu-nbd IMAGE: a qcow2, to dev
serve() {
	if [ "$1" = ubdmap ]; then
		dev=$(ubdmap add "$2")
	else
		modprobe nbd
		dev=/dev/nbd0
		qemu-nbd -f qcow2 --cache=none --aio=io_uring --discard=unmap \
			--connect=$dev "$2"
	fi
}

# unserve ubdmap|qemu-nbd: dev
unserve() {
	if [ "$1" = ubdmap ]; then
		ubdmap del "$dev"
	else
		qemu-nbd -d "$dev" >/dev/null
		# Its process ends later, and has the image until then.
		while pidof -q qemu-nbd; do
			sleep 0.1
		done
	fi
}
