# SPDX-License-Identifier: GPL-2.0-only
# shellcheck shell=sh
#
# TAP for test scripts, to be sourced first: . "$(dirname "$0")/lib.sh"
#
#   check "claim" COMMAND...    holds when COMMAND succeeds; its output is shown
#                               when it does not
#   refuses "claim" COMMAND...  holds when COMMAND fails, by itself and not by a
#                               signal
#   check "claim" says STATUS TEXT COMMAND...
#                               holds when it ends with that status and one line on
#                               stderr, which has TEXT; within $SAYS_LIMIT seconds
#   equal "claim" A B           holds when the two texts are the same
#   ok "claim"                  held
#   not_ok "claim" [WHY]        did not
#   skip "claim" WHY            could not be tried
#   requires COMMAND...         skip the whole script where one is missing
#   plan N                      exactly N claims are to be made (optional)
#   note TEXT                   for the reader
#   cleanup "COMMAND"           run at the end, last named first
#
# The script's end writes the plan and sets the status, also when set -e ends it.

tap_done=0 tap_failed=0 tap_plan='' tap_cleanup=':' tap_whole_skip=''
tap_log=$(mktemp)

note() {
	printf '# %s\n' "$*"
}

ok() {
	tap_done=$((tap_done + 1))
	printf 'ok %d - %s\n' "$tap_done" "$1"
}

not_ok() {
	tap_done=$((tap_done + 1))
	tap_failed=$((tap_failed + 1))
	printf 'not ok %d - %s\n' "$tap_done" "$1"
	[ -z "${2:-}" ] || printf '%s\n' "$2" | sed 's/^/# /'
}

skip() {
	tap_done=$((tap_done + 1))
	printf 'ok %d - %s # SKIP %s\n' "$tap_done" "$1" "${2:-}"
}

# Not in a condition's negation or pipe: functions given as COMMAND may set
# variables that the script wants.
check() {
	tap_claim=$1
	shift
	if "$@" >"$tap_log" 2>&1; then
		ok "$tap_claim"
	else
		tap_rc=$?
		not_ok "$tap_claim" "status $tap_rc from: $*
$(tail -n 40 "$tap_log")"
	fi
}

refuses() {
	tap_claim=$1
	shift
	tap_rc=0
	"$@" >"$tap_log" 2>&1 || tap_rc=$?
	if [ "$tap_rc" -gt 0 ] && [ "$tap_rc" -lt 124 ]; then
		ok "$tap_claim"
	else
		not_ok "$tap_claim" "status $tap_rc from: $*
$(tail -n 40 "$tap_log")"
	fi
}

says() {
	tap_status=$1 tap_text=$2
	shift 2
	tap_rc=0
	# shellcheck disable=SC2086  # a command, or none
	${SAYS_LIMIT:+timeout $SAYS_LIMIT} "$@" >out 2>err || tap_rc=$?
	if [ "$tap_rc" = "$tap_status" ] && [ "$(wc -l <err)" = 1 ] &&
	   grep -q -- "$tap_text" err && [ ! -s out ]; then
		return 0
	fi
	echo "status $tap_rc, stdout:"
	cat out
	echo "stderr:"
	cat err
	return 1
}

equal() {
	if [ "$2" = "$3" ]; then
		ok "$1"
	else
		not_ok "$1" "one:   $2
other: $3"
	fi
}

plan() {
	tap_plan=$1
}

requires() {
	for tap_need; do
		if ! command -v "$tap_need" >/dev/null; then
			tap_whole_skip="$tap_need is not installed"
			exit 77
		fi
	done
}

cleanup() {
	tap_cleanup="$*; $tap_cleanup"
}

tap_end() {
	tap_rc=$?
	set +e
	eval "$tap_cleanup" >/dev/null 2>&1
	rm -f "$tap_log"
	if [ -n "$tap_whole_skip" ]; then
		echo "1..0 # SKIP $tap_whole_skip"
		exit 77
	fi
	if [ "$tap_rc" -ne 0 ]; then
		not_ok "the script runs to its end" "it ended with status $tap_rc"
	elif [ -n "$tap_plan" ] && [ "$tap_plan" -ne "$tap_done" ]; then
		not_ok "as many claims as planned" "$tap_done, not $tap_plan"
	fi
	echo "1..$tap_done"
	[ "$tap_failed" -eq 0 ] || exit 1
	exit 0
}
trap tap_end EXIT
