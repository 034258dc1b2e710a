// SPDX-License-Identifier: GPL-2.0-only
/*
 * corners.c - mappers that get into corners on purpose, one for each.
 *
 *   corners place DISK         give the backing up to which a PLACE writes
 *   corners space DISK         let a flush wait behind one that finds no space
 *   corners detach FILE        say twice that no mapper is needed, then evict
 *   corners hang DISK SLOW     a command that waits for SLOW, after a SIGSTOP
 *   corners start FILE         START behind a long command, and a deletion
 *   corners removed FILE       STOP behind a long command, and a deletion
 *
 * Sector s of the device is sector s of the disk or file, if nothing else is said.
 * Each prints what came of it, one "WHAT: RESULT" a line; 1 if it could not be tried.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <time.h>

#include "rawchan.h"

#define SECTORS	2048
#define GRANULE	7

static struct ubdm_ctl *ctl;
static struct rawchan chan;
static uint32_t index_of;
static int slowness = 1;

static void tell(const char *what, int res)
{
	printf("%s: %s\n", what, res < 0 ? strerror(-res) : "done");
	fflush(stdout);
}

static void tell_number(const char *what, uint64_t number)
{
	printf("%s: %llu\n", what, (unsigned long long)number);
	fflush(stdout);
}

static int open_file(const char *path)
{
	int fd = open(path, O_RDWR | O_DIRECT | O_CLOEXEC);

	raw_check(fd < 0 ? -errno : 0, path);
	return fd;
}

static void make(uint64_t sectors, int wanted, int space_timeout)
{
	struct ubdm_create c = { .channel = chan.fd, .index = wanted, .size = sectors,
				 .block_size = 512, .phys_block_size = 4096,
				 .max_extents = 1 << 21, .space_timeout = space_timeout,
				 .ident = "corners", .format = "test" };

	raw_check(ubdm_ctl_create(ctl, &c, &index_of), "create");
}

static struct ubdm_extent extent(uint64_t lba, uint64_t len, uint16_t backing,
				 uint64_t tid)
{
	return (struct ubdm_extent){ .lba = lba, .len = len, .off = lba, .tid = tid,
				     .backing = backing, .type = UBDM_EXT_LINEAR,
				     .perm = UBDM_PERM_R | UBDM_PERM_W };
}

static void map(struct ubdm_extent *e, unsigned int nr)
{
	struct ubdm_map m = { .addr = (uintptr_t)e, .nr_ext = nr };

	raw_check(raw_do(&chan, UBDM_CMD_MAP, &m, sizeof(m)), "MAP");
}

/* Extents of @len sectors each, no two of which can be one. */
static void map_pieces(unsigned int nr, unsigned int len)
{
	static struct ubdm_extent e[UBDM_MAX_EXTENTS];

	for (unsigned int i = 0, n = 0; i < nr; i++) {
		e[n] = extent((uint64_t)i * len, len, 0, 0);
		e[n].off = (uint64_t)(i ^ 1) * len;
		if (++n == UBDM_MAX_EXTENTS || i + 1 == nr) {
			map(e, n);
			n = 0;
		}
	}
}

static int backing_del(uint32_t backing)
{
	struct ubdm_backing_ref ref = { .index = backing };

	return raw_do(&chan, UBDM_CMD_BACKING_DEL, &ref, sizeof(ref));
}

static int forget(uint64_t lba, uint64_t len)
{
	struct ubdm_invalidate i = { .start = lba, .len = len, .flags = UBDM_INVAL_F_LBA };

	return raw_do(&chan, UBDM_CMD_INVALIDATE, &i, sizeof(i));
}

static int commit(uint64_t tid)
{
	struct ubdm_commit c = { .tid = tid };

	return raw_do(&chan, UBDM_CMD_COMMIT, &c, sizeof(c));
}

/* The next fault, or NULL if none of that kind comes within @seconds. */
static const struct ubdm_fault *told(uint8_t kind, int seconds)
{
	int ignored;

	for (int i = 0; i < seconds * 10 * slowness && chan.armed[0]; i++)
		raw_take(&chan, 100, &ignored);
	if (chan.armed[0] || chan.got[0] != 1 || chan.faults[0][0].kind != kind)
		return NULL;
	return &chan.faults[0][0];
}

static const struct ubdm_fault *must_be_told(uint8_t kind)
{
	const struct ubdm_fault *f = told(kind, 20);

	if (!f)
		raw_die(-ENODATA, "no fault comes");
	return f;
}

