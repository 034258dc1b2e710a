// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * mapper.c - life of a mapper: open, serve or take over, finish, close.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "mapper.h"

#define SETTLE_MS	30000	/* for writes that an old mapper began */
#define SETTLE_POLL_MS	5

void ubdm_err_set(struct ubdm_err *err, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
	va_end(ap);
}

_Static_assert(sizeof(struct ubdm_err) >= sizeof(struct sp_err), "it has to fit");

static void take_sp_err(struct ubdm_err *err, const struct sp_err *from,
			const char *what, int ret)
{
	if (from->msg[0])
		ubdm_err_set(err, "%s", from->msg);
	else
		ubdm_err_set(err, "%s: %s", what, strerror(-ret));
}

static struct ubdm_mapper *make(const struct ubdm_mapper_ops *ops, void *ctx,
				struct ubdm_err *err)
{
	struct ubdm_mapper *m = calloc(1, sizeof(*m));

	if (!m || ubdm_tables_init(&m->tables)) {
		free(m);
		ubdm_err_set(err, "out of memory");
		return NULL;
	}
	m->ops = ops;
	m->ctx = ctx;
	pthread_mutex_init(&m->lock, NULL);
	pthread_cond_init(&m->idle, NULL);
	ubdm_loop_init(m);
	return m;
}

static bool ask_backing(void *ctx, const char *path)
{
	struct ubdm_mapper *m = ctx;

	return m->allow_backing(m->ctx, path);
}

/* @fds and @dev: on attach. */
static int open_image(struct ubdm_mapper *m, const struct ubdm_image *image,
		      const int *fds, unsigned int nr_fds,
		      const struct ubdm_device *dev, struct ubdm_err *err)
{
	struct sp_err sp_err = { .msg = "" };
	struct sp_options opt = {
		.path = image->path,
		.format = image->format,
		.read_only = image->read_only,
		.cache_bytes = image->cache_bytes,
		.allow_backing = image->allow_backing ? ask_backing : NULL,
		.fds = fds,
		.nr_fds = nr_fds,
		.size = dev ? dev->size : 0,
		.block_size = dev ? dev->block_size : image->block_size,
		.ctx = m,
		.ops = &ubdm_sp_ops,
	};
	int ret;

	m->allow_backing = image->allow_backing;
	ret = sp_open(&m->img, &opt, &sp_err);
	if (ret) {
		m->img = NULL;
		take_sp_err(err, &sp_err, image->path, ret);
	}
	return ret;
}

int ubdm_mapper_open(struct ubdm_mapper **out, const struct ubdm_image *image,
		     const struct ubdm_mapper_ops *ops, void *ctx,
		     struct ubdm_err *err)
{
	struct ubdm_mapper *m = make(ops, ctx, err);
	int ret;

	*out = NULL;
	if (!m)
		return -ENOMEM;
	ret = open_image(m, image, NULL, 0, NULL, err);
	if (ret) {
		ubdm_mapper_close(m);
		return ret;
	}
	*out = m;
	return 0;
}

void ubdm_mapper_info(const struct ubdm_mapper *m, struct ubdm_image_info *info)
{
	const struct sp_info *sp = sp_info(m->img);

	*info = (struct ubdm_image_info){
		.size = sp->size,
		.granule_bytes = 1ULL << (sp->granule_shift + SP_SECTOR_SHIFT),
		.block_size = sp->block_size,
		.discard_gran = sp->discard_gran,
		.read_only = sp->read_only,
		.format = sp->format,
		.warning = sp->warning,
	};
}

static int connect_ring(struct ubdm_mapper *m, int channel,
			struct ubdm_err *err)
{
	int ret = ubdm_ring_init(&m->ring, channel);

	if (ret) {
		ubdm_err_set(
			err, "io_uring: %s%s", strerror(-ret),
			ret == -EPERM ?
				"; see /proc/sys/kernel/io_uring_disabled" :
			ret == -EINVAL ? "; Linux 6.12 or later is needed" :
					 "");
		return ret;
	}
	m->channel = channel;
	m->have_ring = true;
	return 0;
}

