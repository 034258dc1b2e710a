// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_takeover.c - the life of a mapper, with everything that it asks for failing
 * once: serve, crash, take over, finish, close.
 *
 * The mapper and the slowpath are real; behind the ring's functions stands the
 * driver in miniature, which does each command as it comes.  In round N the N-th
 * allocation, command or I/O fails, until a round passes untouched.  Whatever
 * failed: the next mapper takes over, what was written is there, the image ends
 * clean, no descriptor is left open.
 */
#include "util.h"
#include <dirent.h>
#include "cm.h"
#include "craft.h"
#include "failalloc.h"
#include "io.h"
#include "mapper.h"
#include "ring_fake.h"

#define SECT(guest)	((uint64_t)(guest) * CRAFT_SECTORS)
#define SIZE		SECT(CRAFT_GUEST)
#define MAX_FETCH	64
#define MAX_STORES	8

/* ---- the driver ---- */

/* A sector's extent; type 0: none. */
struct slot {
	uint64_t off, tid;
	uint16_t backing;
	uint8_t type, perm;
	bool touched;
};

static struct {
	struct slot map[SIZE];
	int fd[MAX_STORES];
	unsigned int nr_fds;
	uint64_t max_tid;
	struct ubdm_cmd *fetch[MAX_FETCH];
	unsigned int nr_fetch;
	struct ubdm_cmd *queue, **tail;
	uint64_t cookie;
	/* What became of the fault at hand. */
	bool answered;
	struct ubdm_resolve answer;
	struct ubdm_extent ext[SP_MAX_REPLY];
} drv;

static unsigned int cmd_in, cmd_seen;
static int cmd_error;

static void install(const struct ubdm_extent *e, unsigned int nr, bool touched)
{
	for (; nr--; e++) {
		for (uint64_t i = 0; i < e->len; i++) {
			struct slot *s = &drv.map[e->lba + i];

			if (!(e->flags & UBDM_EXT_F_REPLACE) && !touched && s->type)
				continue;
			*s = (struct slot) {
				.off = e->off + i, .tid = e->tid, .backing = e->backing,
				.type = e->type, .perm = e->perm,
				.touched = touched || e->flags & UBDM_EXT_F_TOUCHED,
			};
		}
		if (e->tid > drv.max_tid)
			drv.max_tid = e->tid;
	}
}

/* One extent that is not inside the device, and all are refused. */
static bool inside(const struct ubdm_extent *e, unsigned int nr)
{
	for (; nr--; e++)
		if (e->lba >= SIZE || e->len > SIZE - e->lba)
			return false;
	return true;
}

static int resolve(const struct ubdm_resolve *r)
{
	const struct ubdm_extent *e = r->flags & UBDM_RESOLVE_F_INLINE ? &r->ext :
				      (const void *)(uintptr_t)r->addr;

	if (r->cookie != drv.cookie || drv.answered)
		return -ENOENT;
	if (!inside(e, r->nr_ext))
		return -EINVAL;
	drv.answered = true;
	drv.answer = *r;
	if (r->nr_ext)
		memcpy(drv.ext, e, r->nr_ext * sizeof(*e));
	if (r->action != UBDM_RESOLVE_PLACE)
		install(drv.ext, r->nr_ext, false);
	return 0;
}

static int dump(const struct ubdm_dump *d)
{
	struct ubdm_dump_head *h = (void *)(uintptr_t)d->addr;
	struct ubdm_extent *out = (void *)(h + 1), *e = NULL;

	memset(h, 0, sizeof(*h));
	h->max_tid = drv.max_tid;
	h->next_lba = UINT64_MAX;
	for (uint64_t lba = d->lba; lba < SIZE; lba++) {
		const struct slot *s = &drv.map[lba];

		if (!s->tid) {
			e = NULL;
			continue;
		}
		if (e && e->tid == s->tid && e->type == s->type &&
		    (e->type != UBDM_EXT_LINEAR || e->off + e->len == s->off)) {
			e->len++;
			e->flags |= s->touched ? UBDM_EXT_F_TOUCHED : 0;
			continue;
		}
		if (h->nr == d->nr) {
			h->next_lba = lba;
			break;
		}
		e = &out[h->nr++];
		*e = (struct ubdm_extent) {
			.lba = lba, .len = 1, .off = s->type == UBDM_EXT_LINEAR ? s->off : 0,
			.tid = s->tid, .backing = s->backing, .type = s->type,
			.perm = s->perm, .flags = s->touched ? UBDM_EXT_F_TOUCHED : 0,
		};
	}
	return 0;
}

