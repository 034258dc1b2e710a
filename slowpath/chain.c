// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * chain.c - the image and its backing files, seen as one.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "internal.h"
#include "lock.h"
#include "qcow2/qcow2.h"

#define FENCE_MS	1000		/* the file is ours by its locks already */
#define FENCE_ATTACH_MS	30000		/* the mapper before us has to end */
#define SMALL_CLUSTER	4096		/* page cache on both sides below this */
#define MAX_BLOCK	4096

static int open_file(struct sp_image *img, unsigned int i, const char *path,
		     struct sp_err *err)
{
	struct layer *l = &img->layers[i];
	bool writer = !i && !img->opt.read_only;
	int fd = -1, rc;

	if (img->opt.fds) {
		if (i >= img->opt.nr_fds)
			return sp_fail(err, -EINVAL, "%s: the driver kept no descriptor of it; delete and add the device",
				       path);
		fd = img->opt.fds[i];
	}
	rc = sp_file_open(&l->file, path, fd, writer, err);
	if (rc)
		return rc;
	img->nr_layers = i + 1;		/* closed with the chain from here on */
	for (unsigned int n = 0; n < i; n++)
		if (img->layers[n].file.dev == l->file.dev &&
		    img->layers[n].file.ino == l->file.ino)
			return sp_fail(err, -ELOOP, "%s: is a backing file of itself; set another one: qemu-img rebase -u",
				       path);
	rc = sp_lock_image(&l->file, writer, err);
	if (!rc && writer)
		rc = sp_lock_fence(&l->file, img->opt.fds ? FENCE_ATTACH_MS : FENCE_MS, err);
	return rc;
}

static int open_format(struct sp_image *img, unsigned int i, const char *stated,
		       struct sp_err *err)
{
	struct layer *l = &img->layers[i];
	bool writer = !i && !img->opt.read_only;
	int rc;

	rc = i ? sp_probe_backing(&l->file, stated && *stated ? stated : NULL, &l->format, err) :
		 sp_probe_image(&l->file, stated, &l->format, err);
	if (!rc && sp_file_size(&l->file, &l->file_bytes))
		rc = sp_fail(err, -EIO, "%s: cannot tell its size", l->file.path);
	if (rc)
		return rc;
	if (l->format == SP_FMT_RAW) {
		/*
		 * Who serves a device for longer leaves both alone, too: the kernel's
		 * extents go to the device's end, and where the file ends before, a
		 * read fails there and a write makes it longer.
		 */
		if (!i && img->opt.size)
			l->file_bytes = img->opt.size << SP_SECTOR_SHIFT;
		l->size = (l->file_bytes + (i ? 511 : 0)) >> SP_SECTOR_SHIFT;
		return 0;
	}
	rc = q2_open(&l->q, &l->file, i, writer, err);
	if (rc)
		return rc;
	l->size = l->q->vsize >> SP_SECTOR_SHIFT;
	if (l->q->cs < SMALL_CLUSTER && !l->file.blockdev) {
		rc = sp_file_set_buffered(&l->file);
		if (rc)
			return sp_fail(err, rc, "%s: %s", l->file.path, strerror(-rc));
	}
	return 0;
}

static int open_backing(struct sp_image *img, unsigned int i, struct sp_err *err)
{
	const struct layer *above = &img->layers[i - 1];
	char *path;
	int rc;

	if (i > MAX_DEPTH)
		return sp_fail(err, -ELOOP, "%s: more than %d backing files; shorten the chain: qemu-img commit or rebase",
			       img->opt.path, MAX_DEPTH);
	rc = sp_backing_path(above->file.path, above->q->backing_name,
			     above->q->backing_len, &path, err);
	if (rc)
		return rc;
	if (img->opt.allow_backing && !img->opt.allow_backing(img->opt.ctx, path))
		rc = sp_fail(err, -EACCES, "%s: its backing file %s is not allowed here",
			     above->file.path, path);
	if (!rc)
		rc = open_file(img, i, path, err);
	if (!rc)
		rc = open_format(img, i, above->q->backing_fmt, err);
	free(path);
	return rc;
}

