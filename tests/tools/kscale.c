// SPDX-License-Identifier: GPL-2.0-only
/*
 * kscale.c - a mapper of many extents, to see what they cost the driver.
 *
 *   kscale [-b BATCH] [-m MAX] [-n NR] [-o rising|falling|random] [-w] [-z] DISK
 *
 * The device has NR blocks of 4 KiB, each an extent: its blocks are every other one
 * of DISK, which has to be twice as large, so that no two continue each other.  All
 * are mapped before it appears, BATCH at a time, and what one took is printed, in
 * nanoseconds of this clock, then the device.  With -m the driver keeps MAX of
 * them, and a fault is answered with the one block.  -w: nothing is mapped before.
 * -z: nor ever; a fault is answered as done, and nothing was.
 */
#include <time.h>

#define TOY_FAULTS	64
#include "toymap.h"

#define BLOCK	8u		/* sectors */

static uint64_t nr = 1000000, batch = 4096;
static bool null;

static struct ubdm_extent extent(uint64_t block)
{
	return (struct ubdm_extent) {
		.lba = block * BLOCK, .len = BLOCK, .off = block * 2 * BLOCK,
		.type = UBDM_EXT_LINEAR, .perm = UBDM_PERM_R | UBDM_PERM_W,
	};
}

static uint64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static void map_blocks(uint64_t first, uint64_t n)
{
	static struct ubdm_extent ext[UBDM_MAX_EXTENTS];
	struct toy_call c = { .cmd.msg.op = UBDM_CMD_MAP };
	struct ubdm_map *m = (struct ubdm_map *)c.cmd.msg.body;

	for (uint64_t i = 0; i < n; i++)
		ext[i] = extent(first + i);
	m->addr = (uintptr_t)ext;
	m->nr_ext = n;
	toy_do(&c, "map");
}

/* The order of the batches: 0, 1, ... or as wanted. */
static uint64_t *order_of(uint64_t n, const char *how)
{
	uint64_t *order = calloc(n, sizeof(*order)), rng = 88172645463325252ull;

	if (!order)
		check(-ENOMEM, "order");
	for (uint64_t i = 0; i < n; i++) {
		uint64_t j = i;

		if (!strcmp(how, "random")) {
			rng ^= rng << 13;
			rng ^= rng >> 7;
			rng ^= rng << 17;
			j = rng % (i + 1);
		}
		order[i] = order[j];
		order[j] = i;
		if (!strcmp(how, "falling"))
			order[i] = n - 1 - i;
	}
	return order;
}

static void map_all(const char *how)
{
	uint64_t n = (nr + batch - 1) / batch, t, *order = order_of(n, how);

	t = now_ns();
	for (uint64_t i = 0; i < n; i++) {
		uint64_t first = order[i] * batch;

		map_blocks(first, first + batch > nr ? nr - first : batch);
	}
	t = now_ns() - t;
	printf("MAP %s, %llu at a time: %llu ns for an extent\n", how,
	       (unsigned long long)batch, (unsigned long long)(t / nr));
	free(order);
}

static void answered(struct ubdm_cmd *cmd, int res)
{
	if (res < 0 && res != -ENOENT && res != -ESHUTDOWN)
		fprintf(stderr, "kscale: answer: %s\n", strerror(-res));
	free(cmd);
}

static void answer(const struct ubdm_fault *f)
{
	struct ubdm_resolve *r;
	struct ubdm_cmd *cmd;

	if (f->kind == UBDM_FAULT_SHUTDOWN) {
		toy_stop();
		return;
	}
	cmd = calloc(1, sizeof(*cmd));
	if (!cmd)
		check(-ENOMEM, "answer");
	cmd->done = answered;
	cmd->msg.op = UBDM_CMD_RESOLVE;
	r = (struct ubdm_resolve *)cmd->msg.body;
	r->cookie = f->cookie;
	if (f->kind != UBDM_FAULT_READ && f->kind != UBDM_FAULT_WRITE) {
		r->action = UBDM_RESOLVE_ERROR;
		r->error = -EOPNOTSUPP;
	} else if (null) {
		r->action = UBDM_RESOLVE_DONE;
		r->done = f->len;
	} else {
		r->action = UBDM_RESOLVE_REDRIVE;
		r->flags = UBDM_RESOLVE_F_INLINE;
		r->nr_ext = 1;
		r->ext = extent(f->lba / BLOCK);
	}
	ubdm_ring_queue(&ring, cmd);
}

int main(int argc, char **argv)
{
	struct ubdm_create c = { .index = -1, .block_size = 512,
				 .phys_block_size = 4096,
				 .ident = "kscale", .format = "test" };
	const char *order = "rising";
	struct ubdm_ctl *ctl;
	bool without = false;
	uint32_t index = 0;
	int opt, fd;

	while ((opt = getopt(argc, argv, "b:m:n:o:wz")) != -1) {
		switch (opt) {
		case 'b':
			batch = strtoull(optarg, NULL, 0);
			break;
		case 'm':
			c.max_extents = strtoull(optarg, NULL, 0);
			break;
		case 'n':
			nr = strtoull(optarg, NULL, 0);
			break;
		case 'o':
			order = optarg;
			break;
		case 'w':
			without = true;
			break;
		case 'z':
			null = without = true;
			break;
		default:
			return 2;
		}
	}
	if (optind != argc - 1 || !nr || !batch || batch > UBDM_MAX_EXTENTS)
		return 2;
	fd = toy_open(argv[optind], false);
	c.size = nr * BLOCK;
	c.channel = toy_open_channel();
	check(ubdm_ctl_open(&ctl), "netlink");
	check(ubdm_ctl_create(ctl, &c, &index), "create");
	check(ubdm_ring_init(&ring, c.channel), "ring");
	toy_backing(fd, 0);
	if (!without)
		map_all(order);
	toy_arm(answer);
	toy_start(3);
	toy_say(index);
	while (!ended)
		toy_turn();
	return 0;
}
