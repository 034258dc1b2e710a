// SPDX-License-Identifier: GPL-2.0-only
/*
 * killer.c - kill the mapper of a device again and again, and take the time.
 *
 *   killer [-l LIMIT_MS] [-s SEED] DEV COUNT MIN_MS MAX_MS
 *
 * Waits between MIN_MS and MAX_MS, kills (SIGKILL), and waits until the device
 * is live with another mapper: COUNT times.  Prints
 *
 *   kills 30 attach_ms_mean 45 attach_ms_max 97 hits_while_dead 1234
 *
 * where the time runs from the signal to the moment at which faults are
 * delivered again, and hits are those in between.  Ends with 1 if one took
 * longer than LIMIT_MS (1000, times UBDMAP_SLOW), or if none came at all.
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "libubdmap.h"

#define GIVE_UP_MS 30000

static struct ubdm_ctl *ctl;
static uint32_t device;

static int64_t now_us(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000LL + t.tv_nsec / 1000;
}

static void must(int ret, const char *what)
{
	if (!ret)
		return;
	fprintf(stderr, "killer: %s: %s\n", what, strerror(-ret));
	exit(1);
}

static uint64_t hits(void)
{
	struct ubdm_stats s;

	must(ubdm_ctl_stats(ctl, device, &s), "stats");
	return s.v[UBDM_S_READ_HITS] + s.v[UBDM_S_WRITE_HITS] +
	       s.v[UBDM_S_ZERO_FILLS];
}

/* Until another mapper than @pid serves.  Returns microseconds. */
static int64_t wait_for_next(uint32_t pid, int64_t since)
{
	struct ubdm_device dev;

	for (;;) {
		must(ubdm_ctl_get(ctl, device, &dev), "get");
		if (dev.state == UBDM_STATE_LIVE && dev.mapper_pid &&
		    dev.mapper_pid != pid)
			return now_us() - since;
		if (now_us() - since > GIVE_UP_MS * 1000LL) {
			fprintf(stderr,
				"killer: no new mapper after %d s; state %u\n",
				GIVE_UP_MS / 1000, dev.state);
			exit(1);
		}
		poll(NULL, 0, 1);
	}
}

static void run(unsigned int count, unsigned int min_ms, unsigned int max_ms,
		int64_t limit_ms)
{
	int64_t longest = 0, sum = 0;
	uint64_t dead_hits = 0;

	for (unsigned int i = 0; i < count; i++) {
		struct ubdm_device dev;
		int64_t since, took;
		uint64_t before;

		poll(NULL, 0, min_ms + rand() % (max_ms - min_ms + 1));
		must(ubdm_ctl_get(ctl, device, &dev), "get");
		if (!dev.mapper_pid)
			must(-ESRCH, "mapper");
		since = now_us();
		must(kill(dev.mapper_pid, SIGKILL) ? -errno : 0, "kill");
		before = hits();
		took = wait_for_next(dev.mapper_pid, since);
		dead_hits += hits() - before;
		sum += took;
		if (took > longest)
			longest = took;
	}
	printf("kills %u attach_ms_mean %lld attach_ms_max %lld hits_while_dead %llu\n",
	       count, (long long)(count ? sum / count / 1000 : 0),
	       (long long)longest / 1000, (unsigned long long)dead_hits);
	if (longest > limit_ms * 1000)
		exit(1);
}

int main(int argc, char **argv)
{
	const char *slow = getenv("UBDMAP_SLOW");
	int64_t limit_ms = 1000;
	unsigned int seed = now_us();
	int c;

	while ((c = getopt(argc, argv, "l:s:")) >= 0) {
		if (c == 'l')
			limit_ms = atoi(optarg);
		else if (c == 's')
			seed = atoi(optarg);
		else
			return 2;
	}
	if (optind + 4 != argc || strncmp(argv[optind], "/dev/ubdmap", 11))
		return 2;
	device = atoi(argv[optind] + 11);
	srand(seed);
	must(ubdm_ctl_open(&ctl), "netlink");
	run(atoi(argv[optind + 1]), atoi(argv[optind + 2]),
	    atoi(argv[optind + 3]), limit_ms * (slow ? atoi(slow) : 1));
	ubdm_ctl_close(ctl);
	return 0;
}