/* The fault granule: a cluster, but no less than a block. */
static unsigned int granule_shift(const struct ubdm_mapper *m,
				  uint32_t block_size)
{
	unsigned int shift = sp_info(m->img)->granule_shift;

	while (shift < UBDM_MAX_GRANULE_SHIFT &&
	       (1U << (shift + SP_SECTOR_SHIFT)) < block_size)
		shift++;
	return shift < UBDM_MAX_GRANULE_SHIFT ? shift : UBDM_MAX_GRANULE_SHIFT;
}

static int start(struct ubdm_mapper *m, uint32_t block_size,
		 struct ubdm_err *err)
{
	struct ubdm_msg msg;
	int ret;

	ubdm_loop_arm(m);
	ubdm_encode_start(&msg, granule_shift(m, block_size));
	ret = ubdm_sync_run(m, &msg);
	if (ret < 0)
		ubdm_err_set(err, "the driver could not start the device: %s",
			     strerror(-ret));
	return ret < 0 ? ret : 0;
}

/* Ends the channel; no job is under way afterwards. */
static int stop(struct ubdm_mapper *m, bool done, int error)
{
	struct ubdm_msg msg;
	int ret;

	if (!m->have_ring)
		return 0;
	m->fetching = false;
	m->shut_down = true;
	ubdm_encode_stop(&msg, done, error);
	ret = ubdm_sync_run(m, &msg);
	ubdm_sync_idle(m);
	return ret;
}

int ubdm_mapper_serve(struct ubdm_mapper *m, int channel, uint32_t block_size,
		      struct ubdm_err *err)
{
	int ret;

	ret = connect_ring(m, channel, err);
	if (ret)
		return ret;
	ret = ubdm_backing_add_all(m, err);
	if (ret)
		return ret;
	return start(m, block_size, err);
}

static bool has_placing(const struct sp_extent *ext, unsigned int nr)
{
	for (unsigned int i = 0; i < nr; i++)
		if (ext[i].flags & SP_EXT_PLACING)
			return true;
	return false;
}

/*
 * What the kernel keeps, once nothing that the old mapper began is under way:
 * I/O by translations that it took back (rule 22), and PLACEs, of which nobody
 * could say before they end whether their extents will be there.
 */
static int dump_settled(struct ubdm_mapper *m, struct sp_extent **ext,
			unsigned int *nr, uint64_t *max_tid)
{
	struct ubdm_msg msg;
	int ret;

	for (int ms = 0;; ms += SETTLE_POLL_MS) {
		ubdm_encode_invalidate(&msg, 0, 0, 0);
		ret = ubdm_sync_run(m, &msg);
		if (ret < 0)
			return ret;
		ret = ubdm_dump_uncommitted(m, ext, nr, max_tid);
		if (ret || !has_placing(*ext, *nr))
			return ret;
		free(*ext);
		*ext = NULL;
		if (ms > SETTLE_MS)
			return -ETIMEDOUT;
		poll(NULL, 0, SETTLE_POLL_MS);
	}
}

/* Rules 22 to 25: the old mapper's changes become the image's. */
static int relink(struct ubdm_mapper *m, struct ubdm_err *err)
{
	struct sp_err sp_err = { .msg = "" };
	struct sp_extent *ext;
	uint64_t max_tid;
	unsigned int nr;
	int ret;

	ret = dump_settled(m, &ext, &nr, &max_tid);
	if (ret) {
		ubdm_err_set(err,
			     "reading the device's uncommitted changes: %s",
			     strerror(-ret));
		return ret;
	}
	atomic_store(&m->max_tid, max_tid);
	ret = sp_relink(m->img, ext, nr, max_tid, &sp_err);
	if (ret)
		take_sp_err(err, &sp_err, "linking uncommitted changes", ret);
	free(ext);
	return ret;
}

