#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-only
#
# The command line where there is no driver: one clear line for each mistake,
# the documented exit status, nothing left behind.
. "$(dirname "$0")/../guest/lib.sh"

here=$(cd "$(dirname "$0")/../.." && pwd)
PATH=$here/build:$PATH
requires ubdmap

if [ -e /dev/ubdmap ]; then
	echo "1..0 # SKIP the driver is loaded"
	trap - EXIT
	exit 77
fi

dir=$(mktemp -d)
cleanup "rm -rf '$dir'"
cd "$dir" || exit 1
truncate -s 16M a.raw

lists_commands() {
	ubdmap --help >out && for c in add del list stat map attach detach upgrade monitor bench; do
		grep -q "^  $c " out || return 1
		ubdmap $c --help >"$c" && grep -q "^usage: ubdmap $c" "$c" || return 1
		ubdmap help $c | cmp - "$c" || return 1
	done
}

check "help lists the commands, and each has its own" lists_commands
check "the version is one line" sh -c 'ubdmap --version | grep -q "^ubdmap [0-9]"'
check "help that cannot be written is a failure" \
	says 1 "could not be written: No space" sh -c 'exec ubdmap --help >/dev/full'
refuses "no command is wrong usage" ubdmap
check "an unknown command is wrong usage" says 2 "no command 'mont'" ubdmap mont
check "so is help on one" says 2 "no command 'mont'" ubdmap help mont
check "an unknown option is wrong usage" says 2 "-Z: no such option" ubdmap add -Z a.raw
check "among others too" says 2 "-Z: no such option" ubdmap add -Zr a.raw
check "or with options alone" says 2 "-x: no such option" ubdmap stat -xJ
check "a letter without its argument is named" says 2 "-b: no such option, or" ubdmap add -rb
check "an option of the mapper is none of add" says 2 "no such option" \
	ubdmap add --ready-fd=1 a.raw
check "which is named, not its argument" says 2 "--ready-fd: no such option" \
	ubdmap add --ready-fd 1 a.raw
check "a missing argument is wrong usage" says 2 "argument is missing" ubdmap add -b
check "a missing image is wrong usage" says 2 "which image" ubdmap add
check "two images are wrong usage" says 2 "one image" ubdmap add a.raw b.raw
check "an unknown format names those there are" says 2 "raw and qcow2" \
	ubdmap add -f vmdk a.raw
for b in 0 100 511 513 8192 1K5 -512 99999999999999999999; do
	check "a sector of $b bytes is refused" says 2 "512, 1024, 2048" \
		ubdmap add -b "$b" a.raw
done
for s in 0 x 3x -1 99999999999G 1Kb; do
	check "a cache of '$s' is refused" says 2 "not a size" \
		ubdmap add "--cache-size=$s" a.raw
done
for s in x -1 3s 86401 ''; do
	check "a timeout of '$s' is refused" says 2 "at most 86400" \
		ubdmap add "--space-timeout=$s" a.raw
	check "for orphans too" says 2 "at most 86400" ubdmap add "--orphan-timeout=$s" a.raw
done
check "an image that isn't there is named" says 3 "nope.raw: No such file" \
	ubdmap add nope.raw
check "del wants a device" says 2 "which device" ubdmap del
check "or all of them, and none by name" says 2 "or --all" ubdmap del -a ubdmap0
check "detach wants a device" says 2 "which device" ubdmap detach
check "upgrade wants a device" says 2 "which device" ubdmap upgrade
check "or all of them, not both" says 2 "one, or --all" ubdmap upgrade --all ubdmap0
check "map wants a device" says 2 "which device" ubdmap map
for c in map attach detach; do
	check "and $c no more than one" says 2 "one device" ubdmap $c ubdmap0 ubdmap1
done
check "list wants one device at most" says 2 "one device" ubdmap list a b
check "a misspelt option of del does not delete" says 2 "--frce" ubdmap del --frce ubdmap0

check "bench wants a file" says 2 "which file or device" ubdmap bench
check "bench wants no more than one" says 2 "one file" ubdmap bench a b
check "bench does not take an unknown option for a file" says 2 "--overwite" \
	ubdmap bench --overwite a.raw
for v in 0 -1 x 3601 ''; do
	check "a measurement of '$v' seconds is refused" says 2 "from 1 to 3600" \
		ubdmap bench "--runtime=$v" scratch
