// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_monitor.c - ubdmap monitor: what happens to devices, as it happens.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "cmd.h"

static const char *const events[] = {
	[UBDM_EV_CREATED] = "created",
	[UBDM_EV_LIVE] = "live",
	[UBDM_EV_ORPHANED] = "orphaned",
	[UBDM_EV_ATTACHED] = "attached",
	[UBDM_EV_DELETED] = "deleted",
	[UBDM_EV_STALLED] = "stalled",
	[UBDM_EV_BACKING_ERROR] = "backing-error",
	[UBDM_EV_SPACE] = "space",
	[UBDM_EV_RECOVERED] = "recovered",
	[UBDM_EV_DETACHED] = "detached",
};

static const char *const kinds[] = {
	[UBDM_FAULT_READ] = "read",	    [UBDM_FAULT_WRITE] = "write",
	[UBDM_FAULT_DISCARD] = "discard",   [UBDM_FAULT_ZEROES] = "zeroing",
	[UBDM_FAULT_FLUSH] = "flush",
};

#define NR(table) (sizeof(table) / sizeof((table)[0]))

static const char *event_name(uint32_t i)
{
	return i < NR(events) && events[i] ? events[i] : "?";
}

static const char *kind_name(uint32_t i)
{
	return i < NR(kinds) && kinds[i] ? kinds[i] : "?";
}

static int print_event(const struct ubdm_event_info *ev)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	printf("%lld.%03ld /dev/ubdmap%u %s", (long long)t.tv_sec,
	       t.tv_nsec / 1000000, ev->index, event_name(ev->event));
	if (ev->event == UBDM_EV_STALLED)
		printf(" %s at byte %llu, %llu bytes, %u ms",
		       kind_name(ev->kind),
		       (unsigned long long)ev->sector << 9,
		       (unsigned long long)ev->sectors << 9, ev->waited_ms);
	if (ev->error)
		printf(" (%s)", strerror(-ev->error));
	putchar('\n');
	return output_done();
}

static int watch(struct ubdm_ctl *ctl)
{
	struct pollfd p = { .fd = ubdm_ctl_fd(ctl), .events = POLLIN };
	struct ubdm_event_info ev;
	int ret, status = EXIT_OK;

	while (!status) {
		if (poll(&p, 1, -1) < 0 && errno != EINTR)
			return fail(EXIT_FAIL, "poll: %s", strerror(errno));
		while (!status && (ret = ubdm_ctl_event(ctl, &ev)) > 0)
			status = print_event(&ev);
		if (!status && ret == -ENOBUFS)
			warn("some events were lost");
		else if (!status && ret < 0)
			return fail(exit_status_of(ret), "events: %s",
				    strerror(-ret));
	}
	return status;
}

static int run_monitor(int argc, char **argv)
{
	static const struct arguments want = { 0, 0, NULL, "it takes no argument" };
	static const struct flag none[] = { {} };
	int status = parse_flags(&cmd_monitor, argc, argv, none, &want);
	struct ubdm_ctl *ctl;
	int ret;

	if (status != PARSED)
		return status;
	status = driver_ctl(&ctl);
	if (status)
		return status;
	ret = ubdm_ctl_subscribe(ctl);
	if (ret)
		status = fail(exit_status_of(ret), "events: %s%s",
			      strerror(-ret),
			      ret == -EPERM ? "; run as root" : "");
	else
		status = watch(ctl);
	ubdm_ctl_close(ctl);
	return status;
}

const struct command cmd_monitor = {
	.name = "monitor",
	.args = "",
	.summary = "print what happens to devices, as it happens",
	.help = "Prints a line for each event until it is interrupted: seconds since boot, the\n"
		"device, the event: created, live, orphaned, attached, detached, deleted,\n"
		"stalled (a miss has had no answer for 5 seconds; which one), space (writes\n"
		"wait for space below), recovered (neither any more), backing-error.\n"
		"\n"
		"  -h, --help              this\n",
	.run = run_monitor,
};