static uint64_t stat_of(enum ubdm_stat which)
{
	struct ubdm_stats s;

	raw_check(ubdm_ctl_stats(ctl, index_of, &s), "stats");
	return s.v[which];
}

/* Its writes and flushes are somebody else's, for they wait. */
static pid_t user(bool flush)
{
	static _Alignas(4096) uint8_t buf[4096];
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	close(chan.fd);
	close(chan.ring.ring_fd);
	memset(buf, 0x5a, sizeof(buf));
	fd = raw_open_device(index_of, O_RDWR | O_DIRECT);
	if (fd < 0)
		_exit(errno);
	if (flush)
		_exit(fdatasync(fd) ? errno : 0);
	_exit(pwrite(fd, buf, sizeof(buf), 0) == sizeof(buf) ? 0 : errno);
}

static int end_of(pid_t pid)
{
	int status;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? -WEXITSTATUS(status) : -EINTR;
}

static void end(void)
{
	raw_check(ubdm_ctl_delete(ctl, index_of, true), "delete");
	close(chan.fd);
	io_uring_queue_exit(&chan.ring);
	if (!raw_gone(ctl, index_of, 60 * slowness))
		exit(1);
}

/*
 * What a PLACE writes is in the tree when it ends, and not before:
 *
 *	PLACE			mapper
 *	writes to backing 0
 *				BACKING_DEL 0: is no extent's, but in use
 *	is mapped there
 */
static void place(const char *disk)
{
	static _Alignas(4096) uint8_t buf[4096];
	struct ubdm_resolve r = { .action = UBDM_RESOLVE_PLACE, .nr_ext = 1,
				  .flags = UBDM_RESOLVE_F_INLINE };
	const struct ubdm_fault *f;
	pid_t writer;
	int fd, res;

	make(SECTORS, -1, 0);
	raw_check(raw_backing(&chan, open_file(disk)), "backing");
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	writer = user(false);
	f = must_be_told(UBDM_FAULT_WRITE);
	r.cookie = f->cookie;
	r.ext = extent(f->lba, f->len, 0, 1);
	raw_send(&chan, UBDM_CMD_RESOLVE, &r, sizeof(r), RAW_NONE);
	res = backing_del(0);
	tell("given up while it is written to", res);
	tell("the write", end_of(writer));
	if (!res) {		/* there is nothing below what is mapped */
		end();
		return;
	}
	tell("given up while it is mapped", backing_del(0));
	fd = raw_open_device(index_of, O_RDONLY | O_DIRECT);
	if (pread(fd, buf, sizeof(buf), 0) != sizeof(buf))
		tell("read", -errno);
	else
		tell("read", buf[0] == 0x5a && buf[4095] == 0x5a ? 0 : -EILSEQ);
	close(fd);
	raw_check(commit(1), "COMMIT");
	raw_check(forget(0, SECTORS), "INVALIDATE");
	tell("given up in the end", backing_del(0));
	end();
}

/*
 *	a flush			another			mapper
 *							HOLD, for there is no space
 *				waits behind that
 *	its time is up: ENOSPC
 *				is the mapper's		FETCH
 */
static void space(const char *disk)
{
	struct ubdm_resolve r = { .action = UBDM_RESOLVE_REDRIVE, .nr_ext = 1,
				  .flags = UBDM_RESOLVE_F_INLINE };
	struct ubdm_resolve hold = { .action = UBDM_RESOLVE_HOLD, .done = 60000,
				     .flags = UBDM_RESOLVE_F_SPACE };
	struct ubdm_resolve done = { .action = UBDM_RESOLVE_DONE };
	const struct ubdm_fault *f;
	pid_t writer, first, second;

	make(SECTORS, -1, 15 * slowness);
	raw_check(raw_backing(&chan, open_file(disk)), "backing");
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	writer = user(false);
	r.cookie = must_be_told(UBDM_FAULT_WRITE)->cookie;
	r.ext = extent(0, SECTORS, 0, 1);
	r.ext.flags = UBDM_EXT_F_REPLACE;
	raw_fetch(&chan, 0);
	raw_check(raw_do(&chan, UBDM_CMD_RESOLVE, &r, sizeof(r)), "map");
	raw_check(end_of(writer), "write");
	first = user(true);
	hold.cookie = must_be_told(UBDM_FAULT_FLUSH)->cookie;
	raw_fetch(&chan, 0);
	raw_check(raw_do(&chan, UBDM_CMD_RESOLVE, &hold, sizeof(hold)), "HOLD");
	second = user(true);
	for (int i = 0; i < 1000 * slowness && stat_of(UBDM_S_PARKED) != 2; i++)
		usleep(10000);
	tell_number("flushes that wait", stat_of(UBDM_S_PARKED));
	tell("the first flush", end_of(first));
	f = told(UBDM_FAULT_FLUSH, 10);
	tell("the second is delivered", f ? 0 : -ETIME);
	if (f) {
		done.cookie = f->cookie;
		raw_check(commit(f->tid), "COMMIT");
		raw_check(raw_do(&chan, UBDM_CMD_RESOLVE, &done, sizeof(done)), "DONE");
		tell("the second flush", end_of(second));
	}
	end();
}

