// SPDX-License-Identifier: GPL-2.0-only
/*
 * stale.c - a mapper's commands, sent again when it is not the mapper any more.
 *
 *   stale FILE
 *
 * A first mapper gets a miss, maps, commits some of it, and ends its channel
 * without an answer.  A second attaches.  What the first has said or could have
 * is said again: on the first channel before and after, on the second before
 * and after it was told of the miss itself, with the epoch of the first and the
 * rest of the cookie of the second.  Each must be refused, and nothing may change:
 * not an extent, not a tid, not a byte of the request that waits.
 *
 * FILE is 1 MiB, its first 64 KiB not of 0xee.
 */
#include <sys/wait.h>

#include "rawchan.h"

#define SECTORS	2048
#define BYTES	65536

struct dump {
	struct ubdm_dump_head head;
	struct ubdm_extent ext[64];
};

static struct rawchan one, two;
static unsigned int refusals, wrong;
static uint64_t bogus[BYTES / 8];

static void wrong_if(bool bad, const char *when, const char *what, int res)
{
	refusals++;
	if (!bad)
		return;
	fprintf(stderr, "stale: %s: %s: %d\n", when, what, res);
	wrong++;
}

static struct ubdm_extent extent(uint64_t lba, uint64_t len, uint64_t tid)
{
	return (struct ubdm_extent) { .lba = lba, .len = len, .off = lba + 512, .tid = tid,
				      .type = UBDM_EXT_LINEAR,
				      .perm = UBDM_PERM_R | UBDM_PERM_W,
				      .flags = tid ? UBDM_EXT_F_REPLACE : 0 };
}

static int map(struct rawchan *c, uint64_t lba, uint64_t tid, uint32_t flags)
{
	struct ubdm_extent e = extent(lba, 128, tid);
	struct ubdm_map m = { .addr = (uintptr_t)&e, .nr_ext = 1 };

	e.flags = flags;
	return raw_do(c, UBDM_CMD_MAP, &m, sizeof(m));
}

static int commit(struct rawchan *c, uint64_t tid)
{
	struct ubdm_commit m = { .tid = tid };

	return raw_do(c, UBDM_CMD_COMMIT, &m, sizeof(m));
}

static int resolve(struct rawchan *c, uint64_t cookie, uint8_t action, bool ext)
{
	struct ubdm_resolve r = { .cookie = cookie, .action = action };

	if (action == UBDM_RESOLVE_DONE)
		r.done = 128;
	else if (action == UBDM_RESOLVE_ERROR)
		r.error = -EIO;
	else if (action == UBDM_RESOLVE_HOLD)
		r.done = 60000;
	if (ext) {
		r.flags = UBDM_RESOLVE_F_INLINE;
		r.nr_ext = 1;
		r.ext = extent(0, 128, action == UBDM_RESOLVE_PLACE ? 90 : 0);
	}
	return raw_do(c, UBDM_CMD_RESOLVE, &r, sizeof(r));
}

static void look(struct rawchan *c, struct dump *d)
{
	struct ubdm_dump m = { .addr = (uintptr_t)d, .nr = 64 };

	memset(d, 0, sizeof(*d));
	raw_check(raw_do(c, UBDM_CMD_DUMP, &m, sizeof(m)), "DUMP");
}

static void answers(struct rawchan *c, uint64_t cookie, int want, const char *when)
{
	static const char *const names[] = {
		NULL, "REDRIVE", "DONE", "ERROR", "PLACE", "HOLD",
	};
	int res;

	for (int a = UBDM_RESOLVE_REDRIVE; a <= UBDM_RESOLVE_HOLD; a++) {
		res = resolve(c, cookie, a, a == UBDM_RESOLVE_PLACE);
		wrong_if(res != want, when, names[a], res);
	}
	res = resolve(c, cookie, UBDM_RESOLVE_REDRIVE, true);
	wrong_if(res != want, when, "REDRIVE with an extent", res);
	res = resolve(c, cookie, UBDM_RESOLVE_DONE, true);
	wrong_if(res != want, when, "DONE with an extent", res);
}

/* pwrite() on a channel names a fault by less than its cookie, and no epoch. */
static void move_bytes(struct rawchan *c, uint64_t cookie, const char *when)
{
	ssize_t n = pwrite(c->fd, bogus, BYTES, UBDM_FAULT_POS(cookie, 0));

	wrong_if(n >= 0, when, "its bytes", n);
}

/* On the old channel nothing is taken. */
static void old_channel(uint64_t cookie, const char *when)
{
	struct ubdm_invalidate inval = { .len = SECTORS, .flags = UBDM_INVAL_F_LBA };
	struct ubdm_fetch fetch = { .buf = (uintptr_t)one.faults[0], .nr = 1 };
	struct ubdm_backing_ref ref = { 0 };
	int res;

	answers(&one, cookie, -ESHUTDOWN, when);
	move_bytes(&one, cookie, when);
	res = map(&one, 1024, 91, UBDM_EXT_F_REPLACE);
	wrong_if(res != -ESHUTDOWN, when, "MAP", res);
	res = commit(&one, 3);
	wrong_if(res != -ESHUTDOWN, when, "COMMIT", res);
	res = raw_do(&one, UBDM_CMD_INVALIDATE, &inval, sizeof(inval));
	wrong_if(res != -ESHUTDOWN, when, "INVALIDATE", res);
	res = raw_do(&one, UBDM_CMD_FETCH, &fetch, sizeof(fetch));
	wrong_if(res != -ESHUTDOWN, when, "FETCH", res);
	res = raw_do(&one, UBDM_CMD_BACKING_GET, &ref, sizeof(ref));
	wrong_if(res != -ESHUTDOWN, when, "BACKING_GET", res);
	res = raw_start(&one, 7);
	wrong_if(res != -ESHUTDOWN, when, "START", res);
}

