// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * header.c - a qcow2 header, checked before any number in it is used.
 *
 * What a header asks for and we cannot do is refused by name.  Everything else
 * that can be wrong with it is caught here or in l1.c, so that the rest of the
 * code may trust struct q2: shifts are in range, tables lie in the file and
 * have sane sizes.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2.h"

#define EXT_END			0x00000000u
#define EXT_BACKING_FMT		0xe2792acau
#define EXT_FEATURES		0x6803f857u
#define EXT_BITMAPS		0x23852875u
#define BACKING_NAME_MAX	1023
#define BACKING_FMT_MAX		63
#define FEATURE_ENTRY		48

#define KNOWN_INCOMPAT	(Q2_INCOMPAT_DIRTY | Q2_INCOMPAT_CORRUPT | \
			 Q2_INCOMPAT_DATA_FILE | Q2_INCOMPAT_COMPRESSION | \
			 Q2_INCOMPAT_EXT_L2)

/* The name that the image itself has for an incompatible feature. */
static void feature_name(const uint8_t *table, uint32_t len, unsigned int bit,
			 char *name)
{
	uint32_t i;

	for (i = 0; i + FEATURE_ENTRY <= len; i += FEATURE_ENTRY) {
		if (table[i] != 0 || table[i + 1] != bit)
			continue;
		memcpy(name, table + i + 2, 46);
		name[46] = 0;
		for (char *p = name; *p; p++)
			if (*p < ' ' || *p > '~')
				*p = '?';
		return;
	}
}

static int check_features(const struct q2 *q, const uint8_t *names, uint32_t names_len,
			  bool writable, struct sp_err *err)
{
	const char *path = q->file->path;
	char name[47] = "no name";

	if (q->incompat & Q2_INCOMPAT_DATA_FILE)
		return sp_fail(err, -ENOTSUP, "%s: its data is in an external data file, which is not supported; convert it: qemu-img convert -O qcow2",
			       path);
	if (q->incompat & Q2_INCOMPAT_EXT_L2)
		return sp_fail(err, -ENOTSUP, "%s: extended L2 entries (subclusters) are not supported; convert it: qemu-img convert -O qcow2 -o extended_l2=off",
			       path);
	for (unsigned int bit = 0; bit < 64; bit++) {
		if (!(q->incompat & ~KNOWN_INCOMPAT & (1ull << bit)))
			continue;
		feature_name(names, names_len, bit, name);
		return sp_fail(err, -ENOTSUP, "%s: unknown incompatible feature, bit %u (%s); use the program that made it",
			       path, bit, name);
	}
	if (!writable)
		return 0;
	if (q->incompat & Q2_INCOMPAT_CORRUPT)
		return sp_fail(err, -EINVAL, "%s: marked corrupt; repair it with qemu-img check -r all, or open it read-only",
			       path);
	if (q->nr_snapshots)
		return sp_fail(err, -ENOTSUP, "%s: internal snapshots are not supported for writing; open it read-only, or delete them: qemu-img snapshot -d",
			       path);
	return 0;
}

static int parse_fixed(struct q2 *q, const uint8_t *h, struct sp_err *err)
{
	const char *path = q->file->path;

	q->version = q2_get32(h + 4);
	if (q2_get32(h) != Q2_MAGIC)
		return sp_fail(err, -EINVAL, "%s: not a qcow2 image, it lacks the magic", path);
	if (q->version != 2 && q->version != 3)
		return sp_fail(err, -ENOTSUP, "%s: qcow version %u is not supported, only 2 and 3; convert it with qemu-img",
			       path, q->version);
	q->cbits = q2_get32(h + 20);
	if (q->cbits < 9 || q->cbits > 21)
		return sp_fail(err, -EINVAL, "%s: damaged header: clusters of 2^%u bytes", path,
			       q->cbits);
	q->cs = 1ull << q->cbits;
	q->csect_bits = q->cbits - SP_SECTOR_SHIFT;
	q->l2_bits = q->cbits - 3;
	q->vsize = q2_get64(h + 24) & ~511ull;
	if (q->vsize > (uint64_t)INT64_MAX - (1ull << 21))
		return sp_fail(err, -EINVAL, "%s: damaged header: a virtual size of %llu bytes",
			       path, (unsigned long long)q->vsize);
	q->nr_gc = (q->vsize + q->cs - 1) >> q->cbits;
	if (q2_get32(h + 32))
		return sp_fail(err, -ENOTSUP, "%s: encrypted images are not supported; decrypt it with qemu-img convert",
			       path);
	q->l1_size = q2_get32(h + 36);
	q->l1_off = q2_get64(h + 40);
	q->rt_off = q2_get64(h + Q2_H_RT_OFF);
	q->rt_clusters = q2_get32(h + Q2_H_RT_CLUSTERS);
	q->nr_snapshots = q2_get32(h + 60);
	q->snapshots_off = q2_get64(h + 64);
	q->rorder = 4;
	q->header_len = Q2_HEAD_V2;
	q->codec = &sp_codec_zlib;
	return 0;
}