static int add_backing(const struct ubdm_backing_add *b)
{
	assert_true(drv.nr_fds < MAX_STORES);
	drv.fd[drv.nr_fds] = dup(b->fd);
	return drv.nr_fds++;
}

static void commit(uint64_t tid)
{
	for (uint64_t i = 0; i < SIZE; i++)
		if (drv.map[i].tid <= tid)
			drv.map[i].tid = 0;
}

static void cancel_fetches(void)
{
	while (drv.nr_fetch) {
		struct ubdm_cmd *c = drv.fetch[--drv.nr_fetch];

		c->done(c, -ECANCELED);
	}
}

/* Return: the result; INT_MAX: not yet. */
static int execute(struct ubdm_cmd *cmd)
{
	const void *b = cmd->msg.body;
	uint32_t index;

	cmd_seen++;
	if (cmd_in && !--cmd_in)
		return cmd_error;
	switch (cmd->msg.op) {
	case UBDM_CMD_FETCH:
		assert_true(drv.nr_fetch < MAX_FETCH);
		drv.fetch[drv.nr_fetch++] = cmd;
		return INT32_MAX;
	case UBDM_CMD_RESOLVE:
		return resolve(b);
	case UBDM_CMD_MAP:
		install((void *)(uintptr_t)((const struct ubdm_map *)b)->addr,
			((const struct ubdm_map *)b)->nr_ext, false);
		return 0;
	case UBDM_CMD_COMMIT:
		commit(((const struct ubdm_commit *)b)->tid);
		return 0;
	case UBDM_CMD_DUMP:
		return dump(b);
	case UBDM_CMD_BACKING_ADD:
		return add_backing(b);
	case UBDM_CMD_BACKING_GET:
		index = ((const struct ubdm_backing_ref *)b)->index;
		return index < drv.nr_fds ? dup(drv.fd[index]) : -ENOENT;
	case UBDM_CMD_STOP:
		cancel_fetches();
		return 0;
	}
	return 0;	/* START, INVALIDATE */
}

/* ---- the ring ---- */

void ubdm_ring_queue(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	(void)ring;
	cmd->local = false;
	cmd->next = NULL;
	*drv.tail = cmd;
	drv.tail = &cmd->next;
}

int ubdm_ring_init(struct ubdm_ring *ring, int channel)
{
	(void)ring;
	(void)channel;
	drv.queue = NULL;
	drv.tail = &drv.queue;
	drv.nr_fetch = 0;
	return 0;
}

void ubdm_ring_exit(struct ubdm_ring *ring)
{
	(void)ring;
	drv.nr_fetch = 0;
	drv.queue = NULL;
}

int ubdm_ring_turn(struct ubdm_ring *ring)
{
	struct ubdm_cmd *cmd = drv.queue;
	int res;

	(void)ring;
	if (!cmd)
		return 0;
	drv.queue = cmd->next;
	if (!drv.queue)
		drv.tail = &drv.queue;
	res = cmd->local ? cmd->res : execute(cmd);
	if (res != INT32_MAX)
		cmd->done(cmd, res);
	return 1;
}

/* ---- the embedder ---- */

static struct ubdm_mapper *m;
static struct ubdm_job *jobs;
static bool gone;

static void on_defer(void *ctx, struct ubdm_job *job)
{
	(void)ctx;
	job->next = jobs;
	jobs = job;
}

static void on_work(void *ctx)
{
	(void)ctx;
}

static void on_shutdown(void *ctx)
{
	(void)ctx;
}

static void on_gone(void *ctx, int error)
{
	(void)ctx;
	(void)error;
	gone = true;
}

static const struct ubdm_mapper_ops ops = {
	.defer = on_defer, .work = on_work, .shutdown = on_shutdown, .gone = on_gone,
};

static void turn(void)
{
	do {
		if (ubdm_mapper_process(m))
			gone = true;
		if (jobs) {
			struct ubdm_job *job = jobs;

			jobs = job->next;
			ubdm_job_run(job);
		}
	} while (jobs || drv.queue);
}

/* ---- the guest ---- */

static uint8_t disk[SIZE];		/* a byte for each sector */
static bool unsure[SIZE];
static char *buf;			/* SECT(64), aligned */