static int adopt(struct ubdm_mapper *m, const struct ubdm_device *dev,
		 uint64_t cache_bytes, struct ubdm_err *err)
{
	struct ubdm_image image = {
		.path = dev->ident,
		.format = dev->format[0] ? dev->format : NULL,
		.read_only = dev->flags & UBDM_DEV_F_RO,
		.cache_bytes = cache_bytes,
	};
	int fds[SP_MAX_STORES];
	unsigned int nr;
	int ret;

	ret = ubdm_backing_get_all(m, fds, &nr);
	if (ret) {
		ubdm_err_set(err,
			     "getting the image's files from the driver: %s",
			     strerror(-ret));
		return ret;
	}
	/* When it was made nothing could lie on it; now something may. */
	ret = ubdm_backing_check_all(fds, nr, dev->index, err);
	if (!ret)
		ret = open_image(m, &image, fds, nr, dev, err);
	/* The slowpath has its own by now. */
	while (nr)
		close(fds[--nr]);
	return ret ? ret : relink(m, err);
}

int ubdm_mapper_takeover(struct ubdm_mapper **out, int channel,
			 const struct ubdm_device *dev, uint64_t cache_bytes,
			 const struct ubdm_mapper_ops *ops, void *ctx,
			 struct ubdm_err *err)
{
	struct ubdm_mapper *m = make(ops, ctx, err);
	int ret;

	*out = NULL;
	if (!m)
		return -ENOMEM;
	ret = connect_ring(m, channel, err);
	if (!ret)
		ret = adopt(m, dev, cache_bytes, err);
	if (!ret)
		ret = start(m, dev->block_size, err);
	if (ret) {
		stop(m, false, 0);
		ubdm_mapper_close(m);
		return ret;
	}
	*out = m;
	return 0;
}

int ubdm_mapper_fd(const struct ubdm_mapper *m)
{
	return m->ring.eventfd;
}

int ubdm_mapper_work(struct ubdm_mapper *m)
{
	return sp_work(m->img);
}

/*
 * @going_on: the device will be used on, so nothing that the kernel has may be given
 * back: what is uncommitted came after the commit that this began with, and says that
 * somebody is changing the image.
 */
static int finish_image(struct ubdm_mapper *m, bool going_on, struct ubdm_err *err)
{
	struct sp_err sp_err = { .msg = "" };
	struct sp_extent *ext;
	unsigned int nr;
	int ret;

	ret = ubdm_dump_uncommitted(m, &ext, &nr, NULL);
	if (ret) {
		ubdm_err_set(err,
			     "reading the device's uncommitted changes: %s",
			     strerror(-ret));
		return ret;
	}
	if (going_on && nr) {
		free(ext);
		ubdm_err_set(err, "the image is being changed; try again");
		return -EBUSY;
	}
	ret = sp_finish(m->img, ext, nr, &sp_err);
	if (ret)
		take_sp_err(err, &sp_err, "closing the image", ret);
	free(ext);
	return ret;
}

int ubdm_mapper_finish(struct ubdm_mapper *m, struct ubdm_err *err)
{
	struct ubdm_msg msg;
	int ret, res;

	ubdm_mapper_quiet(m);
	ubdm_sync_idle(m);
	ret = finish_image(m, false, err);
	ubdm_sync_idle(m);

	ubdm_encode_stop(&msg, true, ret);
	res = ubdm_sync_run(m, &msg);
	if (!ret && res < 0) {
		ubdm_err_set(err, "the driver refuses to let go: %s",
			     strerror(-res));
		return res;
	}
	if (!ret)
		ubdm_backing_unlock_all(m);
	return ret;
}

int ubdm_mapper_leave(struct ubdm_mapper *m)
{
	struct sp_req req = { .kind = SP_FLUSH };
	struct ubdm_msg msg;
	struct walk walk;

	ubdm_mapper_quiet(m);
	/* Less for the next one to link; it can do without. */
	req.tid = atomic_load(&m->max_tid);
	ubdm_loop_ask(m, &req, &walk);
	/* The image wants to be finished; whoever comes after us had nothing to serve. */
	if (atomic_load(&m->shut_down))
		return -ESHUTDOWN;
	ubdm_encode_stop(&msg, false, 0);
	return ubdm_sync_run(m, &msg);
}

