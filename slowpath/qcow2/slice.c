// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * slice.c - L2 tables of a file that is only read, in a bounded cache.
 *
 * The unit is a slice: a table, or 64 KiB of a larger one.  Loading drops the
 * image's lock; since the file does not change, two who load the same slice
 * bring the same, and the second's copy is thrown away.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2.h"

#define SLICE_MAX_BITS	13		/* log2 of its entries */
#define CACHE_BYTES	(8u << 20)	/* per layer */
#define MIN_SLICES	16

struct slice {
	uint64_t index;			/* gc >> slice bits */
	uint64_t used;			/* clock of the last use */
	uint64_t *entry;		/* NULL: free */
};

struct q2_slices {
	uint64_t clock;
	unsigned int last;		/* the one found last */
	unsigned int nr, max;
	struct slice slice[];
};

/**
 * q2_slice_bits - log2 of the entries in a slice
 * @q: the layer
 */
unsigned int q2_slice_bits(const struct q2 *q)
{
	return q->l2_bits < SLICE_MAX_BITS ? q->l2_bits : SLICE_MAX_BITS;
}

/**
 * q2_slices_init - an empty cache
 * @q: the layer
 *
 * Return: 0 or -ENOMEM.
 */
int q2_slices_init(struct q2 *q)
{
	unsigned int max = CACHE_BYTES >> (q2_slice_bits(q) + 3);

	if (max < MIN_SLICES)
		max = MIN_SLICES;
	if (max > 1024)
		max = 1024;
	q->slices = calloc(1, sizeof(*q->slices) + max * sizeof(struct slice));
	if (!q->slices)
		return -ENOMEM;
	q->slices->max = max;
	return 0;
}

/**
 * q2_slices_free - free it
 * @q: the layer; may have none
 */
void q2_slices_free(struct q2 *q)
{
	if (!q->slices)
		return;
	for (unsigned int i = 0; i < q->slices->nr; i++)
		free(q->slices->slice[i].entry);
	free(q->slices);
	q->slices = NULL;
}

/**
 * q2_slice_get - look a slice up
 * @q: the layer
 * @index: of the slice
 *
 * Context: the image's lock; the result is good as long as that is held.
 * Return: its entries, or NULL.
 */
const uint64_t *q2_slice_get(struct q2 *q, uint64_t index)
{
	struct q2_slices *c = q->slices;
	unsigned int i;

	if (c->last >= c->nr || c->slice[c->last].index != index) {
		for (i = 0; i < c->nr; i++)
			if (c->slice[i].index == index)
				break;
		if (i == c->nr)
			return NULL;
		c->last = i;
	}
	c->slice[c->last].used = ++c->clock;
	return c->slice[c->last].entry;
}

static struct slice *victim(struct q2_slices *c)
{
	struct slice *v = &c->slice[0];

	if (c->nr < c->max)
		return &c->slice[c->nr++];
	for (unsigned int i = 1; i < c->nr; i++)
		if (c->slice[i].used < v->used)
			v = &c->slice[i];
	return v;
}

static void insert(struct q2 *q, uint64_t index, uint64_t *entry)
{
	struct slice *s;

	if (q2_slice_get(q, index)) {
		free(entry);
		return;
	}
	s = victim(q->slices);
	free(s->entry);
	s->entry = entry;
	s->index = index;
	s->used = ++q->slices->clock;
}

/* A table outside the file: every cluster that it would describe is bad. */
static void fill_bad(uint64_t *entry, unsigned int n)
{
	for (unsigned int i = 0; i < n; i++)
		entry[i] = Q2_OFFSET_MASK;
}

/**
 * q2_slice_load - bring a slice to memory
 * @img: the image
 * @q: the layer
 * @index: of the slice
 *
 * Context: the image's lock, which is dropped meanwhile.
 * Return: 0, -EIO, -ENOMEM.
 */
int q2_slice_load(struct sp_image *img, struct q2 *q, uint64_t index)
{
	unsigned int bits = q2_slice_bits(q), n = 1u << bits;
	uint64_t l1 = q->l1[index >> (q->l2_bits - bits)];
	uint64_t part = index & ((1ull << (q->l2_bits - bits)) - 1);
	uint64_t table = q2_offset(l1);
	uint64_t *entry = sp_buf_alloc(n * 8ull);
	int rc = 0;

	if (!entry)
		return -ENOMEM;
	if (!q2_table_ok(q, table, q->cs, img->layers[q->layer].file_bytes)) {
		fill_bad(entry, n);
	} else {
		pthread_mutex_unlock(&img->lock);
		rc = sp_file_pread(q->file, entry, n * 8ull, table + part * n * 8, NULL);
		pthread_mutex_lock(&img->lock);
		for (unsigned int i = 0; !rc && i < n; i++)
			entry[i] = q2_get64((const uint8_t *)&entry[i]);
	}
	if (rc)
		free(entry);
	else
		insert(q, index, entry);
	return rc;
}
