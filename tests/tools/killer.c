// SPDX-License-Identifier: GPL-2.0-only
/*
 * killer.c - kill the mapper of a device again and again, and take the time.
 *
 *   killer [-l LIMIT_MS] [-s SEED] DEV COUNT MIN_MS MAX_MS
 *
 * Waits between MIN_MS and MAX_MS, kills (SIGKILL), and waits until the device
 * is live with another mapper: COUNT times.  Prints
 *
 *   kills 30 attach_ms_median 45 attach_ms_max 97 (its end seen 20, attached 25)
 *   hits_while_dead 1234
 *
 * where the time runs from the signal to the moment at which faults are
 * delivered again, and hits are those in between.  Ends with 1 if half of them
 * took longer than LIMIT_MS (1000, times UBDMAP_SLOW), if one took 20 times that,
 * or if none came at all.  (Not all of them: an emulated guest on a busy machine
 * stands still for seconds now and then.)
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

/* The longest of each phase: until the driver sees the end, until the attach. */
static int64_t longest_exit, longest_attach;

static void keep_longest(int64_t *longest, bool *seen, bool now, int64_t took)
{
	if (*seen || !now)
		return;
	*seen = true;
	if (took > *longest)
		*longest = took;
}

/* Until another mapper than @pid serves.  Returns microseconds. */
static int64_t wait_for_next(uint32_t pid, int64_t since)
{
	struct ubdm_device dev;
	bool left = false, attached = false;

	for (;;) {
		must(ubdm_ctl_get(ctl, device, &dev), "get");
		keep_longest(&longest_exit, &left, dev.mapper_pid != pid,
			     now_us() - since);
		keep_longest(&longest_attach, &attached,
			     dev.mapper_pid && dev.mapper_pid != pid,
			     now_us() - since);
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

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return x < y ? -1 : x > y;
}

static void run(unsigned int count, unsigned int min_ms, unsigned int max_ms,
		int64_t limit_ms)
{
	int64_t *took = calloc(count + 1, sizeof(*took)), median, longest;
	uint64_t dead_hits = 0;

	if (!took)
		must(-ENOMEM, "killer");

	for (unsigned int i = 0; i < count; i++) {
		struct ubdm_device dev;
		int64_t since;
		uint64_t before;

		poll(NULL, 0, min_ms + rand() % (max_ms - min_ms + 1));
		must(ubdm_ctl_get(ctl, device, &dev), "get");
		if (!dev.mapper_pid)
			must(-ESRCH, "mapper");
		since = now_us();
		must(kill(dev.mapper_pid, SIGKILL) ? -errno : 0, "kill");
		before = hits();
		took[i] = wait_for_next(dev.mapper_pid, since);
		dead_hits += hits() - before;
	}
	qsort(took, count, sizeof(*took), compare);
	median = took[count / 2];
	longest = count ? took[count - 1] : 0;
	free(took);
	printf("kills %u attach_ms_median %lld attach_ms_max %lld (its end seen %lld, attached %lld) hits_while_dead %llu\n",
	       count, (long long)median / 1000,
	       (long long)longest / 1000, (long long)longest_exit / 1000,
	       (long long)longest_attach / 1000, (unsigned long long)dead_hits);
	if (median > limit_ms * 1000 || longest > limit_ms * 20000)
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
