#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 256M --disk 1G --timeout 800
#
# The life of a device: mappers that die at every stage, deletion in every
# state, the module's removal.  The driver alone, with kmap as its mapper.

. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio mkfs.ext4 parted

mkdir /tmp/fs /tmp/fs2
mkfs.ext4 -q /dev/vdb
mount /dev/vdb /tmp/fs
cleanup "umount /tmp/fs"
dd if=/dev/urandom of=/tmp/fs/file bs=1M count=32 status=none

state_is() {
	[ "$(kctl state "$n")" = "$1" ]
}

parked_is() {
	[ "$(counter parked)" = "$1" ]
}

parked_over() {
	[ "$(counter parked)" -gt "$1" ]
}

# Reads 64 KiB at each MiB given, without the page cache.
reads() {
	for at; do
		dd if="$dev" of=/dev/null bs=64k count=1 skip=$((at * 16)) \
			iflag=direct status=none || return 1
	done
}

# --- what others see ---

serve /tmp/fs/file
sys=/sys/block/ubdmap$n
equal "the disk has its size" "$(cat "$sys/size")" 65536
equal "it takes FLUSH and FUA" "$(cat "$sys/queue/write_cache" "$sys/queue/fua" | tr '\n' ' ')" "write back 1 "
equal "it says its blocks" \
	"$(cat "$sys/queue/logical_block_size" "$sys/queue/physical_block_size" | tr '\n' ' ')" "512 4096 "
equal "and that it can discard" "$(cat "$sys/queue/discard_granularity")" 4096
equal "it is not rotating, removable or read-only" \
	"$(cat "$sys/queue/rotational" "$sys/removable" "$sys/ro" | tr '\n' ' ')" "0 0 0 "
inflight=$(cat "$sys/inflight")
equal "nothing is in flight" "$(echo "$inflight" | tr -s ' ')" " 0 0"
before=$(cut -d' ' -f3 <"$sys/stat" 2>/dev/null; awk '{ print $3 }' "$sys/stat")
dd if="$dev" of=/dev/null bs=1M count=8 iflag=direct status=none
after=$(awk '{ print $3 }' "$sys/stat")
equal "sectors that were read are counted once" \
	$((after - $(echo "$before" | tail -n 1))) 16384
misses=$(counter read_misses)
dd if="$dev" of=/dev/null bs=1M count=8 iflag=direct status=none
equal "a second read of the same misses nothing" "$(counter read_misses)" "$misses"

# --- a mapper that is killed ---

reads 1 2 3
kill -KILL $mapper
wait $mapper 2>/dev/null
check "a device outlives its mapper" until_true 5 state_is orphaned
check "what is mapped is read on" timeout 10 dd if="$dev" of=/tmp/got bs=1M count=8 iflag=direct status=none
check "and is right" cmp -n 8388608 /tmp/got /tmp/fs/file
check "what is mapped is written on" timeout 10 dd if=/tmp/got of="$dev" bs=1M count=8 oflag=direct status=none
check "what was written clean is flushed without a mapper" timeout 10 sync "$dev"
dd if="$dev" of=/tmp/late bs=1M skip=20 count=4 iflag=direct status=none &
late=$!
check "what is not mapped waits" until_true 5 sh -c "[ \$(kctl stat $n parked) -gt 0 ]"
sleep 1
check "without an end" kill -0 $late
refuses "it is not deleted while somebody reads it" kctl del "$n"
old=$n
serve -a "$n" /tmp/fs/file
equal "another mapper attaches to it" "$n" "$old"
check "what waited goes on" wait $late
check "and is right, too" sh -c 'tail -c +20971521 /tmp/fs/file | cmp -n 4194304 - /tmp/late'
check "it is live again" state_is live
refuses "a third mapper is refused" timeout 10 kmap -a "$n" /tmp/fs/file
check "it can be deleted" kctl del "$n"
wait $mapper
check "nothing is left of it" gone "$n"

# --- deletion, refused and forced ---

serve /tmp/fs/file
mkfs.ext4 -q "$dev"
mount "$dev" /tmp/fs2
refuses "a mounted device is not deleted" kctl del "$n"
check "and goes on" sh -c 'cp /bin/ls /tmp/fs2/ls && sync /tmp/fs2/ls && cmp /bin/ls /tmp/fs2/ls'
fio --name=load --directory=/tmp/fs2 --size=4M --numjobs=3 --rw=randrw --bs=4k --time_based \
	--runtime=60 --fsync=8 >/dev/null 2>&1 &
