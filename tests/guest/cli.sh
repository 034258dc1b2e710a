#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-only
# needs: --smp 2 --mem 1G --disk 64M --timeout 600
#
# The command line on a device: what it prints, what it refuses, and that
# nothing is left where it fails.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/guest.inc"

dir=$(mktemp -d)
mnt=$dir/mnt
chmod 755 "$dir"
mkdir "$mnt"
# The mapper needs a file system with O_DIRECT, which tmpfs has since 6.6.
cd "$dir" || exit 1
truncate -s 64M a.raw

SAYS_LIMIT=30

nothing_left() {
	until_true 10 no_mapper
	list=$(ubdmap list)
	[ -z "$list" ] && no_mapper && ! ls /dev/ubdmap[0-9]* 2>/dev/null
}

# Without a "del" that waits for it a device goes some time after its mapper.
goes() {
	until_true 10 nothing_is_left || nothing_left
}

json_is_sound() {
	for c in "list" "stat" "map $dev"; do
		# shellcheck disable=SC2086  # words
		ubdmap $c --json | python3 -m json.tool >/dev/null || return 1
	done
}

# --- the ordinary way ---

dev=$(ubdmap add a.raw)
equal "add prints the device's name" "$dev" /dev/ubdmap0
check "which can be used at once" test -b "$dev"
equal "it has the image's size" "$(blockdev --getsize64 "$dev")" $((64 << 20))
equal "list names the image with its path" "$(field image "$dev")" "$dir/a.raw"
equal "list names the format" "$(field format "$dev")" raw
equal "list names the state" "$(field state "$dev")" live
equal "list names the owner" "$(field owner "$dev")" root
check "list names the mapper" grep -qa 'ubdmap.mapper' "/proc/$(field mapper "$dev")/cmdline"
check "list prints a table" sh -c "ubdmap list $dev | grep -q '^/dev/ubdmap0  *64M  *0 raw  *live'"
check "list finds it by its short name" ubdmap list ubdmap0
ln -s "$dev" link
check "list finds it by a link" ubdmap list ./link

dd if=/dev/urandom of=data bs=64k count=32 status=none
check "writes" dd if=data of="$dev" bs=64k oflag=direct status=none
check "reads back the same" cmp -n $((2 << 20)) data "$dev"
check "map shows where it is" sh -c "ubdmap map $dev | grep -q linear"
check "stat counts" sh -c "ubdmap stat $dev | grep -q 'bytes written  *2097152'"
for c in "stat" "stat $dev" "map $dev" "list" "list --json"; do
	check "'$c' that cannot be written fails" says 1 "could not be written" \
		sh -c "exec ubdmap $c >/dev/full"
done
if command -v python3 >/dev/null; then
	check "JSON is JSON" json_is_sound
else
	skip "JSON is JSON" "python3 is not installed"
fi
check "a second add gets another device" sh -c 'truncate -s 1M b.raw && ubdmap add -r b.raw | grep -qx /dev/ubdmap1'
equal "read-only is seen" "$(blockdev --getro /dev/ubdmap1)" 1
refuses "and refuses writes" dd if=/dev/zero of=/dev/ubdmap1 bs=4k count=1 oflag=direct
check "del of a read-only device" ubdmap del /dev/ubdmap1
check "del" ubdmap del "$dev"
check "nothing is left of them" nothing_left
check "the image has the data" cmp -n $((2 << 20)) data a.raw

dev=$(ubdmap add -b 4096 a.raw)
equal "the sector size is as asked for" "$(blockdev --getss "$dev")" 4096
check "del after that" ubdmap del "$dev"
dev=$(ubdmap add --read --fo raw --sec=4K a.raw)
equal "an abbreviated option is the mapper's, too" \
	"$(blockdev --getro "$dev") $(blockdev --getss "$dev")" "1 4096"
check "del after those" ubdmap del "$dev"

# --- names ---

