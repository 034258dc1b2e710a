// SPDX-License-Identifier: GPL-2.0-only
/*
 * mover.c - a mapper that moves what it maps, all the time, below those who use it.
 *
 *   mover [-i] FILE OWN [SECTOR]
 *
 * FILE has two places for each granule of the device, which is half as large.
 * Granule after granule is moved from the one to the other, and where it was is
 * overwritten with poison at once: by REPLACE, first with an extent that is not
 * writable, or with -i by INVALIDATE, while its misses wait.  What reaches the
 * old place too late is lost, or it is poison that is read; and poison that
 * has changed when its place is needed again was written to by somebody.
 *
 * The mapper's own I/O goes to OWN, which holds FILE's bytes from SECTOR on: with
 * a device in between that delays, what is in flight stays so long enough.
 *
 * Prints the device when it is there, and at its end how often it moved how much.
 * Ends with 1 if poison was changed.
 */
#include "toymap.h"

#define SHIFT		7		/* a granule is 64 KiB */
#define SECTORS		(1 << SHIFT)
#define BYTES		(SECTORS << 9)
#define MOVES		3		/* at a time */
#define POISON		0xdb

/* A miss on a granule that is on its way. */
struct held {
	struct held *next;
	uint64_t cookie, lba;
};

struct granule {
	struct held *held;
	unsigned int half;
	bool moving;
};

struct move {
	struct ubdm_cmd cmd;
	struct ubdm_extent ext;
	uint64_t g;
};

static struct granule *granules;
static uint64_t nr_granules, own_start, next_tid = 1, moves, rng = 1;
static bool invalidate, stopping, spoilt;
static int own;
static uint8_t *buf, *poison;

static uint64_t place(uint64_t g, unsigned int half)
{
	return (g + half * nr_granules) << SHIFT;
}

static void own_io(bool write, void *mem, uint64_t sector)
{
	off_t pos = (own_start + sector) << 9;
	ssize_t n = write ? pwrite(own, mem, BYTES, pos) :
			    pread(own, mem, BYTES, pos);

	if (n != BYTES)
		check(n < 0 ? -errno : -EIO, "own I/O");
}

static void answered(struct ubdm_cmd *cmd, int res)
{
	/* A forced delete takes faults back. */
	if (res < 0 && res != -ENOENT && res != -ESHUTDOWN)
		check(res, "answer");
	free(cmd);
}

static struct ubdm_resolve *new_resolve(uint64_t cookie, struct ubdm_cmd **cmd)
{
	struct ubdm_resolve *r;

	*cmd = calloc(1, sizeof(**cmd));
	(*cmd)->done = answered;
	(*cmd)->msg.op = UBDM_CMD_RESOLVE;
	r = (struct ubdm_resolve *)(*cmd)->msg.body;
	r->cookie = cookie;
	return r;
}

static void extent(struct ubdm_extent *e, uint64_t g, bool write)
{
	*e = (struct ubdm_extent) {
		.lba = g << SHIFT, .len = SECTORS, .off = place(g, granules[g].half),
		.type = UBDM_EXT_LINEAR,
		.perm = UBDM_PERM_R | (write ? UBDM_PERM_W : 0),
	};
}

static void map_fault(uint64_t cookie, uint64_t lba)
{
	struct ubdm_resolve *r;
	struct ubdm_cmd *cmd;

	r = new_resolve(cookie, &cmd);
	r->action = UBDM_RESOLVE_REDRIVE;
	r->flags = UBDM_RESOLVE_F_INLINE;
	r->nr_ext = 1;
	extent(&r->ext, lba >> SHIFT, true);
	ubdm_ring_queue(&ring, cmd);
}

static void move_on(struct move *m);

static void moved(struct move *m)
{
	struct granule *g = &granules[m->g];
	struct held *h;

	g->moving = false;
	moves++;
	while ((h = g->held)) {
		g->held = h->next;
		map_fault(h->cookie, h->lba);
		free(h);
	}
	move_on(m);
}

static void copy(uint64_t g)
{
	unsigned int to = !granules[g].half;

	own_io(false, buf, place(g, to));
	if (memcmp(buf, poison, BYTES)) {
		fprintf(stderr, "mover: granule %llu, half %u: written after it had drained\n",
			(unsigned long long)g, to);
		spoilt = true;
	}
	own_io(false, buf, place(g, !to));
	own_io(true, buf, place(g, to));
	granules[g].half = to;
}

static void send_map(struct move *m, bool write, void (*done)(struct ubdm_cmd *, int))
{
	struct ubdm_map *map = memset(m->cmd.msg.body, 0, UBDM_CMD_BODY);

	extent(&m->ext, m->g, write);
	m->ext.tid = next_tid++;
	m->ext.flags = UBDM_EXT_F_REPLACE;
	m->cmd.msg.op = UBDM_CMD_MAP;
	m->cmd.done = done;
	map->addr = (uintptr_t)&m->ext;
	map->nr_ext = 1;
	ubdm_ring_queue(&ring, &m->cmd);
}

/* What is sent behind the STOP is refused; there is nothing left to move then. */
static bool refused(int res, const char *what)
{
	if (stopping && res == -ESHUTDOWN)
		return true;
	check(res, what);
	return false;
}