static unsigned int largest_block(const struct sp_image *img)
{
	unsigned int block = 512;

	for (unsigned int i = 0; i < img->nr_layers; i++)
		if (img->layers[i].file.align > block)
			block = img->layers[i].file.align;
	return block;
}

/*
 * The device's sectors may be larger than the files need.  One that has them and
 * should not is served all the same: it is there, and most of it works.
 */
static int take_wanted_block(const struct sp_image *img, unsigned int *block,
			     struct sp_err *err)
{
	const struct layer *l = &img->layers[0];
	unsigned int want = img->opt.block_size;
	bool odd = (l->size << SP_SECTOR_SHIFT) % (want ? want : 1);
	bool small = l->q && l->q->cs < want;

	if (want <= *block || (img->opt.fds && (odd || small)))
		return 0;
	if (want & (want - 1) || want > MAX_BLOCK)
		return sp_fail(err, -EINVAL, "%s: there are no sectors of %u bytes",
			       img->opt.path, want);
	if (odd)
		return sp_fail(err, -ENOTSUP, "%s: its size is not a multiple of %u-byte sectors; resize it, or use a smaller -b",
			       img->opt.path, want);
	if (small)
		return sp_fail(err, -ENOTSUP, "%s: its clusters of %u bytes are smaller than sectors of %u bytes; use a smaller -b, or convert it: qemu-img convert -o cluster_size=64k",
			       img->opt.path, (unsigned int)l->q->cs, want);
	*block = want;
	return 0;
}

/* The device's block must suit every file, and its size be made of blocks. */
static int choose_block(struct sp_image *img, struct sp_err *err)
{
	uint64_t bytes = img->layers[0].size << SP_SECTOR_SHIFT;
	unsigned int block = largest_block(img);
	const struct q2 *q = img->layers[0].q;
	int rc;

	for (unsigned int i = 0; bytes % block && i < img->nr_layers; i++) {
		struct sp_file *f = &img->layers[i].file;

		if (f->align <= 512 || f->blockdev)
			continue;
		if (sp_file_set_buffered(f))
			return sp_fail(err, -EIO, "%s: cannot use the page cache", f->path);
		block = largest_block(img);
	}
	if (bytes % block)
		return sp_fail(err, -ENOTSUP, "%s: its size is not a multiple of its disk's blocks of %u bytes; resize it with qemu-img",
			       img->opt.path, block);
	if (q && q->cs < block)
		return sp_fail(err, -ENOTSUP, "%s: its clusters are smaller than the disk's blocks of %u bytes; convert it: qemu-img convert -o cluster_size=64k",
			       img->opt.path, block);
	rc = take_wanted_block(img, &block, err);
	if (rc)
		return rc;
	img->block = block >> SP_SECTOR_SHIFT;
	img->info.block_size = block;
	return 0;
}

/**
 * chain_open - open the image and all of its backing files, and lock them
 * @img: options are set
 * @err: message
 *
 * Return: as sp_open().  chain_close() in any case.
 */
int chain_open(struct sp_image *img, struct sp_err *err)
{
	const struct q2 *q;
	int rc;

	rc = open_file(img, 0, img->opt.path, err);
	if (!rc)
		rc = open_format(img, 0, img->opt.format, err);
	while (!rc) {
		q = img->layers[img->nr_layers - 1].q;
		if (!q || !q->backing_name)
			return choose_block(img, err);
		rc = open_backing(img, img->nr_layers, err);
	}
	return rc;
}

/**
 * chain_close - close what was opened
 * @img: the image
 */
void chain_close(struct sp_image *img)
{
	for (unsigned int i = img->nr_layers; i--;) {
		q2_close(img->layers[i].q);
		sp_file_close(&img->layers[i].file);
	}
	img->nr_layers = 0;
}

/* As resolve(), in sectors. */
static int resolve_exact(struct sp_image *img, uint64_t lba, uint64_t max,
			 struct mapping *m, struct need *need)
{
	bool dirty = false, busy = false;
	unsigned int i;
	int rc;