/* Ask the mapper; how many sectors are done, 0: look again, -errno. */
static int64_t fault(uint8_t kind, uint64_t lba, uint64_t len)
{
	struct ubdm_fault f = {
		.kind = kind, .lba = lba, .len = len, .want_lba = lba, .want_len = len,
		.tid = kind == UBDM_FAULT_FLUSH ? drv.max_tid : 0,
	};
	const struct ubdm_resolve *r = &drv.answer;
	struct ubdm_cmd *cmd;
	unsigned int tries;

	for (tries = 0; tries < 20; tries++) {
		if (gone || !drv.nr_fetch)
			return -ESTALE;
		f.cookie = ++drv.cookie;
		drv.answered = false;
		cmd = drv.fetch[--drv.nr_fetch];
		memcpy((void *)(uintptr_t)((struct ubdm_fetch *)cmd->msg.body)->buf, &f,
		       sizeof(f));
		cmd->done(cmd, 1);
		turn();
		if (!drv.answered)
			return -ESTALE;
		if (r->action == UBDM_RESOLVE_HOLD)
			continue;
		return r->action == UBDM_RESOLVE_ERROR ? r->error :
		       r->action == UBDM_RESOLVE_DONE ? (int64_t)r->done : 0;
	}
	return -EAGAIN;
}

static int store(uint64_t off, uint64_t lba, unsigned int nr, uint8_t val)
{
	(void)lba;
	memset(buf, val, nr * 512);
	return pwrite(drv.fd[0], buf, nr * 512, off * 512) == (ssize_t)nr * 512 ? 0 : -EIO;
}

static void put(unsigned int guest, unsigned int skip, unsigned int nr, uint8_t val)
{
	uint64_t lba = SECT(guest) + skip, end = lba + nr;
	unsigned int tries = 0, i;
	int64_t rc;

	while (lba < end) {
		struct slot *s = &drv.map[lba];

		if (s->type == UBDM_EXT_LINEAR && s->perm & UBDM_PERM_W) {
			assert_int_equal(store(s->off, lba, 1, val), 0);
			s->touched |= s->tid != 0;
			disk[lba++] = val;
			continue;
		}
		rc = fault(UBDM_FAULT_WRITE, lba, end - lba);
		if (rc < 0 || ++tries > 20)
			return;
		if (drv.answer.action != UBDM_RESOLVE_PLACE)
			continue;
		for (i = 0; i < drv.answer.nr_ext; i++) {
			const struct ubdm_extent *e = &drv.ext[i];

			assert_int_equal(store(e->off, e->lba, e->len, val), 0);
			memset(disk + e->lba, val, e->len);
			lba = e->lba + e->len;
		}
		install(drv.ext, drv.answer.nr_ext, true);
	}
}

static void zeroes(unsigned int guest, unsigned int nr)
{
	uint64_t lba = SECT(guest), end = lba + SECT(nr);
	int64_t rc;

	while (lba < end) {
		rc = fault(UBDM_FAULT_ZEROES, lba, end - lba);
		if (rc <= 0) {
			memset(unsure + lba, 1, end - lba);
			return;
		}
		memset(disk + lba, 0, rc);
		lba += rc;
	}
}

/* Everything reads as it was left.  False: the mapper is of no use. */
static bool reads_well(void)
{
	unsigned int tries = 0;
	uint64_t lba = 0;

	while (lba < SIZE) {
		const struct slot *s = &drv.map[lba];
		uint8_t got = 0;

		if (!s->type || (s->type == UBDM_EXT_LINEAR && !(s->perm & UBDM_PERM_R))) {
			if (fault(UBDM_FAULT_READ, lba, 1) < 0 || ++tries > 2000)
				return false;
			continue;
		}
		if (s->type == UBDM_EXT_ERROR)
			return false;
		if (s->type == UBDM_EXT_LINEAR) {
			if (pread(drv.fd[s->backing], buf, 512, s->off * 512) != 512)
				fail_msg("no sector %llu", (unsigned long long)s->off);
			assert_int_equal(memcmp(buf, buf + 1, 511), 0);
			got = buf[0];
		}
		if (got != disk[lba] && !(unsure[lba] && !got))
			fail_msg("sector %llu is %02x instead of %02x",
				 (unsigned long long)lba, got, disk[lba]);
		lba++;
	}
	return true;
}

/* ---- lives ---- */

static struct ubdm_err uerr;
static const char *image_name = "img.qcow2", *image_format = "qcow2";

static void make_image(void)
{
	struct craft c;

	craft_new(&c);
	unlink(in_scratch("img.qcow2"));
	write_file(in_scratch("img.qcow2"), c.buf, c.size);
	free(c.buf);
	memset(disk, 0, sizeof(disk));
	memset(unsure, 0, sizeof(unsure));
	memset(disk + SECT(G_DATA), 0x11, CRAFT_SECTORS);
	memset(disk + SECT(G_PACKED), 0x33, CRAFT_SECTORS);
	memset(disk + SECT(G_DATA2), 0x55, CRAFT_SECTORS);
}

