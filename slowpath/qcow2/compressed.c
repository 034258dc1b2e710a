// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * compressed.c - where a compressed cluster is, and what is in it.
 */
#include <errno.h>
#include <stdlib.h>

#include "qcow2.h"

/**
 * q2_comp_range - the bytes of the file that a compressed cluster may use
 * @q: the layer
 * @entry: of the L2 table
 * @off: byte offset of the first
 * @len: bytes; the last sector of the file may be short
 */
void q2_comp_range(const struct q2 *q, uint64_t entry, uint64_t *off, uint64_t *len)
{
	unsigned int bits = 62 - (q->cbits - 8);
	uint64_t sectors = ((entry & ~(Q2_COPIED | Q2_COMPRESSED)) >> bits) + 1;

	*off = entry & ((1ull << bits) - 1);
	*len = (sectors << SP_SECTOR_SHIFT) - (*off & 511);
}

/**
 * q2_decompress - read a compressed cluster
 * @q: the layer
 * @entry: of the L2 table
 * @out: a cluster's bytes
 *
 * Context: no lock.
 * Return: 0; -EIO: damaged or unreadable; -ENOMEM.
 */
int q2_decompress(struct q2 *q, uint64_t entry, void *out)
{
	uint64_t off, len;
	uint8_t *in;
	size_t got;
	int rc;

	q2_comp_range(q, entry, &off, &len);
	in = sp_buf_alloc(len);
	if (!in)
		return -ENOMEM;
	rc = sp_file_pread(q->file, in, len, off, &got);
	if (!rc)
		rc = got ? q->codec->decompress(out, q->cs, in, got) : -EIO;
	sp_buf_free(in);
	return rc == -ENOMEM ? rc : rc ? -EIO : 0;
}
