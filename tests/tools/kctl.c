// SPDX-License-Identifier: GPL-2.0-only
/*
 * kctl.c - the driver's control plane for tests, without the ubdmap command.
 *
 *   kctl del [-f] N       ask for deletion, wait for its end
 *   kctl stat N NAME...   the named counters, one a line
 *   kctl state N          its state, as a word
 *   kctl map N            extents: lba len type perm off tid
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "libubdmap.h"

#define DEL_SECONDS	90

static const struct {
	const char *name;
	enum ubdm_stat stat;
} stats[] = {
	{ "read_hits", UBDM_S_READ_HITS },
	{ "write_hits", UBDM_S_WRITE_HITS },
	{ "read_misses", UBDM_S_READ_MISSES },
	{ "write_misses", UBDM_S_WRITE_MISSES },
	{ "zero_fills", UBDM_S_ZERO_FILLS },
	{ "faults", UBDM_S_FAULTS },
	{ "flush_kernel", UBDM_S_FLUSH_KERNEL },
	{ "flush_mapper", UBDM_S_FLUSH_MAPPER },
	{ "extents", UBDM_S_EXTENTS },
	{ "parked", UBDM_S_PARKED },
	{ "backings", UBDM_S_BACKINGS },
	{ "inline", UBDM_S_INLINE },
	{ "worker", UBDM_S_WORKER },
	{ "errors", UBDM_S_ERRORS },
};

static const char *const states[] = {
	[UBDM_STATE_NEW] = "new",
	[UBDM_STATE_LIVE] = "live",
	[UBDM_STATE_ORPHANED] = "orphaned",
	[UBDM_STATE_FAILED] = "failed",
	[UBDM_STATE_DYING] = "dying",
};

static struct ubdm_ctl *ctl;

static int fail(const char *what, int error)
{
	fprintf(stderr, "kctl: %s: %s\n", what, strerror(-error));
	return 1;
}

/* An event may be lost where thousands come: the device tells too. */
static int wait_deleted(struct ubdm_ctl *events, uint32_t index)
{
	struct pollfd p = { .fd = ubdm_ctl_fd(events), .events = POLLIN };
	time_t end = time(NULL) + DEL_SECONDS;
	struct ubdm_event_info ev;
	struct ubdm_device dev;

	while (time(NULL) < end) {
		poll(&p, 1, 100);
		while (ubdm_ctl_event(events, &ev) == 1)
			if (ev.index == index && ev.event == UBDM_EV_DELETED &&
			    ev.error)
				return ev.error;
		if (ubdm_ctl_get(ctl, index, &dev) == -ENODEV)
			return 0;
	}
	return -ETIMEDOUT;
}

static int del(int argc, char **argv)
{
	bool force = argc > 0 && !strcmp(argv[0], "-f");
	struct ubdm_ctl *events;
	uint32_t index;
	int ret;

	if (argc != 1 + force)
		return 2;
	index = strtoul(argv[force], NULL, 10);
	ret = ubdm_ctl_open(&events);
	if (!ret)
		ret = ubdm_ctl_subscribe(events);
	if (!ret)
		ret = ubdm_ctl_delete(ctl, index, force);
	if (!ret)
		ret = wait_deleted(events, index);
	return ret ? fail("del", ret) : 0;
}

static int stat_one(const struct ubdm_stats *s, const char *name)
{
	for (size_t i = 0; i < sizeof(stats) / sizeof(stats[0]); i++) {
		if (strcmp(stats[i].name, name))
			continue;
		printf("%llu\n", (unsigned long long)s->v[stats[i].stat]);
		return 0;
	}
	return 2;
}

static int stat_some(int argc, char **argv)
{
	struct ubdm_stats s;
	int ret, i;

	if (argc < 2)
		return 2;
	ret = ubdm_ctl_stats(ctl, strtoul(argv[0], NULL, 10), &s);
	if (ret)
		return fail("stat", ret);
	for (i = 1; i < argc && !ret; i++)
		ret = stat_one(&s, argv[i]);
	return ret;
}

static int state(int argc, char **argv)
{
	struct ubdm_device dev;
	int ret;

	if (argc != 1)
		return 2;
	ret = ubdm_ctl_get(ctl, strtoul(argv[0], NULL, 10), &dev);
	if (ret)
		return fail("state", ret);
	puts(dev.state < sizeof(states) / sizeof(states[0]) ?
	     states[dev.state] : "?");
	return 0;
}

static int print_extent(void *arg, const struct ubdm_extent *e)
{
	(void)arg;
	printf("%llu %llu %u %u %llu %llu\n", (unsigned long long)e->lba,
	       (unsigned long long)e->len, e->type, e->perm,
	       (unsigned long long)e->off, (unsigned long long)e->tid);
	return 0;
}

static int map(int argc, char **argv)
{
	int ret;

	if (argc != 1)
		return 2;
	ret = ubdm_ctl_extents(ctl, strtoul(argv[0], NULL, 10), print_extent, NULL);
	return ret ? fail("map", ret) : 0;
}

int main(int argc, char **argv)
{
	int ret = ubdm_ctl_open(&ctl);

	if (ret)
		return fail("netlink", ret);
	if (argc < 2)
		return 2;
	if (!strcmp(argv[1], "del"))
		return del(argc - 2, argv + 2);
	if (!strcmp(argv[1], "stat"))
		return stat_some(argc - 2, argv + 2);
	if (!strcmp(argv[1], "state"))
		return state(argc - 2, argv + 2);
	if (!strcmp(argv[1], "map"))
		return map(argc - 2, argv + 2);
	return 2;
}
