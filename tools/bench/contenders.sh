# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154
#
# Who is measured: all ways to the same storage that this machine has.
# . contenders.sh, after stack.sh
#
#   file_contenders FILE MIB DIR    of a raw file; images for others go to DIR
#   disk_contenders DISK MIB        of a block device
#   contender ROW KIND ARGUMENT...  one, by attach_KIND
#
# The rows that match $wanted are in rows, in order, and row_of has what to read and
# write; skipped has lines of "row <tab> why" for those that cannot be had here.

declare -A row_of=()
rows=() skipped=() wanted=${wanted:-.}

add_row() {
	rows+=("$1")
	row_of[$1]=$2
}

contender() {
	local dev='' why=''

	[[ $1 =~ $wanted ]] || return 0
	if "attach_$2" "${@:3}"; then
		add_row "$1" "$dev"
	else
		skipped+=("$1"$'\t'"$why")
	fi
	checkpoint
}

attach_nothing() {
	dev=$1
}

attach_none() {
	why=$1
	return 1
}

# room DIR MIB: is it free?
room() {
	local free

	free=$((($(stat -f -c '%a * %S' "$1")) >> 20))
	[ "$free" -ge "$2" ] || { why="it needs $2 MiB, $1 has $free"; return 1; }
}

# copy_of FILE MIB IMAGE: a qcow2 with all of it
copy_of() {
	has qemu-img && room "${3%/*}" $(($2 + 32)) || return
	patiently qemu-img convert -q -U -f raw -O qcow2 "$1" "$3" || {
		why="qemu-img convert failed"
		return 1
	}
}

attach_full() {
	copy_of "$1" "$2" "$3/full.qcow2" &&
		attach_ubdmap -f qcow2 "$3/full.qcow2"
}

attach_nbd_qcow2() {
	copy_of "$1" "$2" "$3/nbd.qcow2" && attach_nbd qcow2 "$3/nbd.qcow2"
}

# Each cluster at its first touch, in no order: an extent for each.
attach_thin() {
	has qemu-img && room "$2" $(($1 + 32)) || return
	qemu-img create -q -f qcow2 "$2/thin.qcow2" "${1}M" &&
		attach_ubdmap -f qcow2 "$2/thin.qcow2" || return
	patiently fio --name=scatter --filename="$dev" --ioengine=psync --direct=1 \
		--rw=randwrite --bs=64k --size="${1}M" --output=/dev/null || {
		why="writing to $dev failed"
		return 1
	}
}

file_contenders() {
	contender "file: direct" nothing "$1"
	contender "file: loop, direct I/O" loop "$1"
	contender "file: loop, page cache" loop "$1" cached
	contender "file: ubdmap" ubdmap -f raw "$1"
	contender "file: qemu-nbd" nbd raw "$1"
	contender "file: ublk" ublk loop -f "$1"
	contender "file: dm-linear" none "the target is a file"
	contender "qcow2: ubdmap, preallocated" full "$@"
	contender "qcow2: ubdmap, thin, written" thin "${@:2}"
	contender "qcow2: qemu-nbd" nbd_qcow2 "$@"
}

disk_contenders() {
	local row

	contender "disk: direct" nothing "$1"
	contender "disk: dm-linear" linear "$@"
	contender "disk: loop, direct I/O" loop "$1"
	contender "disk: loop, page cache" loop "$1" cached
	contender "disk: ubdmap" ubdmap -f raw "$1"
	contender "disk: qemu-nbd" nbd raw "$1"
	contender "disk: ublk" ublk loop -f "$1"
	for row in "ubdmap, preallocated" "ubdmap, thin, written" qemu-nbd; do
		contender "qcow2: $row" none "the target is a block device, images need a folder"
	done
}
