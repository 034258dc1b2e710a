// SPDX-License-Identifier: GPL-2.0-only
/*
 * kmap.c - a mapper that knows no image format, to test the driver alone.
 *
 *   kmap [-g SHIFT] [-b] [-p] [-r RUN] FILE [SLOW]
 *
 * The device is as large as FILE and sector s of it is sector s of FILE.  A
 * fault maps its range only (or RUN granules), so that misses happen all day.
 * -p answers writes with PLACE, -b registers FILE buffered.  Prints the device
 * when it is there; ends when it is deleted.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>
#include <linux/fs.h>

#include "../../mapper/ring.h"
#include "libubdmap.h"

#define FAULTS	16
#define FETCHES	4

struct fetch {
	struct ubdm_cmd cmd;
	struct ubdm_fault faults[FAULTS];
};

static struct ubdm_ring ring;
static unsigned int granule_shift = 7;	/* 64 KiB */
static uint64_t size, run, next_tid = 1;
static bool place, ended;
static int start_res = 1, add_res = -EINPROGRESS;

static void check(int res, const char *what)
{
	if (res >= 0)
		return;
	fprintf(stderr, "kmap: %s: %s\n", what, strerror(-res));
	exit(1);
}

static void one_done(struct ubdm_cmd *cmd, int res)
{
	/* A forced delete takes faults back. */
	if (res < 0 && res != -ENOENT && res != -ESHUTDOWN)
		fprintf(stderr, "kmap: answer: %s\n", strerror(-res));
	free(cmd);
}

static struct ubdm_resolve *new_resolve(struct ubdm_cmd **cmd, uint64_t cookie)
{
	struct ubdm_resolve *r;

	*cmd = calloc(1, sizeof(**cmd));
	(*cmd)->done = one_done;
	(*cmd)->msg.op = UBDM_CMD_RESOLVE;
	r = (struct ubdm_resolve *)(*cmd)->msg.body;
	r->cookie = cookie;
	return r;
}

static void map_it(const struct ubdm_fault *f, struct ubdm_resolve *r)
{
	uint64_t mask = (1ULL << granule_shift) - 1;
	uint64_t start = f->lba & ~mask, end = (f->lba + f->len + mask) & ~mask;

	if (run && end < start + (run << granule_shift))
		end = start + (run << granule_shift);
	r->action = UBDM_RESOLVE_REDRIVE;
	if (place && f->kind == UBDM_FAULT_WRITE) {
		r->action = UBDM_RESOLVE_PLACE;
		r->ext.tid = next_tid++;
		start = f->lba;
		end = f->lba + f->len;
	}
	if (end > size)
		end = size;
	r->ext.lba = r->ext.off = start;
	r->ext.len = end - start;
	r->ext.type = UBDM_EXT_LINEAR;
	r->ext.perm = UBDM_PERM_R;
	if (!place || f->kind == UBDM_FAULT_WRITE)
		r->ext.perm |= UBDM_PERM_W;
	r->nr_ext = 1;
	r->flags = UBDM_RESOLVE_F_INLINE;
}

static void stop_done(struct ubdm_cmd *cmd, int res)
{
	(void)cmd;
	check(res, "stop");
	ended = true;
}

static void answer(const struct ubdm_fault *f)
{
	static struct ubdm_cmd stop = { .done = stop_done };
	struct ubdm_resolve *r;
	struct ubdm_cmd *cmd;

	if (f->kind == UBDM_FAULT_SHUTDOWN) {
		ubdm_encode_stop(&stop.msg, true, 0);
		ubdm_ring_queue(&ring, &stop);
		return;
	}
	r = new_resolve(&cmd, f->cookie);
	switch (f->kind) {
	case UBDM_FAULT_READ:
	case UBDM_FAULT_WRITE:
		map_it(f, r);
		break;
	case UBDM_FAULT_FLUSH:
		/* Not durable: this is a test of the driver. */
		{
			struct ubdm_cmd *c = calloc(1, sizeof(*c));

			c->done = one_done;
			ubdm_encode_commit(&c->msg, f->tid);
			ubdm_ring_queue(&ring, c);
		}
		r->action = UBDM_RESOLVE_DONE;
		break;
	case UBDM_FAULT_DISCARD:
		r->action = UBDM_RESOLVE_DONE;
		r->done = f->len;
		break;
	default:
		r->action = UBDM_RESOLVE_ERROR;
		r->error = -EOPNOTSUPP;
	}
	ubdm_ring_queue(&ring, cmd);
}

