// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * stream.c - who writes in sequence, and how far to map ahead of them.
 *
 * A fault that begins where the last run that was mapped ended belongs to the same
 * writer, who has used all of that run up: the next one is twice as long.
 */
#include "engine.h"

#define FIRST_BYTES	(256u << 10)

static struct stream *find(struct q2w *w, uint64_t gc)
{
	for (unsigned int i = 0; i < NR_STREAMS; i++)
		if (w->stream[i].used && w->stream[i].next == gc)
			return &w->stream[i];
	return NULL;
}

/**
 * stream_ahead - how much to map beyond what is asked for
 * @w: the engine
 * @req: the request
 * @gc: its first cluster
 *
 * Return: clusters.
 */
uint64_t stream_ahead(struct q2w *w, const struct sp_req *req, uint64_t gc)
{
	uint64_t max = AHEAD_MAX_BYTES >> w->q->cbits, first = FIRST_BYTES >> w->q->cbits;
	const struct stream *s = find(w, gc);
	uint64_t window;

	if (!first)
		first = 1;
	if (s)
		window = s->window ? 2 * s->window : first;
	else
		window = req->seq ? first : 0;
	return window < max ? window : max;
}

/**
 * stream_mapped - note how far somebody is mapped
 * @w: the engine
 * @gc: where the request began
 * @end: behind the last cluster mapped
 * @ahead: clusters of it that were not asked for
 */
void stream_mapped(struct q2w *w, uint64_t gc, uint64_t end, uint64_t ahead)
{
	struct stream *s = find(w, gc);

	if (!s) {
		s = &w->stream[0];
		for (unsigned int i = 1; i < NR_STREAMS; i++)
			if (w->stream[i].used < s->used)
				s = &w->stream[i];
	}
	*s = (struct stream){ .next = end, .window = ahead, .used = ++w->stream_clock };
}