/* As much as it gives. */
static void evict(void)
{
	for (int i = 0; i < 10; i++) {
		FILE *f = fopen("/proc/sys/vm/drop_caches", "w");

		if (!f || fputs("2", f) < 0 || fclose(f))
			raw_die(-errno, "drop_caches");
	}
}

static void detach(const char *path)
{
	const unsigned int nr = 4096, len = 8;

	make((uint64_t)nr * len, -1, 0);
	raw_check(raw_backing(&chan, open_file(path)), "backing");
	map_pieces(nr, len);
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	evict();
	tell("with a mapper all stays", stat_of(UBDM_S_EXTENTS) < nr ? -ENOENT : 0);
	map_pieces(nr, len);
	tell("detached", raw_stop(&chan, UBDM_STOP_F_DETACH));
	tell("once more", raw_stop(&chan, UBDM_STOP_F_DETACH));
	evict();
	tell_number("extents then", stat_of(UBDM_S_EXTENTS));
	printf("/dev/ubdmap%u\n", index_of);
}

static void hang(const char *disk, const char *slow)
{
	static _Alignas(4096) uint8_t buf[4096];
	struct ubdm_extent e[2] = { extent(0, SECTORS / 2, 0, 0),
				    extent(SECTORS / 2, SECTORS / 2, 1, 0) };
	int fd;

	make(SECTORS, -1, 0);
	raw_check(raw_backing(&chan, open_file(disk)), "backing");
	raw_check(raw_backing(&chan, open_file(slow)), "backing");
	map(e, 2);
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	/* So that there is something to flush. */
	fd = raw_open_device(index_of, O_RDWR | O_DIRECT);
	if (pwrite(fd, buf, sizeof(buf), SECTORS / 2 * 512) != sizeof(buf))
		raw_die(-errno, "write");
	close(fd);
	raw_check(forget(SECTORS / 2, SECTORS / 2), "INVALIDATE");
	printf("/dev/ubdmap%u\n", index_of);
	fflush(stdout);
	raise(SIGSTOP);
	tell("given up", backing_del(1));
	end();
}

struct thread {
	pthread_t id;
	struct rawchan c;
	bool begun;
	int res;
	double seconds;
};

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void *long_command(void *arg)
{
	struct ubdm_invalidate i = { .len = UINT64_MAX >> 12,
				     .flags = UBDM_INVAL_F_BACKING };
	struct thread *t = arg;

	raw_ring(&t->c);
	__atomic_store_n(&t->begun, true, __ATOMIC_RELEASE);
	t->seconds = now();
	t->res = raw_do(&t->c, UBDM_CMD_INVALIDATE, &i, sizeof(i));
	t->seconds = now() - t->seconds;
	return NULL;
}

static void *start_command(void *arg)
{
	struct thread *t = arg;

	raw_ring(&t->c);
	__atomic_store_n(&t->begun, true, __ATOMIC_RELEASE);
	t->seconds = now();
	t->res = raw_start(&t->c, GRANULE);
	t->seconds = now() - t->seconds;
	return NULL;
}

static void *stop_command(void *arg)
{
	struct thread *t = arg;

	raw_ring(&t->c);
	__atomic_store_n(&t->begun, true, __ATOMIC_RELEASE);
	t->res = raw_stop(&t->c, 0);
	return NULL;
}

static void run(struct thread *t, void *(*fn)(void *))
{
	t->c.fd = chan.fd;
	raw_check(-pthread_create(&t->id, NULL, fn, t), "thread");
	while (!__atomic_load_n(&t->begun, __ATOMIC_ACQUIRE))
		usleep(1000);
	usleep(20000);
}

