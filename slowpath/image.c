// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * image.c - an image as its user sees it: open, requests, acknowledgements,
 * background work, the end.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "internal.h"
#include "qcow2/engine.h"
#include "qcow2/qcow2.h"

#define MIN_SLOT_SHIFT	16	/* log2 of bytes */
#define RAW_GRANULE	7	/* log2 of sectors: 64 KiB */

static void init_lock(struct sp_image *img)
{
	pthread_condattr_t attr;

	pthread_mutex_init(&img->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&img->cond, &attr);
	pthread_condattr_destroy(&attr);
}

__attribute__((format(printf, 2, 3)))
static void add_warning(struct sp_info *info, const char *fmt, ...)
{
	size_t at = strlen(info->warning);
	va_list ap;

	if (at)
		at += snprintf(info->warning + at, sizeof(info->warning) - at, "; ");
	if (at >= sizeof(info->warning))
		return;
	va_start(ap, fmt);
	vsnprintf(info->warning + at, sizeof(info->warning) - at, fmt, ap);
	va_end(ap);
}

static void warn_of(struct sp_image *img)
{
	struct layer *l = &img->layers[0];
	struct sp_info *info = &img->info;

	if (!l->q && l->file_bytes & 511)
		add_warning(info, "%s: its size is not a multiple of 512; the last %u bytes are not shown",
			    l->file.path, (unsigned int)(l->file_bytes & 511));
	if (l->q && l->q->bitmaps && !info->read_only)
		add_warning(info, "%s: its persistent bitmaps will be dropped at the first write",
			    l->file.path);
	/* On attach it was told when the device was made. */
	if (!info->read_only && !img->opt.fds && sp_file_in_use(&l->file))
		add_warning(info, "%s: in use elsewhere too, mounted or as a part of another device; if both write, what is on it is lost",
			    l->file.path);
}

static void fill_info(struct sp_image *img)
{
	struct layer *l = &img->layers[0];
	struct sp_info *info = &img->info;

	info->size = l->size;
	info->granule_shift = l->q ? l->q->csect_bits : RAW_GRANULE;
	info->read_only = img->opt.read_only;
	info->format = l->q ? "qcow2" : "raw";
	info->depth = img->nr_layers - 1;
	/* A qcow2 image has its clusters to give back, whatever it lies on. */
	if (!info->read_only && (l->q || sp_file_discards(&l->file)))
		info->discard_gran = l->q ? l->q->cs : 4096;
	warn_of(img);
}

static void fill_stores(struct sp_image *img)
{
	for (unsigned int i = 0; i < img->nr_layers; i++) {
		const struct sp_file *f = &img->layers[i].file;

		img->stores[i] = (struct sp_store){
			.fd = f->fd_l,
			.flags = (f->writable ? SP_STORE_WRITE : 0) |
				 (f->blockdev ? SP_STORE_BLOCKDEV : 0) |
				 (f->buffered && !f->blockdev ? SP_STORE_BUFFERED : 0),
			.path = f->path,
		};
	}
	img->nr_stores = img->nr_layers;
}

static int open_cache(struct sp_image *img, struct sp_err *err)
{
	unsigned int shift = MIN_SLOT_SHIFT, i;
	bool wanted = false;
	int fd = -1;

	for (i = 0; i < img->nr_layers; i++) {
		const struct layer *l = &img->layers[i];

		if (l->q || (i && l->file_bytes % img->info.block_size))
			wanted = true;
		if (l->q && l->q->cbits > shift)
			shift = l->q->cbits;
	}
	if (!wanted)
		return 0;
	if (img->opt.fds && img->opt.nr_fds > img->nr_layers)
		fd = img->opt.fds[img->nr_layers];
	return cache_open(img, img->opt.cache_bytes, shift, fd, err);
}

static int open_engine(struct sp_image *img, struct sp_err *err)
{
	if (img->opt.read_only)
		return 0;
	if (!img->layers[0].q) {
		img->eng = &raw_engine;
		img->prepared = true;
		return 0;
	}
	img->eng = &q2_engine;
	return q2w_open(img, err);
}

