/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * rawchan.h - a channel and a ring of one's own, for tests of how they end.
 *
 * mapper/ring.h is for mappers that behave.
 */
#ifndef RAWCHAN_H
#define RAWCHAN_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <stdnoreturn.h>
#include <string.h>
#include <unistd.h>

#include <liburing.h>

#include "libubdmap.h"

#define RAW_FAULTS	4
#define RAW_FETCHES	4
#define RAW_ONE		100	/* user_data of a command that is waited for */
#define RAW_NONE	101	/* whose end nobody wants */

struct rawchan {
	int fd;
	struct io_uring ring;
	struct ubdm_fault faults[RAW_FETCHES][RAW_FAULTS];
	int got[RAW_FETCHES];		/* how a FETCH ended; its user_data is its number */
	bool armed[RAW_FETCHES];
};

static const char *raw_name = "test";

noreturn static inline void raw_die(int res, const char *what)
{
	fprintf(stderr, "%s: %s: %s\n", raw_name, what, strerror(-res));
	exit(1);
}

static inline void raw_check(int res, const char *what)
{
	if (res < 0)
		raw_die(res, what);
}

static inline void raw_ring(struct rawchan *c)
{
	struct io_uring_params p = { .flags = IORING_SETUP_SQE128 };

	raw_check(io_uring_queue_init_params(64, &c->ring, &p), "ring");
	/* A child that has it mapped would keep it from ending. */
	raw_check(io_uring_ring_dontfork(&c->ring), "ring");
	memset(c->armed, 0, sizeof(c->armed));
}

static inline void raw_open(struct rawchan *c)
{
	memset(c, 0, sizeof(*c));
	c->fd = open(UBDM_CHANNEL_PATH, O_RDWR | O_CLOEXEC);
	raw_check(c->fd < 0 ? -errno : 0, UBDM_CHANNEL_PATH);
	raw_ring(c);
}

static inline void raw_close(struct rawchan *c)
{
	io_uring_queue_exit(&c->ring);
	close(c->fd);
}

static inline void raw_send(struct rawchan *c, uint32_t op, const void *body,
			    size_t size, uint64_t user_data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&c->ring);

	if (!sqe)
		raw_die(-EAGAIN, "room in the ring");
	memset(sqe, 0, 128);
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->fd = c->fd;
	sqe->cmd_op = op;
	memcpy(sqe->cmd, body, size);
	sqe->user_data = user_data;
	io_uring_submit(&c->ring);
}

/* Takes one result; true if it was that of RAW_ONE.  Waits for @ms. */
static inline bool raw_take(struct rawchan *c, int ms, int *one)
{
	struct __kernel_timespec t = { ms / 1000, ms % 1000 * 1000000L };
	struct io_uring_cqe *cqe;
	uint64_t what;
	int res;

	if (io_uring_wait_cqe_timeout(&c->ring, &cqe, &t))
		return false;
	what = cqe->user_data;
	res = cqe->res;
	io_uring_cqe_seen(&c->ring, cqe);
	if (what < RAW_FETCHES) {
		c->got[what] = res;
		c->armed[what] = false;
	}
	if (what != RAW_ONE)
		return false;
	*one = res;
	return true;
}

/* One command and its result.  FETCHes may end meanwhile. */
static inline int raw_do(struct rawchan *c, uint32_t op, const void *body, size_t size)
{
	int res = -ETIME, i;

	raw_send(c, op, body, size, RAW_ONE);
	for (i = 0; i < 600 && !raw_take(c, 100, &res); i++)
		;
	return res;
}

static inline void raw_fetch(struct rawchan *c, unsigned int i)
{
	struct ubdm_fetch f = { .buf = (uintptr_t)c->faults[i], .nr = RAW_FAULTS };

	c->armed[i] = true;
	c->got[i] = 0;
	raw_send(c, UBDM_CMD_FETCH, &f, sizeof(f), i);
}

static inline int raw_backing(struct rawchan *c, int fd)
{
	struct ubdm_backing_add a = { .fd = fd, .flags = UBDM_BACKING_F_WRITE,
				      .len = UINT64_MAX };

	return raw_do(c, UBDM_CMD_BACKING_ADD, &a, sizeof(a));
}

static inline int raw_start(struct rawchan *c, unsigned int shift)
{
	struct ubdm_start s = { .granule_shift = shift };

	return raw_do(c, UBDM_CMD_START, &s, sizeof(s));
}

static inline int raw_stop(struct rawchan *c, uint32_t flags)
{
	struct ubdm_stop s = { .flags = flags };

	return raw_do(c, UBDM_CMD_STOP, &s, sizeof(s));
}

static inline uint32_t raw_create(struct ubdm_ctl *ctl, struct rawchan *c,
				  uint64_t sectors)
{
	struct ubdm_create make = { .index = -1, .block_size = 512, .size = sectors,
				    .phys_block_size = 4096, .discard_gran = 4096,
				    .channel = c->fd, .ident = "raw", .format = "test" };
	uint32_t index = 0;

	raw_check(ubdm_ctl_create(ctl, &make, &index), "create");
	return index;
}

/* Until a device is gone. */
static inline bool raw_gone(struct ubdm_ctl *ctl, uint32_t index, int seconds)
{
	struct ubdm_device dev;

	for (int i = 0; i < seconds * 200; i++) {
		if (ubdm_ctl_get(ctl, index, &dev) == -ENODEV)
			return true;
		usleep(5000);
	}
	fprintf(stderr, "%s: device %u is not gone; state %u\n", raw_name, index,
		dev.state);
	return false;
}

static inline int raw_open_device(uint32_t index, int flags)
{
	char path[32];

	snprintf(path, sizeof(path), "/dev/ubdmap%u", index);
	return open(path, flags | O_CLOEXEC);
}

#endif /* RAWCHAN_H */