/* Has all of the image mapped, with @perm at least. */
static int map_all(struct ubdm_mapper *m, unsigned int perm, uint64_t *hole)
{
	struct walk walk = {
		.whole = true,
		.perm = perm,
		.home = !sp_info(m->img)->read_only,
	};
	uint64_t size = sp_info(m->img)->size;

	while (walk.whole && walk.next < size) {
		uint64_t at = walk.next, len = 4096 >> SP_SECTOR_SHIFT;
		struct sp_req req = { .kind = SP_READ, .lba = at };
		int ret;

		req.len = len < size - at ? len : size - at;
		req.want_lba = req.lba;
		req.want_len = req.len;
		ret = ubdm_loop_ask(m, &req, &walk);
		if (ret)
			return ret;
		if (walk.whole && walk.next == at)
			return -EAGAIN; /* it is being changed */
	}
	*hole = walk.next;
	return walk.whole ? 0 : -ENODATA;
}

/* Until somebody changes something again, nothing is left to be linked. */
static int commit_all(struct ubdm_mapper *m)
{
	struct sp_req req = { .kind = SP_FLUSH };
	struct walk walk;

	req.tid = atomic_load(&m->max_tid);
	return ubdm_loop_ask(m, &req, &walk);
}

static int map_for_good(struct ubdm_mapper *m, struct ubdm_err *err)
{
	struct sp_req write = { .kind = SP_WRITE };
	struct walk walk = { .whole = true };
	uint64_t hole = 0;
	int ret;

	ret = commit_all(m);
	if (!ret)
		ret = map_all(m, SP_PERM_R, &hole);
	if (!ret && !sp_info(m->img)->read_only) {
		/* All is allocated, so this asks for permission only. */
		write.len = sp_info(m->img)->block_size >> SP_SECTOR_SHIFT;
		write.want_len = write.len;
		ret = ubdm_loop_ask(m, &write, &walk);
		if (!ret)
			ret = map_all(m, SP_PERM_R | SP_PERM_W, &hole);
	}
	if (ret == -ENODATA)
		ubdm_err_set(
			err,
			"needs its mapper: from byte %llu on the image has something to allocate or to decompress",
			(unsigned long long)hole << SP_SECTOR_SHIFT);
	else if (ret)
		ubdm_err_set(err, "the image is being changed (%s); try again",
			     strerror(-ret));
	return ret == -EAGAIN ? -EBUSY : ret;
}

/* Jobs end; FLUSHes and discards that come now are put off. */
static int settle_down(struct ubdm_mapper *m)
{
	atomic_store(&m->leaving, true);
	ubdm_mapper_quiet(m);
	return ubdm_sync_idle(m);
}

int ubdm_mapper_detach(struct ubdm_mapper *m, struct ubdm_err *err)
{
	struct ubdm_msg msg;
	int ret;

	ret = map_for_good(m, err);
	if (ret)
		return ret;
	ret = settle_down(m);
	if (!ret)
		ret = finish_image(m, true, err);
	if (ret)
		return ret == -ENODATA ? -EIO : ret;
	ubdm_sync_idle(m);
	ubdm_encode_detach(&msg);
	ret = ubdm_sync_run(m, &msg);
	if (ret >= 0)
		return 0;
	ubdm_err_set(err, "the image is being changed (%s); try again",
		     strerror(-ret));
	return ret == -ENODATA ? -EBUSY : ret;
}

void ubdm_mapper_abort(struct ubdm_mapper *m)
{
	stop(m, true, -ECANCELED);
}

void ubdm_mapper_close(struct ubdm_mapper *m)
{
	if (!m)
		return;
	if (m->have_ring)
		ubdm_ring_exit(&m->ring);
	if (m->img)
		sp_close(m->img);
	ubdm_tables_exit(&m->tables);
	pthread_cond_destroy(&m->idle);
	pthread_mutex_destroy(&m->lock);
	free(m);
}