int sp_open(struct sp_image **out, const struct sp_options *opt, struct sp_err *err)
{
	struct sp_image *img;
	int rc;

	if (err)
		err->msg[0] = 0;
	*out = NULL;
	if (!opt->path || !opt->ops)
		return sp_fail(err, -EINVAL, "no image is named");
	img = calloc(1, sizeof(*img));
	if (!img)
		return sp_fail(err, -ENOMEM, "out of memory");
	img->opt = *opt;
	img->next_tid = 1;
	img->work_at = UINT64_MAX;
	list_init(&img->pending);
	init_lock(img);
	rc = chain_open(img, err);
	if (!rc) {
		fill_info(img);
		fill_stores(img);
		rc = open_cache(img, err);
	}
	if (!rc)
		rc = open_engine(img, err);
	/* Neither the caller's path nor its descriptors are ours to keep. */
	img->opt.path = img->nr_layers ? img->layers[0].file.path : NULL;
	img->opt.fds = NULL;
	img->opt.format = NULL;
	if (rc) {
		sp_fail(err, rc, "%s: %s", opt->path, strerror(-rc));
		sp_close(img);
		return rc;
	}
	*out = img;
	return 0;
}

void sp_close(struct sp_image *img)
{
	if (!img)
		return;
	if (img->eng)
		img->eng->exit(img);
	while (!list_empty(&img->pending)) {
		struct pend *p = list_entry(img->pending.next, struct pend, link);

		list_del(&p->link);
		free(p);
	}
	cache_close(img);
	chain_close(img);
	pthread_cond_destroy(&img->cond);
	pthread_mutex_destroy(&img->lock);
	free(img);
}

const struct sp_info *sp_info(const struct sp_image *img)
{
	return &img->info;
}

const struct sp_store *sp_store(const struct sp_image *img, unsigned int i)
{
	return i < img->nr_stores ? &img->stores[i] : NULL;
}

void sp_stats(struct sp_image *img, struct sp_stats *stats)
{
	pthread_mutex_lock(&img->lock);
	*stats = img->stats;
	pthread_mutex_unlock(&img->lock);
}

/* --- requests ------------------------------------------------------------ */

static int check(const struct sp_image *img, struct sp_req *r)
{
	uint64_t size = img->info.size, mask = img->block - 1;

	if (r->kind == SP_FLUSH)
		return img->failed ? -EIO : 0;
	if (!r->len || r->lba >= size || r->len > size - r->lba ||
	    (r->lba | r->len) & mask)
		return -EINVAL;
	if (r->want_lba > r->lba || r->want_lba >= size || r->want_len > size - r->want_lba ||
	    r->want_lba + r->want_len < r->lba + r->len ||
	    (r->want_lba | r->want_len) & mask) {
		r->want_lba = r->lba;
		r->want_len = r->len;
	}
	if (r->kind == SP_READ)
		return 0;
	if (!img->eng)
		return -EROFS;
	return img->failed || img->gone ? -EIO : 0;
}

static int try(struct sp_image *img, const struct sp_req *r, struct need *need)
{
	switch (r->kind) {
	case SP_READ:
		return try_read(img, r, need);
	case SP_WRITE:
		return img->eng->write(img, r, need);
	case SP_DISCARD:
	case SP_ZEROES:
		return img->eng->zero(img, r, need);
	case SP_FLUSH:
		if (!img->eng)
			return flush_request(img, r);
		need->kind = NEED_COMMIT;
		return -EAGAIN;
	}
	return -EINVAL;
}

/* What a try lacked.  0: try again, 1: replied, -errno. */
static int fulfil(struct sp_image *img, const struct sp_req *r, struct need *need)
{
	int rc;

	switch (need->kind) {
	case NEED_TABLE:
		return chain_load(img, need);
	case NEED_FILL:
		need->fills++;
		rc = cache_fill(img, need);
		if (!rc || need->lba == r->lba)
			return rc;
		need->stop = need->lba;		/* do without */
		return 0;
	case NEED_WAIT:
		return cond_wait_ms(img, ACK_WAIT_MS);
	case NEED_COMMIT:
		if (r->kind == SP_FLUSH) {
			rc = flush_request(img, r);
			return rc ? rc : 1;
		}
		rc = commit_upto(img, img->next_tid - 1);
		return rc == -ETIME ? 0 : rc;
	default:
		return img->eng->fulfil(img, r, need);
	}
}