/* The changes of old, on the new channel. */
static void old_changes(const char *when)
{
	int res;

	res = map(&two, 1024, 1, UBDM_EXT_F_REPLACE);
	wrong_if(res != -EINVAL, when, "MAP of a tid that was committed", res);
	res = map(&two, 256, 3, 0);
	wrong_if(res != -EEXIST, when, "MAP over what is mapped", res);
	res = commit(&two, 1);
	wrong_if(res < -EINVAL, when, "COMMIT", res);
}

static pid_t reader(uint32_t index)
{
	static _Alignas(4096) uint8_t buf[BYTES];
	pid_t pid = fork();
	int fd;

	if (pid)
		return pid;
	fd = raw_open_device(index, O_RDONLY | O_DIRECT);
	if (fd < 0 || pread(fd, buf, BYTES, 0) != BYTES)
		_exit(1);
	for (int i = 0; i < BYTES; i++)
		if (buf[i] == 0xee)
			_exit(2);
	_exit(0);
}

/* By the FETCH that START wanted. */
static uint64_t told(struct rawchan *c)
{
	int ignored;

	for (int i = 0; i < 600 && c->armed[1]; i++)
		raw_take(c, 100, &ignored);
	if (c->got[1] != 1 || c->faults[1][0].kind != UBDM_FAULT_READ)
		raw_die(-ENODATA, "no miss comes");
	return c->faults[1][0].cookie;
}

int main(int argc, char **argv)
{
	struct ubdm_device dev;
	struct dump before, after;
	uint64_t first, second;
	struct ubdm_ctl *ctl;
	uint32_t index;
	int fd, status;
	pid_t pid;

	raw_name = "stale";
	if (argc != 2)
		return 2;
	memset(bogus, 0xee, sizeof(bogus));
	fd = open(argv[1], O_RDWR | O_DIRECT | O_CLOEXEC);
	raw_check(fd < 0 ? -errno : 0, argv[1]);
	raw_check(ubdm_ctl_open(&ctl), "netlink");

	raw_open(&one);
	index = raw_create(ctl, &one, SECTORS);
	raw_check(raw_backing(&one, fd), "backing");
	raw_fetch(&one, 1);
	raw_check(raw_start(&one, 7), "start");
	raw_check(map(&one, 128, 1, UBDM_EXT_F_REPLACE), "MAP");
	raw_check(map(&one, 256, 2, UBDM_EXT_F_REPLACE), "MAP");
	raw_check(map(&one, 384, 3, UBDM_EXT_F_REPLACE), "MAP");
	raw_check(commit(&one, 1), "COMMIT");
	pid = reader(index);
	first = told(&one);
	look(&one, &before);
	raw_check(raw_stop(&one, 0), "STOP");
	old_channel(first, "stopped");

	raw_open(&two);
	raw_check(ubdm_ctl_attach(ctl, two.fd, index, &dev), "attach");
	old_channel(first, "another attached");
	answers(&two, first, -ENOENT, "by the next, not told yet");
	move_bytes(&two, first, "by the next, not told yet");
	raw_fetch(&two, 1);
	raw_check(raw_start(&two, 7), "START");
	second = told(&two);
	wrong_if(first == second, "told again", "the same cookie", 0);
	wrong_if(first >> 32 == second >> 32, "told again", "the same epoch", 0);
	answers(&two, first, -ENOENT, "by the next");
	answers(&two, first >> 32 << 32 | (uint32_t)second, -ENOENT, "of the old epoch");
	move_bytes(&two, first, "by the next");
	old_changes("by the next");
	old_channel(first, "another serves");
	old_channel(second, "the other's cookie");

	look(&two, &after);
	wrong_if(memcmp(&before, &after, sizeof(after)), "in the end", "extents changed", 0);
	wrong_if(waitpid(pid, &status, WNOHANG), "in the end", "the request has ended", 0);
	/* And what is right is taken. */
	raw_check(resolve(&two, second, UBDM_RESOLVE_REDRIVE, true), "the right answer");
	waitpid(pid, &status, 0);
	wrong_if(status, "in the end", "the request failed", status);
	answers(&two, second, -ENOENT, "answered already");
	move_bytes(&two, second, "answered already");
	raw_fetch(&two, 0);
	raw_check(ubdm_ctl_delete(ctl, index, true), "delete");
	close(two.fd);
	io_uring_queue_exit(&two.ring);
	wrong_if(!raw_gone(ctl, index, 60), "in the end", "it is not deleted", 0);
	printf("%u times refused, %u not\n", refusals - wrong, wrong);
	return wrong ? 1 : 0;
}