static void forget_device(void)
{
	while (drv.nr_fds)
		close(drv.fd[--drv.nr_fds]);
	memset(&drv, 0, sizeof(drv));
	drv.tail = &drv.queue;
}

static void close_mapper(void)
{
	ubdm_mapper_close(m);
	m = NULL;
	jobs = NULL;
}

static bool serve(void)
{
	struct ubdm_image image = { .path = in_scratch(image_name), .format = image_format };

	gone = false;
	if (ubdm_mapper_open(&m, &image, &ops, NULL, &uerr))
		return false;
	if (!ubdm_mapper_serve(m, 0, 512, &uerr) && !gone)
		return true;
	ubdm_mapper_abort(m);
	close_mapper();
	forget_device();
	return false;
}

static bool take_over(void)
{
	struct ubdm_device dev = { .size = SIZE, .block_size = 512 };
	int rc;

	gone = false;
	snprintf(dev.ident, sizeof(dev.ident), "%s", in_scratch(image_name));
	snprintf(dev.format, sizeof(dev.format), "%s", image_format);
	uerr.msg[0] = 0;
	rc = ubdm_mapper_takeover(&m, 0, &dev, 0, &ops, NULL, &uerr);
	jobs = NULL;
	if (rc && !uerr.msg[0])
		fail_msg("takeover fails with %d and says nothing", rc);
	return !rc;
}

static bool finish(void)
{
	int rc;

	uerr.msg[0] = 0;
	rc = ubdm_mapper_finish(m, &uerr);
	close_mapper();
	return !rc;
}