deep=$dir
while [ ${#deep} -lt 3880 ]; do
	deep=$deep/$(printf '%0200d' 0)
done
mkdir -p "$deep"
# The longest that open() takes.
deep=$deep/$(printf "%0$((4095 - ${#deep} - 5))d" 0).raw
cp a.raw "$deep"
dev=$(ubdmap add "$deep")
equal "the longest name that there is is listed" "$(field image "$dev")" "$deep"
check "and in a list of all" sh -c "ubdmap list | grep -q '$deep\$'"
check "a mapper that takes over has it, too" ubdmap upgrade "$dev"
check "and a second add names it" says 4 ".raw: in use by another" ubdmap add "$deep"
check "del of it" ubdmap del "$dev"

# --- in use ---

dev=$(ubdmap add a.raw)
exec 9<"$dev"
check "an open device is not deleted, its user is named" says 4 "pid $$" ubdmap del "$dev"
exec 9<&-
mkfs.ext4 -q "$dev" && mount "$dev" "$mnt"
check "a mounted device is not deleted, the place is named" \
	says 4 "mounted on $mnt" ubdmap del "$dev"
check "a mapper does not give up a mounted device" sh -c \
	"kill -TERM $(field mapper "$dev"); sleep 1; ls $mnt >/dev/null && ubdmap stat $dev"
check "an image in use is refused" says 4 "a.raw" ubdmap add a.raw
umount "$mnt"
check "but it does once it is free" goes

dev=$(ubdmap add a.raw)
mount "$dev" "$mnt"
check "a mounted device is deleted by force" ubdmap del --force "$dev"
umount -l "$mnt"
check "nothing is left of that either" nothing_left

# --- on a disk that others use ---

# adds TEXT ARG...: a device is made, with one line on stderr that has TEXT, or none
adds() {
	text=$1
	shift
	dev=$(ubdmap add "$@" 2>err) || { cat err; return 1; }
	ubdmap upgrade "$dev" 2>>err && ubdmap del "$dev" || return 1
	cat err
	if [ -n "$text" ]; then
		[ "$(wc -l <err)" = 1 ] && grep -q "$text" err
	else
		[ ! -s err ]
	fi
}

mkfs.ext4 -q /dev/vda
check "a disk is added without a word" adds '' /dev/vda
mount /dev/vda "$mnt"
check "one that is mounted with a warning, once" adds "^ubdmap: /dev/vda: in use elsewhere" /dev/vda
check "and without where nothing is written" adds '' -r /dev/vda
umount "$mnt"
dmsetup create --noudevsync half --table "0 1000 linear /dev/vda 0"
check "one that another device is made of, too" adds "/dev/vda: in use elsewhere" /dev/vda
dmsetup remove --noudevsync half
check "and not any more when that is gone" adds '' /dev/vda
check "nothing is left of those" nothing_left

# --- several, and by their images ---

# add_three: of images of their own
add_three() {
	for i in 0 1 2; do
		truncate -s 1M several$i.raw
		ubdmap add several$i.raw || return 1
	done >added
	cat added
	[ "$(sort added | tr '\n' ' ')" = "/dev/ubdmap0 /dev/ubdmap1 /dev/ubdmap2 " ]
}

# some_left STATUS TEXT COMMAND...: as says; ubdmap1 stays
some_left() {
	says "$@" || return 1
	ubdmap list
	[ "$(ubdmap list | grep -o '^/dev/ubdmap[0-9]*')" = /dev/ubdmap1 ]
}

check "three are added" add_three
check "several are deleted at once" ubdmap del ubdmap0 /dev/ubdmap2 several1.raw
check "nothing is left of those three" nothing_left
check "and added again" add_three
exec 9</dev/ubdmap1
check "one that is in use does not keep the others, and is what counts" \
	some_left 4 "ubdmap1: in use" ubdmap del ubdmap0 ubdmap1 ubdmap2
check "nor does one that isn't there keep any" some_left 3 "no such device" ubdmap del ubdmap7
ubdmap add several0.raw >/dev/null
ubdmap add several2.raw >/dev/null
check "of all that stays which is in use" some_left 4 "ubdmap1: in use" ubdmap del --all
exec 9<&-
check "a user's are not all" \
	setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" del --all
check "of root's nothing is left by that" sh -c "ubdmap list | grep -q ubdmap1"
ubdmap add -f raw /dev/ubdmap1 >/dev/null
check "all are deleted, one that lies on another as well" ubdmap del -a
check "nothing is left of all" nothing_left
check "and all of none is no mistake" ubdmap del --all

dev=$(ubdmap add a.raw)
mkdir -p sub
ln -f a.raw sub/hard.raw
ln -sf ../a.raw sub/soft.raw
for name in a.raw "$dir/./a.raw" sub/hard.raw sub/soft.raw; do
	equal "list finds a device by its image $name" "$(ubdmap list --json "$name")" \
		"$(ubdmap list --json "$dev")"
done
check "stat does" sh -c "ubdmap stat a.raw | grep -qx $dev"
check "map does" ubdmap map a.raw
check "attach does" says 4 "$dev: has a mapper" ubdmap attach a.raw
check "upgrade does" ubdmap upgrade a.raw
check "what is no image of one is said to be none" says 3 "nor the image of one" \
	ubdmap list b.raw
check "del does" ubdmap del sub/soft.raw
check "nothing is left of that one" nothing_left
ubdmap add -r a.raw >/dev/null
ubdmap add -r sub/hard.raw >/dev/null
check "an image of two does not say which" says 1 "of /dev/ubdmap0 and of /dev/ubdmap1" \
	ubdmap del a.raw
ubdmap del -a
dev=$(ubdmap add /dev/vda)
mknod vda b "$((0x$(stat -c %t /dev/vda)))" "$((0x$(stat -c %T /dev/vda)))"
check "a disk is found by another node of it" ubdmap del ./vda
check "nothing is left of any" nothing_left

# --- wrong ---

: >empty.raw
check "an empty image is refused" says 1 "empty" ubdmap add empty.raw
truncate -s $(((1 << 20) + 512)) odd.raw
check "a size that is no multiple of the sector is refused" \
	says 1 "not a multiple of 4096" ubdmap add -b 4096 odd.raw
check "a folder is refused" says 1 "$dir" ubdmap add -f raw "$dir"
check "a fifo is refused, not waited for" sh -c 'mkfifo p.raw; exec timeout 30 ubdmap add p.raw 2>&1 | grep -q p.raw'
check "a device that isn't there" says 3 "no such device" ubdmap del ubdmap7
check "what isn't a device of ours" says 3 "not an ubdmap device" ubdmap del /dev/null
check "a user without permission cannot add" says 6 "no permission" \
	setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" add a.raw
check "but may look" setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" list
dev=$(ubdmap add a.raw)
check "a user cannot delete what is not his" says 6 "not yours" \
	setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" del "$dev"
check "nor look into it" says 6 "not yours .* as root" \
	setpriv --reuid=65534 --clear-groups "$(command -v ubdmap)" map "$dev"
check "a mapper that lives is not replaced" says 4 "has a mapper" ubdmap attach "$dev"
check "del after all that" ubdmap del "$dev"
check "a name nobody can read leaves no device" \
	sh -c 'ubdmap add a.raw >/dev/full 2>err; [ $? = 1 ] && grep -q printed err'
check "which takes a moment to go" goes
check "nor does one that goes nowhere" \
	sh -c 'ubdmap add a.raw >&- 2>err; [ $? = 1 ] && grep -q printed err'
check "nothing is left of those" goes

# --- killed ---

interrupted() {
	for ms in 005 010 020 040 080 120 160; do
		ubdmap add a.raw >out &
		pid=$!
		sleep 0.$ms
		kill -9 $pid 2>/dev/null
		wait $pid 2>/dev/null
		until_true 10 printed_is_there || return 1
		if [ -s out ]; then
			ubdmap del "$(cat out)" || return 1
		fi
	done
	goes
}

# A device is there exactly if its name was printed.
printed_is_there() {
	if [ -s out ]; then
		ubdmap list "$(cat out)" >/dev/null
	else
		no_mapper && [ -z "$(ubdmap list)" ]
	fi
}

check "add killed at any time leaves a device only if it named it" interrupted

# The keeper would start another mapper.
orphan() {
	mapper=$(field mapper "$1")
	kill -9 "$(ps -o ppid= -p "$mapper" | tr -d ' ')" "$mapper"
}

dev=$(ubdmap add a.raw)
orphan "$dev"
check "the device of a killed mapper is orphaned" until_true 10 is_state orphaned
check "attach starts a new one" ubdmap attach "$dev"
equal "it is live then" "$(field state "$dev")" live
orphan "$dev"
until_true 10 is_state orphaned
check "del of an orphan" ubdmap del "$dev"
check "nothing is left of it then" nothing_left

dev=$(trap '' CHLD; exec ubdmap add a.raw)
before=$(field mapper "$dev")
kill -9 "$before"
replaced() {
	is_state live && [ "$(field mapper "$dev")" != "$before" ]
}
check "a mapper is replaced though who added it ignores the end of children" \
	until_true 10 replaced
check "del of that device" ubdmap del "$dev"
check "which leaves nothing, nor a process" nothing_left

dev=$(ubdmap add a.raw)
kill -TERM "$(field mapper "$dev")"
check "a mapper asked to end takes the unused device along" goes

churn() {
	for i in 1 2 3 4; do
		(for _ in 1 2 3 4 5; do
			truncate -s 4M c$i.raw
			d=$(ubdmap add c$i.raw) && dd if="$d" of=/dev/null \
				bs=64k count=4 status=none && ubdmap del "$d" ||
				echo bad
		done) &
	done >churned 2>&1
	wait
	cat churned
	[ ! -s churned ]
}

check "many come and go at the same time" churn
check "nothing is left at the end" nothing_left
