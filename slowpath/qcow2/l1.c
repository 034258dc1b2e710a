// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * l1.c - sizes and places of the tables that the header names.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "qcow2.h"

/**
 * q2_table_ok - may there be a table?
 * @q: the layer
 * @off: byte offset
 * @len: bytes
 * @file_bytes: size of the file
 *
 * Return: on a cluster's boundary, behind the header, inside the file.
 */
bool q2_table_ok(const struct q2 *q, uint64_t off, uint64_t len, uint64_t file_bytes)
{
	return off >= q->cs && !(off & (q->cs - 1)) && off <= file_bytes &&
	       len <= file_bytes - off;
}

static int check_places(const struct q2 *q, uint64_t file_bytes, struct sp_err *err)
{
	const char *path = q->file->path;
	uint64_t rt_bytes = (uint64_t)q->rt_clusters << q->cbits;

	if (!rt_bytes || rt_bytes > Q2_MAX_RT_BYTES)
		return sp_fail(err, -EINVAL, "%s: damaged header: a refcount table of %llu bytes (at most 8 MiB)",
			       path, (unsigned long long)rt_bytes);
	if (!q2_table_ok(q, q->rt_off, rt_bytes, file_bytes))
		return sp_fail(err, -EINVAL, "%s: damaged header: its refcount table is outside the file",
			       path);
	if (q->nr_snapshots > Q2_MAX_SNAPSHOTS)
		return sp_fail(err, -EINVAL, "%s: damaged header: %u snapshots (at most 65536)",
			       path, q->nr_snapshots);
	if (q->nr_snapshots && !q2_table_ok(q, q->snapshots_off, 1, file_bytes))
		return sp_fail(err, -EINVAL, "%s: damaged header: its snapshot table is outside the file",
			       path);
	return 0;
}

/**
 * q2_l1_load - read the L1 table
 * @q: the layer, its header parsed
 * @file_bytes: size of the file
 * @err: message
 *
 * Return: 0, -EINVAL, -ENOMEM or what reading gave.
 */
int q2_l1_load(struct q2 *q, uint64_t file_bytes, struct sp_err *err)
{
	const char *path = q->file->path;
	uint64_t bytes = q->l1_size * 8ull;
	uint64_t used = (q->nr_gc + (1ull << q->l2_bits) - 1) >> q->l2_bits;
	uint8_t *raw;
	int rc;

	rc = check_places(q, file_bytes, err);
	if (rc)
		return rc;
	if (bytes > Q2_MAX_L1_BYTES)
		return sp_fail(err, -EINVAL, "%s: damaged header: an L1 table of %llu bytes (at most 32 MiB)",
			       path, (unsigned long long)bytes);
	if (used > q->l1_size)
		return sp_fail(err, -EINVAL, "%s: damaged header: its L1 table is too small for its size",
			       path);
	if (bytes && !q2_table_ok(q, q->l1_off, bytes, file_bytes))
		return sp_fail(err, -EINVAL, "%s: damaged header: its L1 table is outside the file",
			       path);
	q->l1_used = used;
	q->l1 = calloc(q->l1_size + 1ull, 8);
	raw = sp_buf_alloc(bytes);
	if (!q->l1 || !raw) {
		sp_buf_free(raw);
		return sp_fail(err, -ENOMEM, "%s: out of memory", path);
	}
	rc = bytes ? sp_file_pread(q->file, raw, bytes, q->l1_off, NULL) : 0;
	for (uint32_t i = 0; !rc && i < q->l1_size; i++)
		q->l1[i] = q2_get64(raw + i * 8ull);
	sp_buf_free(raw);
	return rc ? sp_fail(err, rc, "%s: cannot read its L1 table: %s", path, strerror(-rc)) : 0;
}