/*
 * The disk must not be added behind the back of who removes it:
 *
 *	one command		another			deletion
 *	takes long
 *				START: waits
 *							begins
 *	ends
 *				adds the disk
 *							no disk may stay
 */
static void start(const char *path)
{
	static struct thread lengthy, starter;
	const unsigned int nr = 1 << 18;
	uint32_t index;
	int fd = open_file(path);

	make(nr, -1, 0);
	index = index_of;
	raw_check(raw_backing(&chan, fd), "backing");
	map_pieces(nr, 1);
	raw_fetch(&chan, 0);
	run(&lengthy, long_command);
	run(&starter, start_command);
	raw_check(ubdm_ctl_delete(ctl, index_of, true), "delete");
	pthread_join(lengthy.id, NULL);
	pthread_join(starter.id, NULL);
	printf("the command took %.0f ms: %s; START %.0f ms: %s\n",
	       lengthy.seconds * 1000, strerror(-lengthy.res),
	       starter.seconds * 1000, strerror(-starter.res));
	fflush(stdout);
	tell("the deletion", raw_gone(ctl, index, 60 * slowness) ? 0 : -ETIME);
	index_of = index;
	fd = raw_open_device(index, O_RDONLY);
	tell("opened afterwards", fd < 0 ? -errno : 0);
	if (fd >= 0)
		close(fd);
	raw_open(&chan);
	make(SECTORS, index, 0);
	fd = open_file(path);
	raw_check(raw_backing(&chan, fd), "backing");
	raw_fetch(&chan, 0);
	tell("another of that name", raw_start(&chan, GRANULE));
	end();
}

/* How often it is told that the device is deleted, or is not; until it has gone. */
static unsigned int ends_told(struct ubdm_ctl *events, uint32_t index)
{
	unsigned int n = 0, quiet = 0;
	struct ubdm_event_info ev;
	struct ubdm_device dev;

	while (quiet < 3) {
		while (ubdm_ctl_event(events, &ev) == 1)
			n += ev.index == index && ev.event == UBDM_EV_DELETED;
		quiet = ubdm_ctl_get(ctl, index, &dev) == -ENODEV ? quiet + 1 : 0;
		usleep(50000);
	}
	return n;
}

/*
 * A mapper that has not started is no reason to call a deletion off that has been
 * decided:
 *
 *	one command		another			deletion
 *	takes long
 *				STOP: waits
 *							decides, removes
 *	ends
 *				is no news
 */
static void removed(const char *path)
{
	static struct thread lengthy, stopper;
	const unsigned int nr = 1 << 18;
	struct ubdm_ctl *events;
	struct ubdm_device dev;

	make(nr, -1, 0);
	raw_check(raw_backing(&chan, open_file(path)), "backing");
	map_pieces(nr, 1);
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	raw_check(raw_stop(&chan, 0), "STOP");
	raw_close(&chan);
	raw_open(&chan);
	raw_check(ubdm_ctl_attach(ctl, chan.fd, index_of, &dev), "attach");
	raw_check(ubdm_ctl_open(&events), "netlink");
	raw_check(ubdm_ctl_subscribe(events), "events");
	run(&lengthy, long_command);
	run(&stopper, stop_command);
	tell("deleted", ubdm_ctl_delete(ctl, index_of, false));
	pthread_join(lengthy.id, NULL);
	pthread_join(stopper.id, NULL);
	fprintf(stderr, "the command took %.0f ms\n", lengthy.seconds * 1000);
	tell_number("told", ends_told(events, index_of));
}

/* A fault's answer that says that all of it is done. */
static int done(const struct ubdm_fault *f)
{
	struct ubdm_resolve r = { .cookie = f->cookie, .action = UBDM_RESOLVE_DONE,
				  .done = f->want_len };

	return raw_do(&chan, UBDM_CMD_RESOLVE, &r, sizeof(r));
}

/*
 * A read whose pages nobody has filled.  We are whoever we are, who reads is somebody
 * else.
 */