done
check "no turns at all are refused" says 2 "from 1 to 1000" ubdmap bench --turns 0 scratch
for v in 1M 15M x -1; do
	check "a size of '$v' is refused" says 2 "16M or more" ubdmap bench "--size=$v" scratch
done
check "a pattern that is none is refused" says 2 "regular expression" \
	ubdmap bench --rows 'file: (' scratch
check "so is one of loads" says 2 "regular expression" ubdmap bench --loads '[' scratch
check "bench does not overwrite a file unasked" says 1 "say --overwrite" ubdmap bench a.raw
check "nor use more of it than there is" says 1 "has only" \
	ubdmap bench --overwrite --size 17M a.raw
check "a folder is no scratch file" says 1 "neither a file" ubdmap bench --overwrite .
check "nor is a terminal" says 1 "neither a file" ubdmap bench --overwrite /dev/null
check "a folder that isn't there is named" says 3 "no/such: No such file" ubdmap bench no/such

for c in "add a.raw" "list" "stat" "del ubdmap0" "del -a" "map ubdmap0" "attach ubdmap0" \
	"attach a.raw" "detach ubdmap0" "upgrade --all" "monitor" "bench scratch" \
	"bench --overwrite a.raw"; do
	# shellcheck disable=SC2086  # words
	check "'$c' without the driver says how to get it" \
		says 5 "ubdmap driver" ubdmap $c
done
check "JSON is not printed on failure" says 5 "ubdmap driver" ubdmap list --json

without_streams() {
	"$@" <&- >&-
}
check "with no stdin and no stdout a mapper that fails is still heard" \
	says 5 "ubdmap driver" without_streams ubdmap attach ubdmap0

# With nobody to wait for, the ends of children come to nobody's notice; dash cannot
# pass that on.
unheard() {
	timeout -s KILL 10 bash -c 'trap "" CHLD; exec "$@"' - "$@"
}
check "who ignores the end of children sees a mapper that fails" \
	says 5 "ubdmap driver" unheard ubdmap attach ubdmap0
ends_unheard() {
	rc=0
	unheard ubdmap mapper --ready-fd=3 a.raw 3>told || rc=$?
	[ "$rc" = 5 ] && grep -q "^fail 5 " told
}
check "and so does its keeper" ends_unheard

for fd in x '' 1x -1 99; do
	check "'$fd' is no descriptor for a mapper to tell" says 2 "not an open descriptor" \
		ubdmap mapper "--ready-fd=$fd" a.raw
done

# Of a size that is worth a warning, which names it.
name=$(printf 'a\nready 5\n.img')
truncate -s 1000 "$name"
ubdmap mapper --ready-fd=3 "$name" 3>told
equal "what an image is called does not pass for a message of its mapper" \
	"$(cut -d ' ' -f 1 told | tr '\n' ' ')" "warn fail "
equal "nor is it more than a line" "$(ubdmap add "$(printf 'no\n/dev/ubdmap7\033[2J')" 2>&1)" \
	"ubdmap: no?/dev/ubdmap7?[2J: No such file or directory; check the path"

# As long as a path may be: what is wrong comes behind it all the same.
deep=$dir
while [ ${#deep} -lt 3800 ]; do
	deep=$deep/$(printf '%0200d' 0)
done
mkdir -p "$deep"
truncate -s 1000 "$deep/odd.img"
: >"$deep/none"
check "what is wrong with a long path is said" says 1 "/none: its name does not tell" \
	ubdmap mapper "$deep/none"
ubdmap mapper --ready-fd=3 "$deep/odd.img" 3>told
check "so is a warning" grep -q "^warn $deep/odd.img: its size is not .* not shown$" told
long=$(printf '%09000d' 0)
check "and what is wrong with one that is too long" says 1 "0: File name too long" \
	ubdmap add "$long"
check "or with no path at all" says 2 "0: the formats are raw and qcow2" \
	ubdmap add -f "$long" a.raw
rm -r "${dir:?}/000"*

sleep 0.1
equal "no mapper is left" "$(pgrep -f 'ubdmap mapper' || true)" ""
equal "no file is left" "$(find . -name '*.raw' -o -name 'scratch*' | sort)" "./a.raw"
equal "and the one that is there is as it was" "$(stat -c '%s %b' a.raw)" "$((16 << 20)) 0"
