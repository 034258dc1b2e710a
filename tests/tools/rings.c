// SPDX-License-Identifier: GPL-2.0-only
/*
 * rings.c - rings that are closed, and channels that are stopped, at any moment.
 *
 *   rings close ROUNDS FILE	mappers end, with none, some or all FETCHes armed
 *   rings stop ROUNDS FILE	FETCHes are cancelled by STOP, while misses come
 *
 * Readers of random granules of the device compare what they get with FILE, which
 * is 2 MiB and whose each sector begins with its number (eight bytes).  No miss may
 * get lost, whoever had taken it, so a reader that waits for 60 s is an error.
 * All is forgotten again and again, so that there are misses.
 */
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>

#include "rawchan.h"

#define SECTORS		4096
#define SHIFT		4
#define READERS		3
#define PATIENCE	60

static struct {
	unsigned long reads[READERS];
	bool enough;
} *sh;

static struct rawchan chan;
static struct ubdm_ctl *ctl;
static uint32_t device;
static int file;
static uint64_t rng = 88172645463325252;
static unsigned long answers, cancelled, ended;

static uint64_t next(void)
{
	rng ^= rng << 13;
	rng ^= rng >> 7;
	rng ^= rng << 17;
	return rng;
}

static pid_t reader(unsigned int nr)
{
	static _Alignas(512) uint64_t buf[64];
	pid_t pid = fork();
	uint64_t at;
	int fd;

	if (pid)
		return pid;
	/* Or they would not end with us. */
	close(chan.fd);
	close(chan.ring.ring_fd);
	rng += nr;
	fd = raw_open_device(device, O_RDONLY | O_DIRECT);
	while (fd >= 0 && !sh->enough) {
		at = next() % SECTORS;
		if (pread(fd, buf, 512, at << 9) != 512) {
			fprintf(stderr, "rings: sector %llu: %s\n",
				(unsigned long long)at, strerror(errno));
			_exit(1);
		}
		if (buf[0] != at) {
			fprintf(stderr, "rings: sector %llu is %llu\n",
				(unsigned long long)at, (unsigned long long)buf[0]);
			_exit(1);
		}
		__atomic_fetch_add(&sh->reads[nr], 1, __ATOMIC_RELAXED);
	}
	_exit(fd < 0);
}

static void answer(const struct ubdm_fault *f)
{
	struct ubdm_resolve r = { .cookie = f->cookie, .nr_ext = 1,
				  .action = UBDM_RESOLVE_REDRIVE,
				  .flags = UBDM_RESOLVE_F_INLINE };

	r.ext.lba = f->lba >> SHIFT << SHIFT;
	r.ext.len = 1 << SHIFT;
	r.ext.off = r.ext.lba;
	r.ext.type = UBDM_EXT_LINEAR;
	r.ext.perm = UBDM_PERM_R;
	raw_send(&chan, UBDM_CMD_RESOLVE, &r, sizeof(r), RAW_NONE);
	answers++;
}

static void forget(void)
{
	struct ubdm_invalidate i = { .len = SECTORS, .flags = UBDM_INVAL_F_LBA };

	raw_send(&chan, UBDM_CMD_INVALIDATE, &i, sizeof(i), RAW_NONE);
}

/* Answers what a FETCH has brought; @again arms it. */
static void fetched(unsigned int i, bool again)
{
	int n = chan.got[i];

	chan.got[i] = 0;
	for (int k = 0; k < n; k++)
		answer(&chan.faults[i][k]);
	if (n < 0)
		raw_die(n, "FETCH");
	if (again && !chan.armed[i])
		raw_fetch(&chan, i);
}

static bool progress(void)
{
	static unsigned long before[READERS];
	static time_t since[READERS];
	time_t now = time(NULL);

	for (int i = 0; i < READERS; i++) {
		if (sh->reads[i] != before[i] || !since[i]) {
			before[i] = sh->reads[i];
			since[i] = now;
		} else if (now - since[i] > PATIENCE) {
			fprintf(stderr, "rings: reader %d waits for %d s\n", i, PATIENCE);
			return false;
		}
	}
	return true;
}

/* The first FETCHes are armed: @armed of them; those behind only if there are more. */
static void begin(unsigned int armed)
{
	for (unsigned int i = 0; i < (armed ? armed : 1); i++)
		raw_fetch(&chan, i);
	raw_check(raw_start(&chan, SHIFT), "START");
}

/* Ends the ring and the channel, in either order, and attaches again. */
static void again(unsigned int armed)
{
	struct ubdm_device dev;
	int ret;

	if (next() % 2) {
		io_uring_queue_exit(&chan.ring);
		if (next() % 2)
			usleep(next() % 3000);
		close(chan.fd);
	} else {
		close(chan.fd);
		if (next() % 2)
			usleep(next() % 3000);
		io_uring_queue_exit(&chan.ring);
	}
	raw_open(&chan);
	/* The ring holds the channel until it is gone itself. */
	for (int i = 0; i < 12000; i++) {
		ret = ubdm_ctl_attach(ctl, chan.fd, device, &dev);
		if (ret != -EBUSY)
			break;
		usleep(5000);
	}
	raw_check(ret, "attach");
	begin(armed);
}

