// SPDX-License-Identifier: GPL-2.0-only
/*
 * stages.c - devices that are deleted, or left, at every stage of their making.
 *
 *   stages [-j WORKERS] [-s SEED] CYCLES FILE
 *
 * WORKERS (4) processes share CYCLES.  In each a device is made on FILE up to
 * some stage, and there deleted, by force or not, or its channel closed; a child
 * deletes at a random moment, so that its stage is passed meanwhile.  Prints how
 * often each stage was met.  Ends with 1 if a device does not go within a minute.
 */
#include <sys/mman.h>
#include <sys/wait.h>

#include "rawchan.h"

enum stage { NEW, BACKING, ARMED, STARTING, LIVE, USED, NR_STAGES };

enum way { CLOSE, FORCE, POLITE, RANDOM, NR_WAYS };

static const char *const stage_names[] = {
	"new", "backing", "armed", "starting", "live", "used",
};

static struct {
	unsigned long met[NR_STAGES][NR_WAYS], deletes, refused;
} *sum;

static struct ubdm_ctl *ctl;
static int file;
static uint64_t rng;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static void del(uint32_t index, bool force)
{
	int ret = ubdm_ctl_delete(ctl, index, force);

	__atomic_fetch_add(ret ? &sum->refused : &sum->deletes, 1, __ATOMIC_RELAXED);
}

/* Or they would not end with the mapper. */
static void not_ours(const struct rawchan *c)
{
	close(c->fd);
	close(c->ring.ring_fd);
}

/* Somebody else deletes when it pleases him, polite first. */
static pid_t del_later(const struct rawchan *c, uint32_t index)
{
	unsigned int us = next() % 8000;
	pid_t pid = fork();

	if (pid)
		return pid;
	not_ours(c);
	raw_check(ubdm_ctl_open(&ctl), "netlink");
	usleep(us);
	del(index, false);
	usleep(us / 2);
	del(index, true);
	_exit(0);
}

/* Somebody who reads: the first sector is never mapped. */
static pid_t use(const struct rawchan *c, uint32_t index)
{
	pid_t pid = fork();
	char buf[512];
	int fd;

	if (pid)
		return pid;
	not_ours(c);
	fd = raw_open_device(index, O_RDONLY);
	if (fd >= 0 && pread(fd, buf, sizeof(buf), 0) == sizeof(buf))
		_exit(1);		/* who should have answered? */
	_exit(0);
}

/* A polite deletion asks the mapper to finish: say that it has. */
static void finish(struct rawchan *c)
{
	int one;

	for (int i = 0; i < 20; i++) {
		raw_take(c, 20, &one);
		for (int f = 0; f < RAW_FETCHES; f++) {
			if (c->got[f] == -ECANCELED)
				return;
			if (c->got[f] <= 0 ||
			    c->faults[f][0].kind != UBDM_FAULT_SHUTDOWN)
				continue;
			raw_stop(c, UBDM_STOP_F_DONE);
			return;
		}
	}
}

static void make(struct rawchan *c, enum stage to)
{
	struct ubdm_start s = { .granule_shift = 7 };

	if (to >= BACKING)
		raw_backing(c, file);
	for (int i = 0; to >= ARMED && i < RAW_FETCHES; i++)
		raw_fetch(c, i);
	if (to == STARTING)
		raw_send(c, UBDM_CMD_START, &s, sizeof(s), RAW_NONE);
	else if (to >= LIVE)
		raw_start(c, 7);
}

static bool cycle(unsigned int nr)
{
	enum stage stage = nr % NR_STAGES;
	enum way way = nr / NR_STAGES % NR_WAYS;
	pid_t other = 0, user = 0;
	struct ubdm_device dev;
	struct rawchan c;
	uint32_t index;
	bool ok;
	int status;

	raw_open(&c);
	index = raw_create(ctl, &c, 2048);
	if (way == RANDOM)
		other = del_later(&c, index);
	make(&c, stage);
	if (stage == USED) {
		user = use(&c, index);
		usleep(next() % 3000);
	}
	__atomic_fetch_add(&sum->met[stage][way], 1, __ATOMIC_RELAXED);
	if (way == FORCE) {
		del(index, true);
	} else if (way == POLITE) {
		del(index, false);
		if (stage >= STARTING)
			finish(&c);
	} else if (way == RANDOM) {
		finish(&c);
	}
	/* The ring first or the channel first. */
	if (nr & 64) {
		io_uring_queue_exit(&c.ring);
		close(c.fd);
	} else {
		close(c.fd);
		io_uring_queue_exit(&c.ring);
	}
	/* What had started and was not deleted, or refused to be, is an orphan now. */
	if (!ubdm_ctl_get(ctl, index, &dev))
		ubdm_ctl_delete(ctl, index, true);
	if (other)
		waitpid(other, NULL, 0);
	ok = raw_gone(ctl, index, 60);
	if (user) {
		waitpid(user, &status, 0);
		if (status) {
			fprintf(stderr, "stages: somebody read what is not mapped\n");
			ok = false;
		}
	}
	return ok;
}

static int worker(unsigned int nr, unsigned int workers, unsigned int cycles)
{
	raw_check(ubdm_ctl_open(&ctl), "netlink");
	for (unsigned int i = nr; i < cycles; i += workers)
		if (!cycle(i / workers + nr * 7))
			return 1;
	return 0;
}

int main(int argc, char **argv)
{
	unsigned int workers = 4, i, cycles;
	uint64_t seed = 1;
	int opt, status, bad = 0;

	raw_name = "stages";
	while ((opt = getopt(argc, argv, "j:s:")) != -1) {
		if (opt == 'j')
			workers = atoi(optarg);
		else if (opt == 's')
			seed = strtoull(optarg, NULL, 0);
		else
			return 2;
	}
	if (argc - optind != 2)
		return 2;
	cycles = atoi(argv[optind]);
	file = open(argv[optind + 1], O_RDWR | O_DIRECT | O_CLOEXEC);
	raw_check(file < 0 ? -errno : 0, argv[optind + 1]);
	sum = mmap(NULL, sizeof(*sum), PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	for (i = 0; i < workers; i++) {
		if (fork())
			continue;
		rng = (seed + i) * 0x9e3779b97f4a7c15 | 1;
		_exit(worker(i, workers, cycles));
	}
	while (wait(&status) > 0)
		bad |= status;
	for (i = 0; i < NR_STAGES; i++)
		printf("%s: %lu closed, %lu by force, %lu asked, %lu at some time\n",
		       stage_names[i], sum->met[i][CLOSE], sum->met[i][FORCE],
		       sum->met[i][POLITE], sum->met[i][RANDOM]);
	printf("%u cycles; %lu deletions taken, %lu refused\n", cycles, sum->deletes,
	       sum->refused);
	return bad ? 1 : 0;
}
