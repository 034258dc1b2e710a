# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=bash disable=SC2034,SC2154
#
# Work with files, in a file system of its own on each device: . files.sh, after
# measure.sh. A row that is a file is the file system it is in.
#
#   ext4: untar               the sources of this project, from a tar in memory, then a sync
#   ext4: small files         fio makes, looks at and deletes files of 4 KiB
#   ext4: many files, mixed   reads and writes of all sizes in 64 files, page cache,
#                             an fsync now and then
#
# files_turn REGEX: every row once with those that match; what is counted is files,
# files, and requests in a second.

files_mnt=/tmp/benchfiles
# Where a row's own device is held by another row.
declare -A files_on=()

# Two megabytes that are there wherever this runs; not what was built.
files_tar() {
	[ -e "$work/files.tar" ] || (
		cd "$here/../.." &&
		find uapi kernel mapper slowpath tools tests docs -type f \
			-regex '.*\.\(c\|h\|sh\|md\|svg\)' -print0 |
		tar -cf "$work/files.tar" --null -T -
	)
}

load_untar() {
	tar -C "$1" -xf "$work/files.tar" && sync -f "$1" &&
		tar -tf "$work/files.tar" | wc -l
}

load_small() {
	local engine

	for engine in filecreate filestat filedelete; do
		fio --name=small --directory="$1" --ioengine=$engine --filesize=4k --nrfiles=500 \
			--openfiles=1 --output=/dev/null >/dev/null || return
	done
	sync -f "$1"
	echo 1500
}

load_mixed() {
	fio --name=mixed --directory="$1" --ioengine=psync --rw=randrw --bsrange=512-64k \
		--bs_unaligned --nrfiles=64 --filesize=4k-128k --file_service_type=random \
		--fsync=32 --number_ios=2000 --output-format=json --output="$work/mixed" >/dev/null &&
		sync -f "$1" &&
		jq '.jobs[0] | .read.total_ios + .write.total_ios' "$work/mixed"
}

busy_now() {
	awk -v hz="$(getconf CLK_TCK)" '$1 == "cpu" {
		printf "%d", ($2 + $3 + $4 + $7 + $8) * 1000 / hz }' /proc/stat
}

# one_files LOAD ROW FUNCTION FOLDER
one_files() {
	local start busy n

	busy=$(busy_now) start=${EPOCHREALTIME/./}
	n=$($3 "$4") || { why="$1, $2: failed"; return 1; }
	jq -nc --arg load "$1" --arg row "$2" --argjson n "$n" \
		--argjson us $((${EPOCHREALTIME/./} - start)) \
		--argjson busy $(($(busy_now) - busy)) '
		{ load: $load, row: $row, iops: ($n * 1e6 / $us),
		  cpu_us: ($busy * 1000 / $n) }' >>"$work/results"
}

# files_of ROW TARGET REGEX
files_of() {
	local folder=$files_mnt name status=0

	mkdir -p $files_mnt
	if [ -b "$2" ]; then
		if ! { mkfs.ext4 -q -F -E nodiscard,lazy_itable_init=0,lazy_journal_init=0 "$2" &&
			mount "$2" $files_mnt; }; then
			why="$1: no ext4 on $2"
			return 1
		fi
	else
		folder=${2%/*}
	fi
	folder+=/files
	for name in untar:untar "small files:small" "many files, mixed:mixed"; do
		[[ "ext4: ${name%:*}" =~ $3 ]] || continue
		mkdir -p "$folder"
		one_files "ext4: ${name%:*}" "$1" "load_${name#*:}" "$folder" || status=1
		rm -rf "$folder"
		[ $status = 0 ] || break
	done
	[ ! -b "$2" ] || again umount $files_mnt || status=1
	return $status
}

files_turn() {
	local row

	files_tar
	for row in "${rows[@]}"; do
		case ${row_of[$row]} in
		null | *null) continue ;;
		esac
		files_of "$row" "${files_on[$row]:-${row_of[$row]}}" "$1" || return
		checkpoint
	done
}
