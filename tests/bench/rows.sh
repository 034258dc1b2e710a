# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154
#
# The contenders of counted.sh, on null_blk disks that complete as asked:
# . tests/bench/rows.sh, after lib.sh
#
#   disk: ...	a disk that keeps what is written in memory
#   bare: ...	one that keeps nothing: without the copy, which costs 3,000
#   file: ...	a raw file on ext4 on a disk with memory
#   qcow2: ...	an image on that file system
#   zero: ...	an image without data: nothing below is asked
#   null: ...	a server that answers at once, with nothing below: ubdmap's says that
#		what was asked for is done, and maps nothing
#   miss: ...	every read asks a mapper that knows no format (kscale), on a
#		disk that keeps nothing: what the round trip takes
#
# $wanted is a regular expression; what does not match is not set up. What cannot be
# had here is in skipped, as contenders.sh has it; that is ublk only.

declare -A read_only=() stat_of=()
mib=32

want() {
	[[ $1 =~ $wanted ]]
}

want_any() {
	local row

	for row; do
		! want "$row" || return 0
	done
	return 1
}

# row NAME TARGET: TARGET is read once, so that it is mapped.
row() {
	want "$1" || return 0
	add_row "$1" "$2"
	stat_of[$1]=/sys/class/block/${2##*/}/stat
	[ -b "$2" ] || stat_of[$1]=/sys/class/block/benchmem/stat
	touch_all "$2"
}

# attached KIND ARGUMENT...: attach_KIND of stack.sh, to dev; here all must be there
attached() {
	"attach_$1" "${@:2}" || { echo "$1: $why" >&2; return 1; }
}

# ubdmap_row NAME ADD-ARGUMENT...
ubdmap_row() {
	local name=$1 dev why

	want "$name" || return 0
	shift
	attached ubdmap "$@"
	row "$name" "$dev"
}

loop_row() {
	local dev why

	want "$1" || return 0
	attached loop "$2"
	row "$1" "$dev"
}

# nbd_row NAME FORMAT FILE
nbd_row() {
	local dev why

	want "$1" || return 0
	attached nbd "$2" "$3"
	row "$1" "$dev"
}

# ublk_row NAME TYPE [OPTION]...: a null target has no end worth reading to
ublk_row() {
	local dev why

	want "$1" || return 0
	if ! attach_ublk "${@:2}"; then
		skipped+=("$1"$'\t'"$why")
	elif [ "$2" = null ]; then
		add_row "$1" "$dev"
		stat_of[$1]=/sys/class/block/${dev##*/}/stat
	else
		row "$1" "$dev"
	fi
}

random_data() {
	dd if=/dev/urandom of="$1" bs=1M count=$mib status=none "${@:2}"
}

# disk_rows GROUP DISK
disk_rows() {
	local dev why

	row "$1: raw" "/dev/$2"
	if want "$1: dm-linear"; then
		attached linear "/dev/$2" $mib
		row "$1: dm-linear" "$dev"
	fi
	loop_row "$1: loop" "/dev/$2"
	ubdmap_row "$1: ubdmap" -f raw "/dev/$2"
}

# A cluster here and a cluster there, each at its first touch: an extent each.
scatter() {
	fio --name=scatter --filename="$1" --ioengine=psync --direct=1 \
		--rw=randwrite --bs=64k --size=${mib}M >/dev/null
}

file_rows() {
	local dir=$1

	random_data "$dir/a.raw"
	sync
	row "file: direct" "$dir/a.raw"
	loop_row "file: loop" "$dir/a.raw"
	ubdmap_row "file: ubdmap" "$dir/a.raw"
	if want "file: qemu-nbd"; then
		random_data "$dir/n.raw"
		nbd_row "file: qemu-nbd" raw "$dir/n.raw"
	fi
	ublk_row "file: ublk" loop -f "$dir/a.raw"

	if want "qcow2: ubdmap, preallocated"; then
		qemu-img convert -U -f raw -O qcow2 "$dir/a.raw" "$dir/full.qcow2"
		ubdmap_row "qcow2: ubdmap, preallocated" "$dir/full.qcow2"
	fi
	if want "qcow2: ubdmap, thin, written"; then
		qemu-img create -q -f qcow2 "$dir/thin.qcow2" ${mib}M
		ubdmap_row "qcow2: ubdmap, thin, written" "$dir/thin.qcow2"
		scatter "${row_of["qcow2: ubdmap, thin, written"]}"
		touch_all "${row_of["qcow2: ubdmap, thin, written"]}"
	fi
	if want "qcow2: ubdmap, compressed, read"; then
		# Half random, half zeroes.
		for ((i = 0; i < mib * 16; i++)); do
			dd if=/dev/urandom bs=32k count=1 status=none
			dd if=/dev/zero bs=32k count=1 status=none
		done >"$dir/c.raw"
		qemu-img convert -c -f raw -O qcow2 "$dir/c.raw" "$dir/c.qcow2"
		rm "$dir/c.raw"
		ubdmap_row "qcow2: ubdmap, compressed, read" --read-only "$dir/c.qcow2"
		read_only["qcow2: ubdmap, compressed, read"]=1
	fi
	if want "qcow2: qemu-nbd"; then
		qemu-img convert -U -f raw -O qcow2 "$dir/a.raw" "$dir/n.qcow2"
		nbd_row "qcow2: qemu-nbd" qcow2 "$dir/n.qcow2"
	fi
	if want "qcow2: ublk"; then
		qemu-img convert -U -f raw -O qcow2 "$dir/a.raw" "$dir/u.qcow2"
		ublk_row "qcow2: ublk" qcow2 -f "$dir/u.qcow2"
	fi
	if want "zero: ubdmap"; then
		qemu-img create -q -f qcow2 "$dir/z.qcow2" ${mib}M
		ubdmap_row "zero: ubdmap" --read-only "$dir/z.qcow2"
		read_only["zero: ubdmap"]=1
	fi
}

# kscale_row NAME KSCALE-ARGUMENT...: above benchmiss
kscale_row() {
	local name=$1 said dev=''

	want "$name" || return 0
	shift
	said=$(mktemp)
	undo_later "rm $said"
	kscale "$@" -n 1000000 /dev/benchmiss >"$said" 2>&1 &
	until dev=$(grep '^/dev/' "$said"); do
		kill -0 $! && sleep 0.05
	done
	undo_later "kctl del ${dev#/dev/ubdmap}"
	add_row "$name" "$dev"
	stat_of[$name]=/sys/class/block/${dev##*/}/stat
	read_only[$name]=1
}

miss_rows() {
	want_any "miss: round trip" "null: ubdmap" || return 0
	memory_disk benchmiss 8000 "irqmode=$1" memory_backed=0 discard=0
	undo_later rmdir /sys/kernel/config/nullb/benchmiss
	kscale_row "miss: round trip" -w -m 1000
	kscale_row "null: ubdmap" -z
}

# prepare_rows inline|timer
prepare_rows() {
	local irqmode=0 dir=/tmp/bench-$1

	[ "$1" = inline ] || irqmode=2
	read_only=() skipped=()
	if want_any "disk: raw" "disk: dm-linear" "disk: loop" "disk: ubdmap"; then
		memory_disk benchdisk $mib irqmode=$irqmode
		undo_later rmdir /sys/kernel/config/nullb/benchdisk
		random_data /dev/benchdisk oflag=direct
		disk_rows disk benchdisk
	fi
	if want_any "bare: raw" "bare: dm-linear" "bare: loop" "bare: ubdmap"; then
		memory_disk benchbare $mib irqmode=$irqmode memory_backed=0 discard=0
		undo_later rmdir /sys/kernel/config/nullb/benchbare
		disk_rows bare benchbare
	fi
	if want_any "file: direct" "file: loop" "file: ubdmap" "file: qemu-nbd" \
		"file: ublk" "qcow2: ubdmap, preallocated" "qcow2: ubdmap, thin, written" \
		"qcow2: ubdmap, compressed, read" "qcow2: qemu-nbd" "qcow2: ublk" \
		"zero: ubdmap"; then
		memory_fs benchmem $((7 * mib + 64)) "$dir" irqmode=$irqmode
		undo_later "umount $dir; rmdir /sys/kernel/config/nullb/benchmem"
		file_rows "$dir"
	fi
	miss_rows $irqmode
	ublk_row "null: ublk" null
}