load=$!
sleep 2
check "by force it is, mounted and under load" timeout 60 kctl del -f "$n"
check "nothing is left of it" until_true 10 gone "$n"
kill $load 2>/dev/null
wait $load
check "it can be unmounted afterwards" timeout 30 umount /tmp/fs2

serve -w -p /dev/vda
dd if=/dev/zero of="$dev" bs=64k count=4 oflag=direct status=none
timeout 60 sync "$dev" &
waiter=$!
check "a flush can wait for the mapper" until_true 5 parked_is 1
kill -KILL $mapper
wait $mapper 2>/dev/null
check "deletion by force ends an orphan" timeout 60 kctl del -f "$n"
wait $waiter
equal "with an error for who waited" "$(( $? > 0 && $? < 124 ))" 1
check "nothing is left of it" until_true 10 gone "$n"

serve -w -p /dev/vda
dd if=/dev/zero of="$dev" bs=64k count=4 oflag=direct status=none
kill -KILL $mapper
wait $mapper 2>/dev/null
until_true 5 state_is orphaned
refuses "an orphan with changes that nobody has recorded is not deleted" kctl del "$n"
check "but by force" kctl del -f "$n"

serve -h -x -g 3 /dev/vda
fio --allow_file_create=0 --name=load --filename="$dev" --direct=1 --ioengine=libaio \
	--iodepth=64 --size=64M --rw=randrw --bs=4k --time_based --runtime=60 >/dev/null 2>&1 &
load=$!
check "dozens of misses wait" until_true 30 parked_over 30
check "by force with dozens of misses waiting" timeout 60 kctl del -f "$n"
check "whoever waited is told" until_true 20 sh -c "! kill -0 $load"
wait $load
equal "by an error" "$(( $? > 0 ))" 1
check "nothing is left of it" until_true 10 gone "$n"

# --- one bio over several extents, one of which fails ---

serve -e 3 -g 7 /dev/vda
refuses "a read that meets an error fails" dd if="$dev" of=/dev/null bs=1M count=1 iflag=direct
check "what lies beside it is read" dd if="$dev" of=/dev/null bs=64k count=3 iflag=direct
check "nothing waits afterwards" parked_is 0
kctl del "$n"

# --- every stage, many times ---

# churn COUNT IMAGE INDEX
churn() {
	times=$1 img=$2 img_nr=$3
	i=0
	while [ $i -lt "$times" ]; do
		i=$((i + 1))
		case $((i % 6)) in
		0) set -- -s new ;;
		1) set -- -s backing ;;
		2) set -- -s armed ;;
		*) set -- -g 3 ;;
		esac
		kmap "$@" "$img" >"/tmp/churn.$1.$img_nr" 2>&1 &
		pid=$!
		sleep 0.0$((i * 7 % 10))
		[ $((i % 5)) != 4 ] || dd if="/dev/ubdmap$img_nr" of=/dev/null bs=64k \
			count=2 iflag=direct 2>/dev/null &
		kill -KILL $pid 2>/dev/null
		wait $pid 2>/dev/null
	done
}

none() {
	! ls /dev/ubdmap[0-9]* && ! kctl state 0 && ! kctl state 1
}

# What a killed mapper leaves that had started.
sweep() {
	for d in /sys/block/ubdmap*; do
		[ -e "$d" ] || continue
		# It may have gone by itself meanwhile.
		i=${d#/sys/block/ubdmap}
		kctl del -f "$i" || ! kctl state "$i" || return 1
	done
	until_true 20 none
}

truncate -s 1M /tmp/c0 /tmp/c1
rounds() {
	r=0
	while [ $r -lt 10 ]; do
		churn 10 /tmp/c0 0 2>/dev/null &
		one=$!
		churn 10 /tmp/c1 1 2>/dev/null
		wait $one
		sweep || return 1
		r=$((r + 1))
	done
}
check "mappers killed at any stage leave nothing, 200 times" rounds

again() {
	i=0
	while [ $i -lt 30 ]; do
		serve /tmp/c0 && kctl del "$n" && wait $mapper || return 1
		i=$((i + 1))
	done
}
check "a device is made and deleted 30 times" again

serve /tmp/fs/file
refuses "the module is not removed while a device exists" rmmod ubdmap
kill -KILL $mapper
wait $mapper 2>/dev/null
refuses "nor while an orphan does" rmmod ubdmap
check "by force it goes" kctl del -f "$n"
check "then the module can be" until_true 10 rmmod ubdmap