	for (i = 0; i < img->nr_layers; i++) {
		const struct layer *l = &img->layers[i];

		if (lba >= l->size)
			break;
		if (max > l->size - lba)
			max = l->size - lba;
		rc = l->q ? q2_map(l->q, l->file_bytes, lba, max, m, need) :
			    raw_map(l, lba, max, m);
		if (rc)
			return rc;
		m->layer = i;
		if (!i) {
			dirty = m->dirty;
			busy = m->busy;
		}
		m->dirty = dirty;
		m->busy = busy;
		if (m->kind != MAP_UNALLOC)
			return 0;
		max = m->len;
	}
	*m = (struct mapping){ .kind = MAP_ZERO, .len = max, .dirty = dirty,
				.busy = busy };
	return 0;
}

/**
 * resolve - where the content of a run of sectors is
 * @img: the image
 * @lba: a multiple of its block, inside it
 * @max: sectors, likewise
 * @m: the answer, in whole blocks
 * @need: with -EAGAIN: which table is not in memory
 *
 * Context: the lock.
 * Return: 0 or -EAGAIN.
 */
int resolve(struct sp_image *img, uint64_t lba, uint64_t max, struct mapping *m,
	    struct need *need)
{
	int rc = resolve_exact(img, lba, max, m, need);

	if (rc || img->block == 1)
		return rc;
	if (m->len < img->block || m->kind == MAP_MIXED ||
	    (m->kind == MAP_DATA && m->off & (img->block - 1))) {
		m->kind = MAP_MIXED;
		m->len = img->block;
		m->skip = 0;	/* it is made by itself, whatever cluster it began in */
	}
	m->len -= m->len & (img->block - 1);
	return 0;
}

/**
 * chain_load - get what resolve() lacked
 * @img: the image
 * @need: from resolve()
 *
 * Context: the lock, dropped meanwhile.
 * Return: 0 or -errno.
 */
int chain_load(struct sp_image *img, const struct need *need)
{
	return q2_slice_load(img, img->layers[need->layer].q, need->arg);
}

static int read_compressed(struct sp_image *img, const struct mapping *m, uint8_t *buf)
{
	struct q2 *q = img->layers[m->layer].q;
	uint8_t *tmp;
	int rc;

	if (m->len << SP_SECTOR_SHIFT == q->cs)
		return q2_decompress(q, m->desc, buf);
	tmp = sp_buf_alloc(q->cs);
	if (!tmp)
		return -ENOMEM;
	rc = q2_decompress(q, m->desc, tmp);
	if (!rc)
		memcpy(buf, tmp + (m->skip << SP_SECTOR_SHIFT), m->len << SP_SECTOR_SHIFT);
	sp_buf_free(tmp);
	return rc;
}

static int read_mapped(struct sp_image *img, const struct mapping *m, uint8_t *buf)
{
	size_t bytes = m->len << SP_SECTOR_SHIFT, got;

	switch (m->kind) {
	case MAP_DATA:
		return sp_file_pread(&img->layers[m->layer].file, buf, bytes,
				     m->off << SP_SECTOR_SHIFT, NULL);
	case MAP_MIXED:
		return sp_file_pread(&img->layers[m->layer].file, buf, bytes,
				     m->off << SP_SECTOR_SHIFT, &got);
	case MAP_ZERO:
		memset(buf, 0, bytes);
		return 0;
	case MAP_COMP:
		return read_compressed(img, m, buf);
	default:
		return -EIO;
	}
}

/**
 * chain_read - read the content of a run of sectors
 * @img: the image
 * @lba: first sector
 * @len: sectors
 * @buf: where to
 *
 * Context: the lock, dropped around each piece.  The caller keeps the clusters
 * of layer 0 from changing, or looks again afterwards.
 * Return: 0, -EIO, -ENOMEM.
 */
int chain_read(struct sp_image *img, uint64_t lba, uint64_t len, void *buf)
{
	uint8_t *at = buf;
	struct mapping m;
	struct need need;
	int rc;

	for (; len; lba += m.len, len -= m.len, at += m.len << SP_SECTOR_SHIFT) {
		while ((rc = resolve_exact(img, lba, len, &m, &need)) == -EAGAIN) {
			rc = chain_load(img, &need);
			if (rc)
				return rc;
		}
		if (m.kind == MAP_COMP)
			img->stats.decompressions++;
		pthread_mutex_unlock(&img->lock);
		rc = read_mapped(img, &m, at);
		pthread_mutex_lock(&img->lock);
		if (rc)
			return rc;
	}
	return 0;
}