static void reveal(const char *path)
{
	static _Alignas(4096) uint8_t buf[4096];
	const struct ubdm_fault *f;

	memset(buf, 0x5a, sizeof(buf));
	make(SECTORS, -1, 0);
	raw_check(raw_backing(&chan, open_file(path)), "backing");
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	printf("/dev/ubdmap%u\n", index_of);
	fflush(stdout);
	f = must_be_told(UBDM_FAULT_READ);
	tell_number("sectors", f->want_len);
	tell("nothing of it filled", done(f));
	if (pwrite(chan.fd, buf, 512, UBDM_FAULT_POS(f->cookie, 0)) != 512 ||
	    pwrite(chan.fd, buf, 2048, UBDM_FAULT_POS(f->cookie, 2048)) != 2048)
		raw_die(-errno, "pwrite");
	tell("not all of it filled", done(f));
	if (pwrite(chan.fd, buf, 4096, UBDM_FAULT_POS(f->cookie, 0)) != 4096)
		raw_die(-errno, "pwrite");
	tell("all of it filled", done(f));
	raise(SIGSTOP);
}

/* Two that would be each other's storage. */
static void mutual(const char *path)
{
	struct rawchan first;
	uint32_t index;
	int res;

	make(SECTORS, -1, 0);
	raw_check(raw_backing(&chan, open_file(path)), "backing");
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	first = chan;
	index = index_of;
	raw_open(&chan);
	make(SECTORS, -1, 0);
	tell("one on another", raw_backing(&chan, raw_open_device(index, O_RDWR | O_DIRECT)));
	raw_fetch(&chan, 0);
	raw_check(raw_start(&chan, GRANULE), "START");
	res = raw_backing(&first, raw_open_device(index_of, O_RDWR | O_DIRECT));
	tell("the other way round, too", res);
	end();
	chan = first;
	index_of = index;
	end();
}

/*
 * Again and again: a deletion that meets START is called off, for the mapper goes, and
 * the next one starts it, too.
 */
static void twice(const char *path)
{
	unsigned int again = 0, rounds = 40;
	struct ubdm_start start = { .granule_shift = GRANULE };
	struct ubdm_device dev;
	int fd = open_file(path), res = 0;

	for (unsigned int i = 0; i < rounds; i++) {
		make(SECTORS, -1, 0);
		raw_check(raw_backing(&chan, fd), "backing");
		raw_fetch(&chan, 0);
		raw_send(&chan, UBDM_CMD_START, &start, sizeof(start), RAW_NONE);
		/* From before the disk is there until after. */
		usleep(i * 100);
		raw_check(ubdm_ctl_delete(ctl, index_of, false), "delete");
		usleep(i % 4 * 100);
		raw_stop(&chan, 0);
		raw_close(&chan);
		raw_open(&chan);
		for (int ms = 0; ms < 1000; ms++) {
			res = ubdm_ctl_attach(ctl, chan.fd, index_of, &dev);
			if (res != -EBUSY)
				break;
			usleep(1000);
		}
		/* Or it goes after all, at any moment. */
		if (!res) {
			raw_fetch(&chan, 0);
			again += raw_start(&chan, GRANULE) >= 0;
			ubdm_ctl_delete(ctl, index_of, true);
			raw_stop(&chan, UBDM_STOP_F_DONE);
		}
		if (!raw_gone(ctl, index_of, 60 * slowness))
			raw_die(-ETIME, "deletion");
		raw_close(&chan);
		raw_open(&chan);
	}
	tell_number("rounds", rounds);
	fprintf(stderr, "%u went on after the deletion was off\n", again);
}

int main(int argc, char **argv)
{
	const char *slow = getenv("UBDMAP_SLOW"), *what = argv[1];

	raw_name = "corners";
	if (argc < 3 || argc != 3 + !strcmp(what, "hang"))
		return 2;
	if (slow && atoi(slow) > 0)
		slowness = atoi(slow);
	raw_check(ubdm_ctl_open(&ctl), "netlink");
	raw_open(&chan);
	if (!strcmp(what, "place"))
		place(argv[2]);
	else if (!strcmp(what, "space"))
		space(argv[2]);
	else if (!strcmp(what, "detach"))
		detach(argv[2]);
	else if (!strcmp(what, "hang"))
		hang(argv[2], argv[3]);
	else if (!strcmp(what, "start"))
		start(argv[2]);
	else if (!strcmp(what, "removed"))
		removed(argv[2]);
	else if (!strcmp(what, "twice"))
		twice(argv[2]);
	else if (!strcmp(what, "mutual"))
		mutual(argv[2]);
	else if (!strcmp(what, "reveal"))
		reveal(argv[2]);
	else
		return 2;
	return 0;
}