static unsigned int open_files(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* ---- rounds ---- */

enum what { ALLOCS, COMMANDS, IOS };

static unsigned int io_in;
static bool qemu;

static int failing_io(const struct sp_file *f, enum sp_io_op op, const void *b, uint64_t off,
		      uint64_t len)
{
	(void)f; (void)op; (void)b; (void)off; (void)len;
	return io_in && !--io_in ? -EIO : 0;
}

static void first_life(void)
{
	put(100, 0, 3, 0xa1);
	put(G_PACKED, 1, 1, 0xa2);			/* a copy */
	put(G_NONE, 0, CRAFT_SECTORS, 0xa3);
	fault(UBDM_FAULT_FLUSH, 0, 0);
	put(G_PACKED, 0, CRAFT_SECTORS, 0xa4);
	put(700, 2, 1, 0xa5);
	zeroes(G_DATA, 1);
	put(G_ZERO_ALLOC, 0, 1, 0xa6);
	ubdm_mapper_work(m);
	turn();
}

static void second_life(void)
{
	put(701, 0, CRAFT_SECTORS, 0xb1);
	put(G_DATA, 1, 2, 0xb2);
	fault(UBDM_FAULT_FLUSH, 0, 0);
	put(900, 0, 1, 0xb3);
}

/* False: it passed untouched. */
static bool round_n(unsigned int n, enum what what)
{
	unsigned int files = open_files();
	bool hit, done = false;

	make_image();
	fail_alloc_in = what == ALLOCS ? n : 0;
	cmd_in = what == COMMANDS ? n : 0;
	io_in = what == IOS ? n : 0;
	sp_io_hook = failing_io;
	fail_alloc_on = true;
	if (serve()) {
		first_life();
		close_mapper();			/* as if killed */
		if (take_over()) {
			second_life();
			done = !gone && finish();
			if (m)
				close_mapper();
		}
	}
	fail_alloc_on = false;
	hit = !(what == ALLOCS ? fail_alloc_in : what == COMMANDS ? cmd_in : io_in);
	fail_alloc_in = cmd_in = io_in = 0;
	/* From here on all is well again. */
	if (!drv.nr_fds) {
		if (!serve())
			fail_msg("after failure %u: %s", n, uerr.msg);
	} else if (!done && !take_over()) {
		fail_msg("after failure %u: %s", n, uerr.msg);
	}
	if (m) {
		if (!reads_well())
			fail_msg("after failure %u it cannot be read", n);
		put(901, 0, 2, 0xc1);
		assert_int_equal(disk[SECT(901) + 1], 0xc1);
		if (!finish())
			fail_msg("after failure %u: %s", n, uerr.msg);
	}
	forget_device();
	sp_io_hook = NULL;
	if (open_files() != files)
		fail_msg("after failure %u: %u files open, before %u", n, open_files(), files);
	/* What is there for the next one. */
	if (qemu && n % 8 == 1 && sh("qemu-img check -f qcow2 img.qcow2"))
		fail_msg("after failure %u qemu-img check finds something", n);
	assert_true(serve());
	assert_true(reads_well());
	assert_true(finish());
	forget_device();
	return hit;
}

static void sweep(enum what what)
{
	unsigned int n = 1;

	forget_device();
	if (getenv("SWEEP_N")) {
		round_n(strtoul(getenv("SWEEP_N"), NULL, 0), what);
		return;
	}
	while (round_n(n, what))
		n++;
	print_message("# %u failures, each survived\n", n - 1);
}

static void each_allocation_of_a_mapper_may_fail(void **state)
{
	(void)state;
	sweep(ALLOCS);
}

static void each_command_may_find_no_memory(void **state)
{
	(void)state;
	cmd_error = -ENOMEM;
	sweep(COMMANDS);
}

static void each_command_may_find_another_mapper(void **state)
{
	(void)state;
	cmd_error = -ESTALE;
	sweep(COMMANDS);
}

static void each_io_of_a_mapper_may_fail(void **state)
{
	(void)state;
	sweep(IOS);
}

/* ---- a raw file of another size ---- */

static void evict_all(void)
{
	for (uint64_t i = 0; i < SIZE; i++)
		if (!drv.map[i].tid)
			memset(&drv.map[i], 0, sizeof(drv.map[i]));
}

/* The device's last sectors are found in the file, or where they would be in it. */
static void serve_on_with(uint64_t bytes)
{
	const struct slot *last = &drv.map[SIZE - 1];

	unlink(in_scratch("a.raw"));
	write_file(in_scratch("a.raw"), "", 0);
	assert_int_equal(truncate(in_scratch("a.raw"), SIZE * 512), 0);
	image_name = "a.raw";
	image_format = "raw";
	assert_true(serve());
	put(100, 0, 3, 0xa1);
	assert_int_equal(disk[SECT(100)], 0xa1);
	close_mapper();
	assert_int_equal(truncate(in_scratch("a.raw"), bytes), 0);
	evict_all();
	if (!take_over())
		fail_msg("%s", uerr.msg);
	assert_int_equal(fault(UBDM_FAULT_READ, SIZE - 1, 1), 0);
	assert_int_equal(last->type, UBDM_EXT_LINEAR);
	assert_int_equal(last->off, SIZE - 1);
	assert_int_equal(last->perm, UBDM_PERM_R | UBDM_PERM_W);
	put(101, 0, 3, 0xa2);
	assert_int_equal(disk[SECT(101)], 0xa2);
}

static void end_of_raw(void)
{
	close_mapper();
	forget_device();
	image_name = "img.qcow2";
	image_format = "qcow2";
}

static void a_raw_file_may_have_grown_meanwhile(void **state)
{
	(void)state;
	memset(disk, 0, sizeof(disk));
	serve_on_with(2 * SIZE * 512 + 512);
	assert_true(reads_well());
	evict_all();
	if (ubdm_mapper_detach(m, &uerr))
		fail_msg("%s", uerr.msg);
	end_of_raw();
}

/* Where it ends the kernel says EIO, as it would have had the mapper lived. */
static void a_raw_file_may_have_shrunk_meanwhile(void **state)
{
	(void)state;
	serve_on_with(SIZE / 2 * 512 + 100);
	assert_int_equal(fault(UBDM_FAULT_FLUSH, 0, 0), 0);
	assert_true(finish());
	forget_device();
	end_of_raw();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(each_allocation_of_a_mapper_may_fail),
		cmocka_unit_test(each_command_may_find_no_memory),
		cmocka_unit_test(each_command_may_find_another_mapper),
		cmocka_unit_test(each_io_of_a_mapper_may_fail),
		cmocka_unit_test(a_raw_file_may_have_grown_meanwhile),
		cmocka_unit_test(a_raw_file_may_have_shrunk_meanwhile),
	};
	const char *only = getenv("ONLY");
	int rc;

	scratch_make();
	qemu = have("qemu-img");
	if (posix_memalign((void **)&buf, 4096, SECT(64) * 512))
		return 2;
	drv.tail = &drv.queue;
	if (only)
		cmocka_set_test_filter(only);
	rc = cmocka_run_group_tests(tests, NULL, NULL);
	free(buf);
	return rc;
}
