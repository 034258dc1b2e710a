// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * encode.c - commands of the data plane as bytes, checked; see encode.h.
 */
#include <assert.h>
#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "encode.h"

#define MAX_HOLD_MS 60000 /* the uapi's; a longer wait is asked for again */

#define SAME(a, b) static_assert((int)(a) == (int)(b), #a " is not " #b)

SAME(SP_READ, UBDM_FAULT_READ);
SAME(SP_WRITE, UBDM_FAULT_WRITE);
SAME(SP_DISCARD, UBDM_FAULT_DISCARD);
SAME(SP_ZEROES, UBDM_FAULT_ZEROES);
SAME(SP_FLUSH, UBDM_FAULT_FLUSH);
SAME(SP_REDRIVE, UBDM_RESOLVE_REDRIVE);
SAME(SP_DONE, UBDM_RESOLVE_DONE);
SAME(SP_ERROR, UBDM_RESOLVE_ERROR);
SAME(SP_PLACE, UBDM_RESOLVE_PLACE);
SAME(SP_HOLD, UBDM_RESOLVE_HOLD);
SAME(SP_LINEAR, UBDM_EXT_LINEAR);
SAME(SP_ZERO, UBDM_EXT_ZERO);
SAME(SP_EIO, UBDM_EXT_ERROR);
SAME(SP_JOURNAL, UBDM_EXT_JOURNAL);
SAME(SP_PERM_R, UBDM_PERM_R);
SAME(SP_PERM_W, UBDM_PERM_W);
SAME(SP_EXT_REPLACE, UBDM_EXT_F_REPLACE);
SAME(SP_EXT_TOUCHED, UBDM_EXT_F_TOUCHED);
SAME(SP_EXT_PLACING, UBDM_EXT_F_PLACING);
static_assert(SP_MAX_REPLY <= UBDM_MAX_EXTENTS, "a reply is one transaction");
static_assert(SP_MAX_STORES <= UBDM_MAX_BACKINGS, "a store is a backing");
static_assert(sizeof(struct ubdm_resolve) == UBDM_CMD_BODY,
	      "RESOLVE fills the body");

/* Begins a command and gives its body, all zeros. */
#define body_of(m, type, cmd) \
	((struct type *)begin(m, cmd, sizeof(struct type)))

static void *begin(struct ubdm_msg *m, uint32_t op, size_t size)
{
	assert(size <= UBDM_CMD_BODY);
	memset(m, 0, sizeof(*m));
	m->op = op;
	return m->body;
}

static bool range_ok(uint64_t start, uint64_t len)
{
	uint64_t end;

	return len && !__builtin_add_overflow(start, len, &end);
}

static bool extent_ok(const struct sp_extent *e)
{
	if (!range_ok(e->lba, e->len) || e->flags & ~(uint32_t)UBDM_EXT_F_IN ||
	    (e->flags && !e->tid))
		return false;

	switch (e->type) {
	case SP_LINEAR:
		return range_ok(e->off, e->len) &&
		       e->store < UBDM_MAX_BACKINGS &&
		       (e->perm == SP_PERM_R ||
			e->perm == (SP_PERM_R | SP_PERM_W));
	case SP_JOURNAL:
		return range_ok(e->off, e->len) &&
		       e->store < UBDM_MAX_BACKINGS && e->tid && !e->perm;
	case SP_ZERO:
		return e->perm == SP_PERM_R;
	case SP_EIO:
		return !e->perm;
	default:
		return false;
	}
}

int ubdm_encode_extents(struct ubdm_extent *dst, const struct sp_extent *src,
			unsigned int nr)
{
	uint64_t end = 0;
	unsigned int i;

	for (i = 0; i < nr; i++) {
		const struct sp_extent *e = &src[i];
		bool located = e->type == SP_LINEAR || e->type == SP_JOURNAL;

		if (!extent_ok(e) || e->lba < end)
			return -EINVAL;
		end = e->lba + e->len;
		dst[i] = (struct ubdm_extent){
			.lba = e->lba,
			.len = e->len,
			.off = located ? e->off : 0,
			.tid = e->tid,
			.backing = located ? e->store : 0,
			.type = e->type,
			.perm = e->perm,
			.flags = e->flags,
		};
	}
	return 0;
}