/* Nobody reads the old place any more. */
static void unread(struct ubdm_cmd *cmd, int res)
{
	struct move *m = (struct move *)cmd;

	if (refused(res, "MAP"))
		return;
	own_io(true, poison, place(m->g, !granules[m->g].half));
	moved(m);
}

/* Nobody writes there any more. */
static void unwritten(struct ubdm_cmd *cmd, int res)
{
	struct move *m = (struct move *)cmd;

	if (refused(res, "MAP"))
		return;
	copy(m->g);
	send_map(m, true, unread);
}

/* Nobody does either. */
static void unused(struct ubdm_cmd *cmd, int res)
{
	struct move *m = (struct move *)cmd;

	if (refused(res, "INVALIDATE"))
		return;
	copy(m->g);
	own_io(true, poison, place(m->g, !granules[m->g].half));
	moved(m);
}

static void move_on(struct move *m)
{
	struct ubdm_invalidate *i;

	if (stopping)
		return;
	do {
		rng ^= rng << 13;
		rng ^= rng >> 7;
		rng ^= rng << 17;
		m->g = rng % nr_granules;
	} while (granules[m->g].moving);
	granules[m->g].moving = true;
	if (!invalidate) {
		send_map(m, false, unwritten);
		return;
	}
	i = memset(m->cmd.msg.body, 0, UBDM_CMD_BODY);
	i->start = m->g << SHIFT;
	i->len = SECTORS;
	i->flags = UBDM_INVAL_F_LBA;
	m->cmd.msg.op = UBDM_CMD_INVALIDATE;
	m->cmd.done = unused;
	ubdm_ring_queue(&ring, &m->cmd);
}

static void access_fault(const struct ubdm_fault *f)
{
	struct granule *g = &granules[f->lba >> SHIFT];
	struct held *h;

	if (!g->moving) {
		map_fault(f->cookie, f->lba);
		return;
	}
	h = calloc(1, sizeof(*h));
	h->cookie = f->cookie;
	h->lba = f->lba;
	h->next = g->held;
	g->held = h;
}

static void answer(const struct ubdm_fault *f)
{
	struct ubdm_resolve *r;
	struct ubdm_cmd *cmd;

	switch (f->kind) {
	case UBDM_FAULT_READ:
	case UBDM_FAULT_WRITE:
		access_fault(f);
		return;
	case UBDM_FAULT_SHUTDOWN:
		stopping = true;
		toy_stop();
		return;
	case UBDM_FAULT_COMMIT:
	case UBDM_FAULT_FLUSH:
		cmd = calloc(1, sizeof(*cmd));
		cmd->done = answered;
		ubdm_encode_commit(&cmd->msg, f->tid);
		ubdm_ring_queue(&ring, cmd);
	}
	if (f->kind == UBDM_FAULT_COMMIT)
		return;
	r = new_resolve(f->cookie, &cmd);
	r->action = UBDM_RESOLVE_DONE;
	r->done = f->len;	/* a discard may do nothing */
	if (f->kind == UBDM_FAULT_ZEROES) {
		r->action = UBDM_RESOLVE_ERROR;
		r->error = -EOPNOTSUPP;
		r->done = 0;
	}
	ubdm_ring_queue(&ring, cmd);
}

static void prepare(uint64_t sectors)
{
	nr_granules = sectors / 2 / SECTORS;
	granules = calloc(nr_granules, sizeof(*granules));
	if (!granules || posix_memalign((void **)&buf, 4096, BYTES) ||
	    posix_memalign((void **)&poison, 4096, BYTES))
		check(-ENOMEM, "memory");
	memset(poison, POISON, BYTES);
	memset(buf, 0, BYTES);
	for (uint64_t g = 0; g < nr_granules; g++) {
		own_io(true, buf, place(g, 0));
		own_io(true, poison, place(g, 1));
	}
}

static uint32_t make(int fd)
{
	struct ubdm_create c = { .index = -1, .block_size = 512,
				 .phys_block_size = 4096,
				 .size = nr_granules * SECTORS,
				 .ident = "mover", .format = "test" };
	struct ubdm_ctl *ctl;
	uint32_t index;

	c.channel = toy_open_channel();
	check(ubdm_ctl_open(&ctl), "netlink");
	check(ubdm_ctl_create(ctl, &c, &index), "create");
	check(ubdm_ring_init(&ring, c.channel), "ring");
	toy_backing(fd, 0);
	toy_arm(answer);
	toy_start(SHIFT);
	return index;
}

int main(int argc, char **argv)
{
	static struct move move[MOVES];
	int fd, opt;

	while ((opt = getopt(argc, argv, "i")) != -1) {
		if (opt != 'i')
			return 2;
		invalidate = true;
	}
	if (argc - optind < 2)
		return 2;
	fd = toy_open(argv[optind], false);
	own = toy_open(argv[optind + 1], false);
	if (argc - optind > 2)
		own_start = strtoull(argv[optind + 2], NULL, 0);
	prepare(toy_sectors(fd));
	toy_say(make(fd));
	for (int i = 0; i < MOVES; i++)
		move_on(&move[i]);
	while (!ended)
		toy_turn();
	printf("moves %llu\n", (unsigned long long)moves);
	return spoilt;
}