static bool is_allowed(enum sp_may may, const struct need *need)
{
	return may == SP_MAY_WAIT || (may == SP_MAY_COPY && need->kind == NEED_COPY);
}

int sp_handle(struct sp_image *img, const struct sp_req *req, enum sp_may may)
{
	struct need need = { .kind = NEED_NONE, .nonblock = may != SP_MAY_WAIT };
	struct sp_req r = *req;
	int rc;

	if (may == SP_MAY_WAIT)
		pthread_mutex_lock(&img->lock);
	else if (pthread_mutex_trylock(&img->lock))
		return -EAGAIN;
	rc = check(img, &r);
	while (!rc) {
		rc = try(img, &r, &need);
		if (rc != -EAGAIN)
			break;
		if (!is_allowed(may, &need))
			goto out;
		rc = fulfil(img, &r, &need);
		if (!rc && r.kind != SP_READ && (img->failed || img->gone))
			rc = -EIO;
	}
	if (rc < 0)
		reply_error(img, req, rc);
	rc = 0;
out:
	pthread_mutex_unlock(&img->lock);
	return rc;
}

/* Is background work due before the next time that was planned? */
static bool is_due(const struct sp_image *img)
{
	uint64_t at = UINT64_MAX;

	if (!img->eng || img->failed || img->gone)
		return false;
	if (img->oldest_ms)
		at = img->oldest_ms + COMMIT_MS;
	return at < img->work_at || img->eng->work_due(img);
}

bool sp_acked(struct sp_image *img, uint64_t token, int res)
{
	struct pend *p;
	bool due;

	pthread_mutex_lock(&img->lock);
	/* The device has another mapper, or is gone: what it holds we can't know. */
	if (res == -ESTALE || res == -ESHUTDOWN || res == -ENOTCONN) {
		img->gone = true;
	} else if (!cache_acked(img, token, res)) {
		p = pend_find(img, token);
		if (p) {
			list_del(&p->link);
			img->acks++;
			if (img->eng)
				img->eng->acked(img, p, res);
			free(p);
		}
	}
	due = is_due(img);
	pthread_cond_broadcast(&img->cond);
	pthread_mutex_unlock(&img->lock);
	return due;
}

int sp_work(struct sp_image *img)
{
	int ms = -1, more;

	pthread_mutex_lock(&img->lock);
	img->work_at = UINT64_MAX;	/* what comes up meanwhile is told */
	if (img->eng && !img->failed && !img->gone) {
		ms = commit_timer(img);
		more = img->eng->work(img);
		if (more >= 0 && (ms < 0 || more < ms))
			ms = more;
	}
	if (ms >= 0)
		img->work_at = now_ms() + ms;
	pthread_mutex_unlock(&img->lock);
	return ms;
}

static void rise_above(struct sp_image *img, uint64_t tid)
{
	if (tid >= img->next_tid && tid < UINT64_MAX)
		img->next_tid = tid + 1;
}

int sp_relink(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
	      uint64_t max_tid, struct sp_err *err)
{
	int rc = 0;

	if (err)
		err->msg[0] = 0;
	pthread_mutex_lock(&img->lock);
	rise_above(img, max_tid);
	for (unsigned int i = 0; i < nr; i++)
		rise_above(img, ext[i].tid);
	if (img->eng) {
		rc = img->eng->relink(img, ext, nr, err);
		if (nr && !img->oldest_ms)
			img->oldest_ms = now_ms();
	}
	pthread_mutex_unlock(&img->lock);
	if (rc)
		sp_fail(err, rc, "%s: %s", img->layers[0].file.path, strerror(-rc));
	return rc;
}

int sp_finish(struct sp_image *img, const struct sp_extent *ext, unsigned int nr,
	      struct sp_err *err)
{
	int rc = 0;

	if (err)
		err->msg[0] = 0;
	pthread_mutex_lock(&img->lock);
	if (img->gone)
		rc = -ESTALE;
	else if (img->failed)
		rc = sp_fail(err, -EIO, "%s: a write or sync of the image has failed; check it: qemu-img check -r all",
			     img->layers[0].file.path);
	else if (img->eng)
		rc = img->eng->finish(img, ext, nr, err);
	pthread_mutex_unlock(&img->lock);
	if (rc)
		sp_fail(err, rc, "%s: %s", img->layers[0].file.path, strerror(-rc));
	return rc;
}
