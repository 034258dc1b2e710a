#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 1 --mem 1G --disk 1G --disk 64M --timeout 900
#
# ubdmap bench, briefly: on a file that it makes, on a disk, and what it refuses.
# It measures what is there, says what is not, and leaves nothing behind, whatever
# ends it.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"
requires fio jq qemu-img qemu-nbd dmsetup losetup

dir=$(mktemp -d /mnt/XXXXXX)
mkfs.ext4 -q /dev/vda
mount /dev/vda "$dir"
cd "$dir" || exit 1

SAYS_LIMIT=120

nothing_left() {
	[ -z "$(ubdmap list)" ] && no_mapper || return 1
	[ -z "$(losetup -l)" ] || { losetup -l; return 1; }
	! dmsetup ls | grep ubdm || return 1
	! pidof qemu-nbd fio || return 1
	! ls -d /sys/block/nbd*/pid /dev/ublkc* 2>/dev/null || return 1
	[ ! -e scratch ] && ! ls -d ubdmap-bench* 2>/dev/null &&
		! ls -d "${TMPDIR:-/tmp}"/tmp.*/results 2>/dev/null
}

# row JSON-FILE ROW LOAD FIELD
row() {
	jq --arg row "$2" --arg load "$3" --arg f "$4" \
		'.rows[] | select(.row == $row and .load == $load) | .[$f]' "$1"
}

# sound FILE: each row that was measured has sensible figures for each load
sound() {
	jq -e --argjson turns "$2" '
		(.rows | map(.row) | unique | length) *
			(.rows | map(.load) | unique | length) == (.rows | length) and
		(.rows | all((.iops | length == $turns) and .min > 0 and
			.min <= .median and .median <= .max and
			.p50_us > 0 and .p50_us <= .p99_us and .cpu_us > 0))' "$1" || {
		jq -c '.rows[] | del(.iops)' "$1"
		return 1
	}
}

# --- refused ---

truncate -s 20M full.raw
check "a file with something in it needs --overwrite" says 1 "say --overwrite" \
	ubdmap bench full.raw
check "so does a disk" says 1 "say --overwrite" ubdmap bench /dev/vdb
check "a mounted disk is refused" says 4 "in use" ubdmap bench --overwrite /dev/vda
check "more of a disk than there is" says 1 "has only" \
	ubdmap bench --overwrite --size 65M /dev/vdb
check "a folder that isn't there" says 3 "No such" ubdmap bench nowhere/scratch
check "more than the file system has room for" says 1 "see --size" \
	ubdmap bench --size 3G scratch
check "rows that nobody has" says 1 "no row" ubdmap bench --size 16M --rows vfio scratch
check "loads that nobody has" says 1 "no load" ubdmap bench --size 16M --loads tapes scratch
check "a chart where none can be written" says 1 "cannot write" \
	ubdmap bench --svg nowhere/chart.svg scratch
check "a user without permission" says 6 "no permission" \
	setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" bench /tmp/scratch