static int parse_v3(struct q2 *q, const uint8_t *h, struct sp_err *err)
{
	const char *path = q->file->path;
	unsigned int type = 0;

	if (q->version < 3)
		return 0;
	q->incompat = q2_get64(h + Q2_H_INCOMPAT);
	q->compat = q2_get64(h + 80);
	q->autoclear = q2_get64(h + Q2_H_AUTOCLEAR);
	q->rorder = q2_get32(h + 96);
	q->header_len = q2_get32(h + 100);
	if (q->rorder > 6)
		return sp_fail(err, -EINVAL, "%s: damaged header: refcounts of 2^%u bits", path,
			       q->rorder);
	if (q->header_len < Q2_HEAD_V3 || q->header_len > q->cs)
		return sp_fail(err, -EINVAL, "%s: damaged header: its length is %u", path,
			       q->header_len);
	if (q->header_len > Q2_HEAD_V3)
		type = h[Q2_HEAD_V3];
	if (!!type != !!(q->incompat & Q2_INCOMPAT_COMPRESSION))
		return sp_fail(err, -EINVAL, "%s: damaged header: its compression type contradicts its feature bits",
			       path);
	if (type > 1)
		return sp_fail(err, -ENOTSUP, "%s: compression type %u is not supported, only zlib and zstd; convert it with qemu-img",
			       path, type);
	if (type == 1)
		q->codec = &sp_codec_zstd;
	return 0;
}

static int parse_extensions(struct q2 *q, const uint8_t *h, uint64_t end, bool writable,
			    struct sp_err *err)
{
	const uint8_t *names = NULL;
	uint32_t names_len = 0, type, len;
	uint64_t at = q->header_len;

	while (at + 8 <= end) {
		type = q2_get32(h + at);
		len = q2_get32(h + at + 4);
		at += 8;
		if (type == EXT_END)
			break;
		if (len > end - at)
			return sp_fail(err, -EINVAL, "%s: damaged header: an extension reaches past its end",
				       q->file->path);
		if (type == EXT_BACKING_FMT) {
			if (len > BACKING_FMT_MAX || q->backing_fmt)
				return sp_fail(err, -EINVAL, "%s: damaged header: its backing format",
					       q->file->path);
			q->backing_fmt = strndup((const char *)h + at, len);
			if (!q->backing_fmt)
				return sp_fail(err, -ENOMEM, "out of memory");
		} else if (type == EXT_FEATURES) {
			names = h + at;
			names_len = len;
		} else if (type == EXT_BITMAPS) {
			q->bitmaps = q->autoclear & Q2_AUTOCLEAR_BITMAPS;
		}
		at += (len + 7ull) & ~7ull;
	}
	return check_features(q, names, names_len, writable, err);
}

/* The first cluster, extensions and backing name included. */
static int parse(struct q2 *q, bool writable, struct sp_err *err)
{
	const char *path = q->file->path;
	uint8_t fixed[Q2_HEAD_MAX];
	uint64_t name_off, end;
	uint8_t *h;
	size_t got;
	int rc;

	rc = sp_file_pread(q->file, fixed, sizeof(fixed), 0, &got);
	if (!rc && got < Q2_HEAD_V2)
		rc = -EINVAL;
	if (rc)
		return sp_fail(err, rc, "%s: cannot read its qcow2 header: %s", path,
			       rc == -EINVAL ? "it is too short" : strerror(-rc));
	rc = parse_fixed(q, fixed, err);
	if (!rc)
		rc = parse_v3(q, fixed, err);
	if (rc)
		return rc;

	end = q->cs;
	name_off = q2_get64(fixed + 8);
	q->backing_len = q2_get32(fixed + 16);
	if (!q->backing_len)
		name_off = 0;
	if (name_off) {
		if (name_off < q->header_len || name_off > q->cs ||
		    q->backing_len > BACKING_NAME_MAX || q->backing_len > q->cs - name_off)
			return sp_fail(err, -EINVAL, "%s: damaged header: its backing file's name",
				       path);
		end = name_off;
	}
	h = sp_buf_alloc(q->cs);
	if (!h)
		return sp_fail(err, -ENOMEM, "out of memory");
	rc = sp_file_pread(q->file, h, q->cs, 0, &got);
	if (rc)
		rc = sp_fail(err, rc, "%s: cannot read its qcow2 header: %s", path,
			     strerror(-rc));
	else
		rc = parse_extensions(q, h, end, writable, err);
	if (!rc && name_off) {
		q->backing_name = malloc(q->backing_len + 1ull);
		if (q->backing_name) {
			memcpy(q->backing_name, h + name_off, q->backing_len);
			q->backing_name[q->backing_len] = 0;
		} else {
			rc = sp_fail(err, -ENOMEM, "out of memory");
		}
	}
	sp_buf_free(h);
	return rc;
}

/**
 * q2_open - read and check a header and the L1 table
 * @out: the result
 * @f: the file, stays the caller's
 * @layer: which layer it will be
 * @writable: refuse what we could only damage
 * @err: message
 *
 * Return: 0; -EINVAL: not qcow2, or broken; -ENOTSUP: a feature; -ENOMEM; what
 * reading gave.
 */
int q2_open(struct q2 **out, struct sp_file *f, unsigned int layer, bool writable,
	    struct sp_err *err)
{
	struct q2 *q = calloc(1, sizeof(*q));
	uint64_t bytes;
	int rc;

	if (!q)
		return sp_fail(err, -ENOMEM, "out of memory");
	q->file = f;
	q->layer = layer;
	rc = sp_file_size(f, &bytes);
	if (rc)
		sp_fail(err, rc, "%s: %s", f->path, strerror(-rc));
	if (!rc)
		rc = parse(q, writable, err);
	if (!rc)
		rc = q2_l1_load(q, bytes, err);
	if (!rc && !writable) {
		rc = q2_slices_init(q);
		if (rc)
			sp_fail(err, rc, "out of memory");
	}
	if (rc) {
		q2_close(q);
		return rc;
	}
	*out = q;
	return 0;
}

/**
 * q2_close - free it
 * @q: may be NULL; @q->w is the engine's to free
 */
void q2_close(struct q2 *q)
{
	if (!q)
		return;
	q2_slices_free(q);
	free(q->backing_name);
	free(q->backing_fmt);
	free(q->l1);
	free(q);
}