void ubdm_decode_extent(struct sp_extent *dst, const struct ubdm_extent *src)
{
	*dst = (struct sp_extent){
		.lba = src->lba,
		.len = src->len,
		.off = src->off,
		.tid = src->tid,
		.store = src->backing,
		.type = src->type,
		.perm = src->perm,
		.flags = src->flags,
	};
}

int ubdm_decode_fault(struct sp_req *req, const struct ubdm_fault *fault)
{
	if (fault->kind < UBDM_FAULT_READ || fault->kind > UBDM_FAULT_FLUSH)
		return -EPROTO;

	*req = (struct sp_req){
		.kind = (enum sp_kind)fault->kind,
		.flags = (fault->flags & UBDM_FAULT_F_NOUNMAP ? SP_REQ_NOUNMAP : 0) |
			 (fault->flags & UBDM_FAULT_F_FUA ? SP_REQ_FUA : 0),
		.lba = fault->lba,
		.len = fault->len,
		.want_lba = fault->want_lba,
		.want_len = fault->want_len,
		.seq = fault->seq,
		.tid = fault->tid,
	};
	return 0;
}

void ubdm_encode_start(struct ubdm_msg *m, unsigned int granule_shift)
{
	struct ubdm_start *b = body_of(m, ubdm_start, UBDM_CMD_START);

	b->granule_shift = granule_shift;
}

void ubdm_encode_stop(struct ubdm_msg *m, bool done, int error)
{
	struct ubdm_stop *b = body_of(m, ubdm_stop, UBDM_CMD_STOP);

	b->flags = done ? UBDM_STOP_F_DONE : 0;
	b->error = done ? error : 0;
}

void ubdm_encode_detach(struct ubdm_msg *m)
{
	struct ubdm_stop *b = body_of(m, ubdm_stop, UBDM_CMD_STOP);

	b->flags = UBDM_STOP_F_DETACH;
}

void ubdm_encode_fetch(struct ubdm_msg *m, struct ubdm_fault *buf,
		       unsigned int nr)
{
	struct ubdm_fetch *b = body_of(m, ubdm_fetch, UBDM_CMD_FETCH);

	b->buf = (uintptr_t)buf;
	b->nr = nr;
}

/* PLACE: LINEAR RW with a tid, adjoining each other. */
static bool placeable(const struct sp_extent *ext, unsigned int nr)
{
	unsigned int i;

	for (i = 0; i < nr; i++) {
		if (ext[i].type != SP_LINEAR || !ext[i].tid ||
		    ext[i].perm != (SP_PERM_R | SP_PERM_W))
			return false;
		if (i && ext[i].lba != ext[i - 1].lba + ext[i - 1].len)
			return false;
	}
	return nr > 0;
}

static int encode_action(struct ubdm_resolve *b, const struct sp_reply *reply)
{
	switch (reply->action) {
	case SP_REDRIVE:
		return 0;
	case SP_DONE:
		b->done = reply->done;
		return 0;
	case SP_HOLD:
		b->done = reply->done < MAX_HOLD_MS ? reply->done : MAX_HOLD_MS;
		return 0;
	case SP_ERROR:
		if (reply->error >= 0 || reply->error < -4095)
			return -EINVAL;
		b->error = reply->error;
		return 0;
	case SP_PLACE:
		return placeable(reply->ext, reply->nr_ext) ? 0 : -EINVAL;
	default:
		return -EINVAL;
	}
}

