// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * buffer.c - buffers of a cluster, for copies.
 *
 * They are kept as long as the image is open: memory that is locked costs its
 * clearing and its page faults each time it is taken anew, which is more than the
 * rest of what we do for a copy.  They are parts of huge pages where the system has
 * some, since direct I/O looks up, counts and lets go each page that it is given.
 */
#include <stdlib.h>
#include <sys/mman.h>

#include "engine.h"

#define CHUNK_BYTES	(2ull << 20)	/* a huge page of most machines */
#define STRIDE_MIN	4096u		/* as sp_buf_alloc() has it */

struct buffer {
	struct buffer *next;	/* in the buffer itself, while it is free */
};

struct chunk {
	struct chunk *next;
	void *mem;
};

/*
 * Nothing may be there before the kernel knows that we want huge pages: memory that
 * is locked is filled as soon as it may be written to.
 */
static void *chunk_map(void)
{
	uint8_t *p = mmap(NULL, 2 * CHUNK_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);
	size_t before;

	if (p == MAP_FAILED)
		return NULL;
	before = -(uintptr_t)p & (CHUNK_BYTES - 1);
	if (before)
		munmap(p, before);
	munmap(p + before + CHUNK_BYTES, CHUNK_BYTES - before);
	p += before;
	madvise(p, CHUNK_BYTES, MADV_HUGEPAGE);
	if (!mprotect(p, CHUNK_BYTES, PROT_READ | PROT_WRITE))
		return p;
	munmap(p, CHUNK_BYTES);
	return NULL;
}

static bool more(struct q2w *w)
{
	size_t stride = w->q->cs > STRIDE_MIN ? w->q->cs : STRIDE_MIN;
	struct chunk *c = malloc(sizeof(*c));

	if (!c)
		return false;
	c->mem = chunk_map();
	if (!c->mem) {
		free(c);
		return false;
	}
	c->next = w->chunks;
	w->chunks = c;
	for (size_t at = 0; at + stride <= CHUNK_BYTES; at += stride)
		buffer_put(w, (uint8_t *)c->mem + at);
	return true;
}

/**
 * buffer_get - a buffer of a cluster that any file here takes for direct I/O
 * @w: the engine
 *
 * Context: the lock.
 * Return: it, with anything in it; or NULL.
 */
uint8_t *buffer_get(struct q2w *w)
{
	struct buffer *b;

	if (!w->buffers && !more(w))
		return NULL;
	b = w->buffers;
	w->buffers = b->next;
	return (uint8_t *)b;
}

/**
 * buffer_put - give it back
 * @w: the engine
 * @buf: from buffer_get(), or NULL
 *
 * Context: the lock.
 */
void buffer_put(struct q2w *w, uint8_t *buf)
{
	struct buffer *b = (struct buffer *)buf;

	if (!b)
		return;
	b->next = w->buffers;
	w->buffers = b;
}

/**
 * buffers_exit - free all; none is used any more
 * @w: the engine
 */
void buffers_exit(struct q2w *w)
{
	struct chunk *c;

	while ((c = w->chunks)) {
		w->chunks = c->next;
		munmap(c->mem, CHUNK_BYTES);
		free(c);
	}
	w->buffers = NULL;
}