static void fetched(struct ubdm_cmd *cmd, int res)
{
	struct fetch *f = (struct fetch *)cmd;
	int i;

	for (i = 0; i < res; i++)
		answer(&f->faults[i]);
	if (res < 0) {
		ended = true;
		return;
	}
	ubdm_ring_queue(&ring, cmd);
}

static void started(struct ubdm_cmd *cmd, int res)
{
	(void)cmd;
	start_res = res;
}

static void added(struct ubdm_cmd *cmd, int res)
{
	(void)cmd;
	add_res = res;
}

static void turn(void)
{
	check(ubdm_ring_wait(&ring, 1000), "wait");
	ubdm_ring_clear(&ring);
	check(ubdm_ring_turn(&ring), "turn");
}

static uint64_t file_sectors(int fd)
{
	uint64_t bytes;
	struct stat st;

	if (fstat(fd, &st))
		return 0;
	if (!S_ISBLK(st.st_mode))
		return st.st_size / 512;
	return ioctl(fd, BLKGETSIZE64, &bytes) ? 0 : bytes / 512;
}

int main(int argc, char **argv)
{
	struct ubdm_create c = { .index = -1, .block_size = 512,
				 .phys_block_size = 4096, .discard_gran = 4096,
				 .ident = "kmap", .format = "test" };
	static struct fetch fetches[FETCHES];
	struct ubdm_cmd add = { .done = added }, start = { .done = started };
	uint32_t flags = UBDM_BACKING_F_WRITE, index;
	struct ubdm_ctl *ctl;
	int fd, opt, i;

	while ((opt = getopt(argc, argv, "g:bpr:")) != -1) {
		switch (opt) {
		case 'g':
			granule_shift = atoi(optarg);
			break;
		case 'b':
			flags |= UBDM_BACKING_F_BUFFERED;
			break;
		case 'p':
			place = true;
			break;
		case 'r':
			run = strtoull(optarg, NULL, 0);
			break;
		default:
			return 2;
		}
	}
	fd = open(argv[optind], O_RDWR | O_CLOEXEC |
		  (flags & UBDM_BACKING_F_BUFFERED ? 0 : O_DIRECT));
	check(fd < 0 ? -errno : 0, argv[optind]);
	size = c.size = file_sectors(fd);
	c.channel = open(UBDM_CHANNEL_PATH, O_RDWR | O_CLOEXEC);
	check(c.channel < 0 ? -errno : 0, UBDM_CHANNEL_PATH);
	check(ubdm_ctl_open(&ctl), "netlink");
	check(ubdm_ctl_create(ctl, &c, &index), "create");
	check(ubdm_ring_init(&ring, c.channel), "ring");

	ubdm_encode_backing_add(&add.msg, fd, flags);
	ubdm_ring_queue(&ring, &add);
	while (add_res == -EINPROGRESS)
		turn();
	check(add_res, "backing");
	for (i = 0; i < FETCHES; i++) {
		fetches[i].cmd.done = fetched;
		ubdm_encode_fetch(&fetches[i].cmd.msg, fetches[i].faults, FAULTS);
		ubdm_ring_queue(&ring, &fetches[i].cmd);
	}
	ubdm_encode_start(&start.msg, granule_shift);
	ubdm_ring_queue(&ring, &start);
	while (start_res > 0 && !ended)
		turn();
	check(start_res, "start");
	printf("/dev/ubdmap%u\n", index);
	fflush(stdout);
	while (!ended)
		turn();
	return 0;
}
