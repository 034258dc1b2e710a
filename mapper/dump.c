// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * dump.c - what the kernel keeps for us: the uncommitted extents.
 */
#include <errno.h>
#include <stdlib.h>

#include "mapper.h"

#define DUMP_EXTENTS 2048

struct dump {
	struct ubdm_dump_head head;
	struct ubdm_extent ext[DUMP_EXTENTS];
};

static int append(struct sp_extent **ext, unsigned int *nr,
		  const struct dump *d)
{
	struct sp_extent *more;

	if (d->head.nr > DUMP_EXTENTS)
		return -EPROTO;
	more = reallocarray(*ext, *nr + d->head.nr + 1, sizeof(*more));
	if (!more)
		return -ENOMEM;
	for (unsigned int i = 0; i < d->head.nr; i++)
		ubdm_decode_extent(&more[*nr + i], &d->ext[i]);
	*ext = more;
	*nr += d->head.nr;
	return 0;
}

/**
 * ubdm_dump_uncommitted - every uncommitted extent, and PLACEs in flight
 * @m: the mapper
 * @ext: malloc'ed; NULL on failure
 * @nr: how many
 * @max_tid: the highest tid the device ever saw; may be NULL
 */
int ubdm_dump_uncommitted(struct ubdm_mapper *m, struct sp_extent **ext,
			  unsigned int *nr, uint64_t *max_tid)
{
	struct dump *d = calloc(1, sizeof(*d));
	struct ubdm_msg msg;
	uint64_t lba = 0;
	int ret;

	*ext = NULL;
	*nr = 0;
	if (!d)
		return -ENOMEM;
	do {
		ubdm_encode_dump(&msg, &d->head, DUMP_EXTENTS, lba,
				 UBDM_DUMP_F_UNCOMMITTED);
		ret = ubdm_sync_run(m, &msg);
		if (ret < 0)
			break;
		ret = append(ext, nr, d);
		if (!ret && d->head.next_lba != UINT64_MAX &&
		    d->head.next_lba <= lba && d->head.nr == 0)
			ret = -EPROTO; /* would never end */
		lba = d->head.next_lba;
	} while (!ret && lba != UINT64_MAX);

	if (!ret && max_tid)
		*max_tid = d->head.max_tid;
	if (ret) {
		free(*ext);
		*ext = NULL;
	}
	free(d);
	return ret < 0 ? ret : 0;
}
