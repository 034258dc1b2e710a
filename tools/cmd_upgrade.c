// SPDX-License-Identifier: GPL-2.0-only
/*
 * cmd_upgrade.c - ubdmap upgrade: this program's mapper in place of the running
 * one.
 *
 * The new mapper is started first and gets ready as far as it can; then it asks
 * the old one to make room, and attaches.  Hits need neither.  Misses wait in
 * between, and the driver knows how long.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cmd.h"

#define POLL_MS 10
#define SETTLE_MS 10000 /* for misses that waited to be answered */

/* The longest pause, once all that waited before is answered; @seen: before that. */
static uint64_t longest_pause(struct ubdm_ctl *ctl, uint32_t index,
			      uint64_t seen)
{
	struct ubdm_stats s = { .v = { 0 } };

	for (int ms = 0; ms < SETTLE_MS; ms += POLL_MS) {
		if (ubdm_ctl_stats(ctl, index, &s))
			break;
		if (s.v[UBDM_S_WAITING_MS] <= (uint64_t)ms)
			break;
		poll(NULL, 0, POLL_MS);
	}
	if (s.v[UBDM_S_LONGEST_MS] > seen)
		seen = s.v[UBDM_S_LONGEST_MS];
	return s.v[UBDM_S_WAITING_MS] > seen ? s.v[UBDM_S_WAITING_MS] : seen;
}

/* It was said why nothing was replaced; was there still something to replace? */
static bool needs_none(struct ubdm_ctl *ctl, uint32_t index)
{
	struct ubdm_device now;
	int ret = ubdm_ctl_get(ctl, index, &now);

	return ret == -ENODEV || (!ret && now.state == UBDM_STATE_DETACHED);
}

static int upgrade_one(struct ubdm_ctl *ctl, const struct ubdm_device *dev)
{
	char path[32], *args[] = { "--attach", path, "--take-over" };
	struct ubdm_device now;
	struct launched out;
	int status;

	device_path(dev->index, path);
	if (dev->state == UBDM_STATE_DETACHED) {
		printf("%s: needs no mapper\n", path);
		return EXIT_OK;
	}
	status = launch_mapper(3, args, &out, false);
	if (status)
		return status;
	if (ubdm_ctl_get(ctl, dev->index, &now))
		return fail(EXIT_NOENT, "%s: has been deleted meanwhile", path);
	printf("%s: mapper %u replaced by %u; the longest pause of a miss: %llu ms\n",
	       path, dev->mapper_pid, now.mapper_pid,
	       (unsigned long long)longest_pause(ctl, dev->index,
							 out.pause_ms));
	return EXIT_OK;
}

/* One that fails is said; the others are tried all the same. */
static int upgrade_all(struct ubdm_ctl *ctl)
{
	uint32_t *index;
	unsigned int nr;
	int one, failed = EXIT_OK, status = device_all(ctl, &index, &nr);
	struct ubdm_device dev;

	for (unsigned int i = 0; !status && i < nr; i++) {
		if (ubdm_ctl_get(ctl, index[i], &dev))
			continue;
		one = upgrade_one(ctl, &dev);
		if (one && !needs_none(ctl, index[i]))
			failed = one;
	}
	free(index);
	return status ? status : failed;
}

static int run_upgrade(int argc, char **argv)
{
	static const struct arguments want = { 0, 1, NULL, "which device? one, or --all" };
	struct ubdm_ctl *ctl;
	bool all = false;
	const struct flag flags[] = { { "all", 'a', &all }, {} };
	int status = parse_flags(&cmd_upgrade, argc, argv, flags, &want);
	struct ubdm_device dev;

	if (status != PARSED)
		return status;
	if (optind + !all != argc)
		return usage_error(&cmd_upgrade, "%s", want.too_many);

	status = driver_ctl(&ctl);
	if (status)
		return status;
	if (all) {
		status = upgrade_all(ctl);
	} else {
		status = device_get(ctl, argv[optind], &dev);
		if (!status)
			status = upgrade_one(ctl, &dev);
	}
	ubdm_ctl_close(ctl);
	return status;
}

const struct command cmd_upgrade = {
	.name = "upgrade",
	.args = "DEV | --all",
	.summary = "put this program's mapper in place of the running one",
	.help = "Replaces the mapper of a device by one of the program that runs now, while the\n"
		"device is in use. Requests that need a mapper wait meanwhile; all others do\n"
		"not notice. Prints how long the longest waited.\n"
		"\n"
		"  -a, --all               of all devices\n"
		"  -h, --help              this\n",
	.run = run_upgrade,
};
