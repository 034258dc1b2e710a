#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 6G
#
# A device in a guest under everything at once, for as long as one likes:
#
#   tests/soak/device.sh [SECONDS [SEED]]
#
# A round takes two minutes or so: an image of some kind, new or as the round
# before left it, is written, copied on write, discarded, zeroed, flushed and
# verified, by fio on the disk itself and through a file system, while its mapper
# is killed, replaced, stopped for a moment; then it is deleted, checked, and
# compared with what the device showed. The first error ends it.

. "$(dirname "$0")/../guest/lib.sh"
. "$(dirname "$0")/../guest/guest.inc"
requires fio qemu-img killer mkfs.ext4 jq

time=${1:-120} seed=${2:-$(od -An -N3 -tu4 /dev/urandom | tr -d ' ')}
slow=${UBDMAP_SLOW:-1}
RANDOM=$seed
rounds=0 kills=0 upgrades=0 stops=0 written=0
round_time=$((100 * slow))
[ "$time" -ge $round_time ] || round_time=$time
end=$(($(date +%s) + time))

work_on /dev/vda
mkdir /tmp/mnt

fail() {
	echo "round $rounds of seed $seed ($kind): $*" >&2
	[ ! -e "${err:-}" ] || tail -n 40 "$err" >&2
	exit 1
}

must() {
	err=/tmp/err
	"$@" >$err 2>&1 || fail "status $? from: $*"
}

# A value of "ubdmap stat"'s.
counted() {
	ubdmap stat --json "$dev" | jq -r "[.. | .$1? // empty] | add"
}

# Not by substitution: a subshell has random numbers of its own.
one_of() {
	shift $((RANDOM % $#))
	one=$1
}

# What may lie below: data, compressed or not, in clusters of any size.
new_image() {
	rm -f a.* base.*
	one_of 512 4k 64k 64k 256k 2M
	kind=$one
	one_of raw alone plain zlib zstd
	case $one in
	raw)
		kind="raw" image=a.raw
		truncate -s 256M a.raw
		return
		;;
	alone) qemu-img create -q -f qcow2 -o cluster_size="$kind" a.qcow2 256M ;;
	*)
		fio --name=base --filename=base.raw --size=24M --rw=write --bs=64k \
			--buffer_compress_percentage=50 --refill_buffers \
			--output=/dev/null
		base=$one
		case $base in
		plain) qemu-img convert -O qcow2 base.raw base.qcow2 ;;
		*) qemu-img convert -c -O qcow2 -o compression_type="$base" base.raw \
			base.qcow2 ;;
		esac
		rm base.raw
		qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 \
			-o cluster_size="$kind" a.qcow2 256M
		kind="$kind over $base"
		;;
	esac
	image=a.qcow2
}

# verified NAME ARG...: writes that are read back, until the round's end
verified() {
	name=$1
	shift
	while [ ! -e enough ]; do
		fio --name="$name" --filename="$dev" --direct=1 --ioengine=libaio \
			--iodepth=8 --verify=crc32c --verify_fatal=1 --verify_backlog=256 \
			--randrepeat=0 "$@" || return 1
	done
}

discards() {
	while [ ! -e enough ]; do
		at=$((64 + RANDOM % 16))
		one_of -f -f -fz
		blkdiscard "$one" -o $((at << 20)) -l 1M "$dev" || return 1
		dd if=/dev/urandom of=piece bs=64k count=4 status=none
		dd if=piece of="$dev" bs=64k seek=$((at * 16 + 3)) oflag=direct \
			status=none || return 1
		dd if="$dev" bs=64k skip=$((at * 16 + 3)) count=4 iflag=direct \
			status=none | cmp - piece || return 1
		sleep 0.0$((RANDOM % 10))
	done
}

# Files that come and go.
files() {
	while [ ! -e enough ]; do
		rm -rf /tmp/mnt/d
		mkdir /tmp/mnt/d || return 1
		cp -r /etc/. /tmp/mnt/d 2>/dev/null
		(cd /etc && find . -type f -size -64k -readable -exec sha256sum {} +) \
			2>/dev/null | sort >sums
		sync -f /tmp/mnt || return 1
		echo 3 >/proc/sys/vm/drop_caches
		(cd /tmp/mnt/d && sha256sum --quiet -c /tmp/fs/sums) || return 1
		fstrim /tmp/mnt || return 1
	done
}

flushes() {
	while [ ! -e enough ]; do
		sync "$dev" || return 1
		sleep 0.$((RANDOM % 5))
	done
}

# What happens to mappers, until the round's end.
trouble() {
	while [ "$(date +%s)" -lt "$round_end" ]; do
		one_of kill kill kill upgrade stop
		case $one in
		kill)
			must killer -l 30000 "$dev" 3 50 1500
			kills=$((kills + 3))
			;;
		upgrade)
			must ubdmap upgrade "$dev"
			upgrades=$((upgrades + 1))
			;;
		stop)
			pid=$(field mapper "$dev")
			kill -STOP "$pid" && sleep 1 && kill -CONT "$pid"
			stops=$((stops + 1))
			;;
		esac
		sleep 0.$((RANDOM % 10))
	done
}

one_round() {
	[ $((rounds % 3)) -ne 0 ] || new_image
	rounds=$((rounds + 1))
	round_end=$(($(date +%s) + round_time))
	must ubdmap add "$image"
	dev=$(cat $err)
	rm -f enough
	# The last 128 MiB are another device's, with a file system.
	must dmsetup create part --table "0 262144 linear $dev 262144"
	dmsetup mknodes
	if ! mount /dev/mapper/part /tmp/mnt 2>/dev/null; then
		must mkfs.ext4 -q /dev/mapper/part
		must mount /dev/mapper/part /tmp/mnt
	fi
	jobs=()
	for job in "verified partial --offset=0 --size=2M --rw=randwrite --bsrange=512-16k --blockalign=512 --fsync=32" \
		"verified whole --offset=16M --size=8M --rw=randwrite --bs=64k --fdatasync=16" \
		"verified large --offset=32M --size=16M --rw=randwrite --bsrange=4k-1M --blockalign=4k" \
		"discards" "flushes" "files"; do
		# shellcheck disable=SC2086  # words
		$job >"${job// /_}.out" 2>&1 &
		jobs+=($! "${job// /_}.out")
	done
	trouble
	touch enough
	for ((i = 0; i < ${#jobs[@]}; i += 2)); do
		err=${jobs[i + 1]}
		wait "${jobs[i]}" || fail "${jobs[i + 1]}"
	done
	rm -f -- *.out
	must umount /tmp/mnt
	must e2fsck -fn /dev/mapper/part
	must dmsetup remove part
	err=
	[ "$(counted errors)" = 0 ] || fail "requests failed"
	written=$((written + $(counted write_bytes) / 1048576))
	must dd if="$dev" of=shown.raw bs=1M iflag=direct conv=sparse
	truncate -s 256M shown.raw
	must ubdmap del "$dev"
	[ "$image" = a.raw ] || must qemu-img check "$image"
	must qemu-img compare -f raw -F "${image#*.}" shown.raw "$image"
	rm shown.raw
	note "round $rounds ($kind): kills $kills, upgrades $upgrades, stops $stops, $written MiB written so far"
}

note "seed $seed, $time s"
while [ "$(date +%s)" -lt "$end" ]; do
	one_round
done
ok "$rounds rounds: $kills kills, $upgrades upgrades, $stops stops, $written MiB written"