mkdir -p prefix/sbin prefix/libexec/ubdmap/bench alone/sbin
cp "$(command -v ubdmap)" prefix/sbin/
cp "$(command -v ubdmap)" alone/sbin/
cp "$UBDMAP_SRC"/tools/bench/*.sh prefix/libexec/ubdmap/bench/
check "installed, it finds its scripts" says 1 "no load" \
	prefix/sbin/ubdmap bench --size 16M --loads tapes scratch
check "without them it says so" says 1 "scripts of bench are missing" \
	alone/sbin/ubdmap bench --size 16M scratch
rm -r prefix alone
check "refused, it leaves nothing" until_true 10 nothing_left
equal "and the file as it was" "$(stat -c %s full.raw)" $((20 << 20))

# --- a file ---

check "it measures a file that it makes" sh -c 'ubdmap bench --json --size 16M --runtime 1 \
	--turns 1 --loads "fsync" --svg chart.svg scratch >file.json'
check "with sound figures" sound file.json 1
# No package of Debian's has a ublk server.
measured='' missing="file: ublk; "
! command -v ublk rublk >/dev/null || measured=$missing missing=''
equal "each way that this machine has" "$(jq -r '[.rows[].row] | unique | join("; ")' file.json)" \
	"file: direct; file: loop, direct I/O; file: loop, page cache; file: qemu-nbd; file: ubdmap; ${measured}qcow2: qemu-nbd; qcow2: ubdmap, preallocated; qcow2: ubdmap, thin, written"
equal "and says why not the others" \
	"$(jq -r '[.skipped[] | select(.why | length > 10) | .row] | join("; ")' file.json)" \
	"${missing}file: dm-linear"
equal "a row is compared with the first" "$(row file.json "file: direct" "4K random writes, each with fsync" times)" 1
check "the chart is one" sh -c 'grep -q "^<svg" chart.svg && grep -q "qcow2: ubdmap, thin" chart.svg && tail -n 1 chart.svg | grep -q "^</svg>"'
check "nothing is left of it" until_true 10 nothing_left

# --- a disk ---

check "it measures a disk, and prints a table" sh -c 'ubdmap bench --size 32M --runtime 1 \
	--turns 2 --rows "^disk: (d|l.*direct|ubdmap)" --loads "70 %|128K sequential reads" \
	--overwrite /dev/vdb >table 2>err'
equal "without a word of what it put on the disk besides" "$(cat err)" ""
sed 's/^/# /' table
equal "of the rows and loads asked for" "$(grep -c '^disk: .* [0-9]' table)" 8
refuses "and none else" grep -E '^(qcow2|file)|QD 1 ' table
check "nothing is left of that" until_true 10 nothing_left

: >empty
check "an empty file is used without a word" \
	ubdmap bench --size 16M --runtime 1 --turns 1 --rows "file: ubdmap" --loads "reads, QD 32" empty
equal "and is empty again" "$(stat -c %s empty)" 0
unwritten() {
	rc=0
	ubdmap bench --size 16M --runtime 1 --turns 1 --rows "direct$" --loads "reads, QD 1$" \
		scratch >/dev/full 2>err || rc=$?
	cat err
	[ $rc = 1 ]
}
check "a table that cannot be written is a failure like another" unwritten
check "a file's size is what is used" sh -c 'ubdmap bench --json --overwrite --runtime 1 \
	--turns 1 --rows "direct$" --loads "writes, QD 32" full.raw >out && grep "mib.: 20," out'

# --- ended from outside ---

# While it makes its rows, and while it measures.
ended_by() {
	# What a script starts in the background has SIGINT ignored.
	env --default-signal=INT \
		ubdmap bench --size 16M --runtime 2 --turns 9 scratch >out 2>err &
	pid=$!
	sleep "$2"
	kill "-$1" $pid || return
	wait $pid && return 1
	until_true 20 nothing_left
}
for after in 0.5 2 5 20; do
	check "SIGINT after $after s leaves nothing" ended_by INT $after
done
check "SIGTERM leaves nothing" ended_by TERM 8
check "SIGKILL leaves nothing, for the script outlives it" ended_by KILL 3

# taken_away REGEX: without its device it ends, with one line that REGEX is in
taken_away() {
	ubdmap del --force ubdmap0
	wait "$pid" && { echo "it went on"; return 1; }
	cat out err
	[ "$(wc -l <err)" = 1 ] && grep -q "$1" err && [ ! -s out ]
}

# A row that breaks while it is being measured, which takes long enough to be seen.
broken() {
	ubdmap bench --size 16M --runtime $((5 * ${UBDMAP_SLOW:-1})) --turns 2 \
		--rows "file: ubdmap" --loads "reads, QD 1$" scratch >out 2>err &
	pid=$!
	# What fills the row is dd.
	until_true 60 sh -c 'for p in $(pidof fio); do
		ls -l /proc/$p/fd; done | grep "ubdmap0$"' || { echo "no fio has it"; return 1; }
	taken_away "^ubdmap: fio.*file: ubdmap"
}
check "a device that fails meanwhile is an error, said in a line" broken
check "and nothing is left of it" until_true 10 nothing_left

# The same before fio looks at it: while dd fills it, once it is there.
lost() {
	ubdmap bench --size 16M --runtime 1 --turns 1 --rows "file: (direct|ubdmap)" \
		--loads "reads, QD 1$" scratch >out 2>err &
	pid=$!
	until_true 60 test -b /dev/ubdmap0 || { echo "no device"; return 1; }
	taken_away "ubdmap0"
}
check "one that is lost before is named" lost
check "and nothing is left of that" until_true 10 nothing_left
cd /
