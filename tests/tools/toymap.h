/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * toymap.h - what mappers that know no image format share: a channel, a ring that is
 * turned by hand, commands that are waited for, FETCHes that are armed again.
 *
 * For tests of the driver with a mapper that behaves; rawchan.h is for the others.
 * Included by the one file of a program.
 */
#ifndef TOYMAP_H
#define TOYMAP_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/fs.h>

#include "../../mapper/ring.h"
#include "libubdmap.h"

#ifndef TOY_FAULTS
#define TOY_FAULTS	16		/* in one FETCH */
#endif
#define TOY_FETCHES	4

struct toy_fetch {
	struct ubdm_cmd cmd;
	struct ubdm_fault faults[TOY_FAULTS];
};

/* A command whose result is waited for. */
struct toy_call {
	struct ubdm_cmd cmd;
	int res;
};

static struct ubdm_ring ring;
static bool ended;		/* the channel is of no use any more */
static void (*toy_answer)(const struct ubdm_fault *f);

static inline void check(int res, const char *what)
{
	if (res >= 0)
		return;
	fprintf(stderr, "%s: %s: %s\n", program_invocation_short_name, what,
		strerror(-res));
	exit(1);
}

/* Where allocations fail the driver asks for the same command again. */
static inline bool toy_again(struct ubdm_cmd *cmd, int res)
{
	if (res != -ENOMEM)
		return false;
	ubdm_ring_queue(&ring, cmd);
	return true;
}

/* As a mapper waits.  A program may have several rings, one after the other. */
static inline void toy_wait(void)
{
	static int epoll = -1, watched = -1;
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	if (epoll < 0) {
		epoll = epoll_create1(EPOLL_CLOEXEC);
		check(epoll < 0 ? -errno : 0, "epoll");
	}
	if (watched != ring.eventfd) {
		watched = ring.eventfd;
		check(epoll_ctl(epoll, EPOLL_CTL_ADD, watched, &ev) ? -errno : 0, "epoll");
	}
	check(epoll_wait(epoll, &ev, 1, 1000) < 0 && errno != EINTR ? -errno : 0, "wait");
}

static inline void toy_turn(void)
{
	check(ubdm_ring_run(&ring), "run");
	if (!ended)
		toy_wait();
}

static inline void toy_called(struct ubdm_cmd *cmd, int res)
{
	((struct toy_call *)cmd)->res = res;
}

/* Ends the program if the command fails, or @ended comes first. */
static inline int toy_do(struct toy_call *c, const char *what)
{
	c->cmd.done = toy_called;
	c->res = -EINPROGRESS;
	ubdm_ring_queue(&ring, &c->cmd);
	for (;;) {
		check(ubdm_ring_run(&ring), "run");
		if (c->res != -EINPROGRESS || ended)
			break;
		toy_wait();
	}
	check(c->res == -EINPROGRESS ? -ESHUTDOWN : c->res, what);
	return c->res;
}

static inline void toy_backing(int fd, uint32_t flags)
{
	struct toy_call c = { 0 };

	ubdm_encode_backing_add(&c.cmd.msg, fd, flags | UBDM_BACKING_F_WRITE);
	toy_do(&c, "backing");
}

static inline void toy_start(unsigned int granule_shift)
{
	struct toy_call c = { 0 };

	ubdm_encode_start(&c.cmd.msg, granule_shift);
	toy_do(&c, "start");
}

static inline void toy_fetched(struct ubdm_cmd *cmd, int res)
{
	struct toy_fetch *f = (struct toy_fetch *)cmd;

	if (toy_again(cmd, res))
		return;
	if (res < 0) {
		ended = true;
		return;
	}
	for (int i = 0; i < res; i++)
		toy_answer(&f->faults[i]);
	ubdm_ring_queue(&ring, cmd);
}

static inline void toy_arm(void (*answer)(const struct ubdm_fault *f))
{
	static struct toy_fetch fetches[TOY_FETCHES];

	toy_answer = answer;
	for (int i = 0; i < TOY_FETCHES; i++) {
		fetches[i].cmd.done = toy_fetched;
		ubdm_encode_fetch(&fetches[i].cmd.msg, fetches[i].faults, TOY_FAULTS);
		ubdm_ring_queue(&ring, &fetches[i].cmd);
	}
}

static inline void toy_stopped(struct ubdm_cmd *cmd, int res)
{
	(void)cmd;
	check(res, "stop");
	ended = true;
}

/* The answer to SHUTDOWN: there is nothing to complete. */
static inline void toy_stop(void)
{
	static struct ubdm_cmd stop = { .done = toy_stopped };

	ubdm_encode_stop(&stop.msg, true, 0);
	ubdm_ring_queue(&ring, &stop);
}

static inline int toy_open_channel(void)
{
	int fd = open(UBDM_CHANNEL_PATH, O_RDWR | O_CLOEXEC);

	check(fd < 0 ? -errno : 0, UBDM_CHANNEL_PATH);
	return fd;
}

static inline int toy_open(const char *path, bool buffered)
{
	int fd = open(path, O_RDWR | O_CLOEXEC | (buffered ? 0 : O_DIRECT));

	check(fd < 0 ? -errno : 0, path);
	return fd;
}

/* Of a file or a block device. */
static inline uint64_t toy_sectors(int fd)
{
	uint64_t bytes;
	struct stat st;

	check(fstat(fd, &st) ? -errno : 0, "size");
	bytes = st.st_size;
	if (S_ISBLK(st.st_mode) && ioctl(fd, BLKGETSIZE64, &bytes))
		check(-errno, "size");
	return bytes / 512;
}

static inline void toy_say(uint32_t index)
{
	printf("/dev/ubdmap%u\n", index);
	fflush(stdout);
}

#endif /* TOYMAP_H */