int ubdm_encode_resolve(struct ubdm_msg *m, uint64_t cookie,
			const struct sp_reply *reply, struct ubdm_extent *table)
{
	struct ubdm_resolve *b = body_of(m, ubdm_resolve, UBDM_CMD_RESOLVE);

	b->cookie = cookie;
	b->action = reply->action;
	b->nr_ext = reply->nr_ext;
	if (reply->fail_dev)
		b->flags |= UBDM_RESOLVE_F_FAIL_DEV;
	if (reply->space && reply->action == SP_HOLD)
		b->flags |= UBDM_RESOLVE_F_SPACE;
	if (reply->nr_ext > UBDM_MAX_EXTENTS || encode_action(b, reply))
		return -EINVAL;
	if (!reply->nr_ext)
		return 0;
	if (reply->nr_ext == 1) {
		b->flags |= UBDM_RESOLVE_F_INLINE;
		table = &b->ext;
	} else {
		b->addr = (uintptr_t)table;
	}
	return ubdm_encode_extents(table, reply->ext, reply->nr_ext);
}

void ubdm_encode_resolve_error(struct ubdm_msg *m, uint64_t cookie, int error)
{
	struct ubdm_resolve *b = body_of(m, ubdm_resolve, UBDM_CMD_RESOLVE);

	b->cookie = cookie;
	b->action = UBDM_RESOLVE_ERROR;
	b->error = error;
}

void ubdm_encode_resolve_hold(struct ubdm_msg *m, uint64_t cookie,
			      unsigned int ms)
{
	struct ubdm_resolve *b = body_of(m, ubdm_resolve, UBDM_CMD_RESOLVE);

	b->cookie = cookie;
	b->action = UBDM_RESOLVE_HOLD;
	b->done = ms;
}

int ubdm_encode_map(struct ubdm_msg *m, const struct sp_extent *ext,
		    unsigned int nr, struct ubdm_extent *table)
{
	struct ubdm_map *b = body_of(m, ubdm_map, UBDM_CMD_MAP);

	if (!nr || nr > UBDM_MAX_EXTENTS)
		return -EINVAL;
	b->addr = (uintptr_t)table;
	b->nr_ext = nr;
	return ubdm_encode_extents(table, ext, nr);
}

int ubdm_encode_invalidate(struct ubdm_msg *m, unsigned int backing,
			   uint64_t off, uint64_t len)
{
	struct ubdm_invalidate *b =
		body_of(m, ubdm_invalidate, UBDM_CMD_INVALIDATE);

	if (backing >= UBDM_MAX_BACKINGS || (len && !range_ok(off, len)))
		return -EINVAL;
	b->start = off;
	b->len = len;
	b->backing = backing;
	b->flags = UBDM_INVAL_F_BACKING;
	return 0;
}

void ubdm_encode_commit(struct ubdm_msg *m, uint64_t tid)
{
	struct ubdm_commit *b = body_of(m, ubdm_commit, UBDM_CMD_COMMIT);

	b->tid = tid;
}

void ubdm_encode_backing_add(struct ubdm_msg *m, int fd, uint32_t flags)
{
	struct ubdm_backing_add *b =
		body_of(m, ubdm_backing_add, UBDM_CMD_BACKING_ADD);

	b->fd = fd;
	b->flags = flags;
	b->len = UINT64_MAX;
}

void ubdm_encode_backing_get(struct ubdm_msg *m, unsigned int index)
{
	struct ubdm_backing_ref *b =
		body_of(m, ubdm_backing_ref, UBDM_CMD_BACKING_GET);

	b->index = index;
}

void ubdm_encode_dump(struct ubdm_msg *m, struct ubdm_dump_head *head,
		      unsigned int nr, uint64_t lba, uint32_t flags)
{
	struct ubdm_dump *b = body_of(m, ubdm_dump, UBDM_CMD_DUMP);

	b->addr = (uintptr_t)head;
	b->lba = lba;
	b->nr = nr;
	b->flags = flags;
}
