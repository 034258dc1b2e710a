// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * reply.c - extents, replies, and those that are not acknowledged yet.
 */
#include <errno.h>
#include <stdlib.h>

#include "internal.h"

/**
 * extents_add - append an extent, or lengthen the last one
 * @x: rising
 * @e: behind all of them
 *
 * Return: false if there is no room.
 */
bool extents_add(struct extents *x, const struct sp_extent *e)
{
	struct sp_extent *last = x->nr ? &x->ext[x->nr - 1] : NULL;

	if (last && last->lba + last->len == e->lba && last->type == e->type &&
	    last->perm == e->perm && last->flags == e->flags && last->tid == e->tid &&
	    last->store == e->store &&
	    (e->type != SP_LINEAR || last->off + last->len == e->off)) {
		last->len += e->len;
		return true;
	}
	if (x->nr == x->max)
		return false;
	x->ext[x->nr++] = *e;
	return true;
}

static void send_reply(struct sp_image *img, const struct sp_req *req,
		       const struct sp_reply *r)
{
	img->opt.ops->reply(img->opt.ctx, req, r);
}

/**
 * reply_redrive - install extents and look again
 * @img: the image
 * @req: what is answered
 * @x: extents
 * @token: 0: no acknowledgement is wanted
 */
void reply_redrive(struct sp_image *img, const struct sp_req *req,
		   const struct extents *x, uint64_t token)
{
	const struct sp_reply r = {
		.action = SP_REDRIVE, .nr_ext = x->nr, .ext = x->ext, .token = token,
	};

	send_reply(img, req, &r);
}

/**
 * reply_done - install extents; part of the request is complete
 * @img: the image
 * @req: what is answered
 * @x: extents
 * @done: sectors
 * @token: 0: no acknowledgement is wanted
 */
void reply_done(struct sp_image *img, const struct sp_req *req,
		const struct extents *x, uint64_t done, uint64_t token)
{
	const struct sp_reply r = {
		.action = SP_DONE, .done = done, .nr_ext = x->nr, .ext = x->ext,
		.token = token,
	};

	send_reply(img, req, &r);
}

/**
 * reply_place - write the request's data to extents, then install them
 * @img: the image
 * @req: what is answered
 * @x: extents
 * @token: for the acknowledgement
 */
void reply_place(struct sp_image *img, const struct sp_req *req,
		 const struct extents *x, uint64_t token)
{
	const struct sp_reply r = {
		.action = SP_PLACE, .nr_ext = x->nr, .ext = x->ext, .token = token,
	};

	send_reply(img, req, &r);
}

/**
 * reply_error - fail a request, or put it off
 * @img: the image
 * @req: what is answered
 * @error: -ENOSPC, -EDQUOT, -ENOMEM: ask again later; -ETIME: an acknowledgement
 *	is missing, ask again soon; others: it fails
 */
void reply_error(struct sp_image *img, const struct sp_req *req, int error)
{
	struct sp_reply r = { .action = SP_ERROR, .error = error };

	if (is_full(error)) {
		r = (struct sp_reply){ .action = SP_HOLD, .done = HOLD_SPACE_MS,
				       .space = true };
	} else if (error == -ENOMEM) {
		r = (struct sp_reply){ .action = SP_HOLD, .done = HOLD_MEMORY_MS };
	} else if (error == -ETIME) {
		r = (struct sp_reply){ .action = SP_HOLD, .done = HOLD_ACK_MS };
	} else if (img->failed && req->kind != SP_READ) {
		r.error = -EIO;
		r.fail_dev = true;
	}
	r.ext = img->scratch;
	send_reply(img, req, &r);
}

/**
 * pend_new - room to remember a reply
 * @items: at most this many
 *
 * Return: it, or NULL.
 */
struct pend *pend_new(unsigned int items)
{
	struct pend *p = malloc(sizeof(*p) + items * sizeof(p->item[0]));

	if (!p)
		return NULL;
	list_init(&p->link);
	p->tid = 0;
	p->place = false;
	p->nr = 0;
	p->room = items;
	return p;
}

/**
 * pend_send - give it the next tid and wait for its acknowledgement
 * @img: the image
 * @p: not sent yet
 *
 * Context: the lock, under which the reply follows.
 */
void pend_send(struct sp_image *img, struct pend *p)
{
	p->tid = img->next_tid++;
	list_add_tail(&p->link, &img->pending);
	if (!img->oldest_ms)
		img->oldest_ms = now_ms();
}

/**
 * pend_find - what a token stands for
 * @img: the image
 * @token: a tid
 */
struct pend *pend_find(struct sp_image *img, uint64_t token)
{
	for (struct list *l = img->pending.next; l != &img->pending; l = l->next) {
		struct pend *p = list_entry(l, struct pend, link);

		if (p->tid == token)
			return p;
	}
	return NULL;
}

/**
 * pend_floor - the highest tid that is finished with all before it
 * @img: the image
 */
uint64_t pend_floor(const struct sp_image *img)
{
	uint64_t floor = img->next_tid - 1;

	if (!list_empty(&img->pending))
		floor = list_entry(img->pending.next, struct pend, link)->tid - 1;
	if (img->given_back && img->given_back <= floor)
		floor = img->given_back - 1;
	return floor;
}