static bool close_rounds(unsigned int rounds)
{
	/* "None" has one for START, which a miss uses up. */
	static const unsigned int counts[] = { 0, 1, 2, RAW_FETCHES };
	unsigned long met[4] = { 0 };
	int ignored;

	for (unsigned int r = 0; r < rounds; r++) {
		unsigned int what = r % 4, n = counts[what], steps = next() % 8, i;

		for (unsigned int s = 0; s < steps; s++) {
			raw_take(&chan, 2, &ignored);
			for (i = 0; i < RAW_FETCHES; i++)
				if (chan.got[i])
					fetched(i, i < n);
			if (s == 2)
				forget();
		}
		if (!n)		/* Whatever misses now takes the last. */
			for (i = 0; i < 50 && chan.armed[0]; i++) {
				forget();
				raw_take(&chan, 2, &ignored);
			}
		for (i = 0; i < RAW_FETCHES && !chan.armed[i]; i++)
			;
		met[!n && i == RAW_FETCHES ? 0 : n == RAW_FETCHES ? 2 : 1]++;
		again(counts[(r + 1) % 4]);
		if (!progress())
			return false;
	}
	printf("closed %lu times with none, %lu with some, %lu with all armed; %lu answers\n",
	       met[0], met[1], met[2], answers);
	return met[0] && met[1] && met[2];
}

/* STOP ends every FETCH, once, with misses or without. */
static bool stop_rounds(unsigned int rounds)
{
	unsigned int i, left;
	int ignored, res;

	for (unsigned int r = 0; r < rounds; r++) {
		for (unsigned int s = next() % 6; s; s--) {
			raw_take(&chan, 2, &ignored);
			for (i = 0; i < RAW_FETCHES; i++)
				fetched(i, true);
		}
		/* Now they come. */
		forget();
		if (next() % 2)
			usleep(next() % 500);
		res = raw_stop(&chan, 0);
		raw_check(res, "STOP");
		for (int t = 0; t < PATIENCE * 20; t++) {
			for (left = i = 0; i < RAW_FETCHES; i++)
				left += chan.armed[i];
			if (!left)
				break;
			raw_take(&chan, 50, &ignored);
		}
		if (left) {
			fprintf(stderr, "rings: %u FETCHes are left after STOP\n", left);
			return false;
		}
		/* Too late for an answer, so they come again. */
		for (i = 0; i < RAW_FETCHES; i++) {
			cancelled += chan.got[i] == -ECANCELED;
			ended += chan.got[i] > 0;
		}
		again(RAW_FETCHES);
		if (!progress())
			return false;
	}
	printf("of those under way at a STOP, %lu cancelled, %lu ended with misses; %lu answers\n",
	       cancelled, ended, answers);
	return cancelled && ended;
}

static bool last_reads(void)
{
	unsigned int left = READERS, i;
	int ignored, status;

	/* Whoever waits is to be told. */
	sh->enough = true;
	for (int t = 0; t < PATIENCE * 20 && left; t++) {
		raw_take(&chan, 50, &ignored);
		for (i = 0; i < RAW_FETCHES; i++)
			fetched(i, true);
		while (waitpid(-1, &status, WNOHANG) > 0) {
			if (status)
				return false;
			left--;
		}
	}
	if (left)
		fprintf(stderr, "rings: a reader does not come back\n");
	return !left;
}

int main(int argc, char **argv)
{
	pid_t pid[READERS];
	bool ok;
	int i;

	raw_name = "rings";
	if (argc != 4)
		return 2;
	file = open(argv[3], O_RDWR | O_DIRECT | O_CLOEXEC);
	raw_check(file < 0 ? -errno : 0, argv[3]);
	sh = mmap(NULL, sizeof(*sh), PROT_READ | PROT_WRITE,
		  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	raw_check(ubdm_ctl_open(&ctl), "netlink");
	raw_open(&chan);
	device = raw_create(ctl, &chan, SECTORS);
	raw_check(raw_backing(&chan, file), "backing");
	begin(RAW_FETCHES);
	for (i = 0; i < READERS; i++)
		pid[i] = reader(i);
	ok = !strcmp(argv[1], "close") ? close_rounds(atoi(argv[2])) :
					 stop_rounds(atoi(argv[2]));
	ok = ok && last_reads();
	if (!ok)
		for (i = 0; i < READERS; i++)
			kill(pid[i], SIGKILL);
	printf("reads %lu\n", sh->reads[0] + sh->reads[1] + sh->reads[2]);
	raw_check(ubdm_ctl_delete(ctl, device, true), "delete");
	close(chan.fd);
	io_uring_queue_exit(&chan.ring);
	return raw_gone(ctl, device, 60) && ok ? 0 : 1;
}
