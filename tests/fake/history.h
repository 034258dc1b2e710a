/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * history.h - which contents a disk may have after trouble.
 *
 * Every sector is filled with one byte.  A change adds a possible value; a flush
 * that succeeds leaves only the last one.  Included by one file of a test.
 */
#ifndef TESTS_FAKE_HISTORY_H
#define TESTS_FAKE_HISTORY_H

#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define HIST_MAX	30

struct hist_sector {
	uint8_t nr;
	uint8_t val[HIST_MAX];	/* the last one is what a read gives now */
	bool unsure;		/* ... or any other of them: a request failed */
};

struct history {
	uint64_t size;
	struct hist_sector *s;
};

static inline void hist_init(struct history *h, uint64_t size)
{
	uint64_t i;

	h->size = size;
	h->s = calloc(size, sizeof(*h->s));
	for (i = 0; i < size; i++)
		h->s[i].nr = 1;
}

/* From here on only what it is now. */
static inline void hist_set(struct history *h, uint64_t lba, uint64_t len, uint8_t v)
{
	for (; len; lba++, len--) {
		h->s[lba].nr = 1;
		h->s[lba].val[0] = v;
		h->s[lba].unsure = false;
	}
}

static inline void hist_change(struct history *h, uint64_t lba, uint64_t len, uint8_t v,
			       bool failed)
{
	for (; len; lba++, len--) {
		struct hist_sector *s = &h->s[lba];

		if (s->nr == HIST_MAX)
			abort();
		s->val[s->nr++] = v;
		s->unsure |= failed;
		if (!failed)
			s->unsure = false;
	}
}

static inline void hist_flush(struct history *h)
{
	uint64_t i;

	for (i = 0; i < h->size; i++) {
		struct hist_sector *s = &h->s[i];

		if (s->unsure)
			continue;
		s->val[0] = s->val[s->nr - 1];
		s->nr = 1;
	}
}

static inline bool hist_allows(const struct history *h, uint64_t lba, const char *data,
			       bool crashed)
{
	const struct hist_sector *s = &h->s[lba];
	unsigned int i;

	for (i = 1; i < 512; i++)
		if (data[i] != data[0])
			return false;
	for (i = crashed || s->unsure ? 0 : s->nr - 1; i < s->nr; i++)
		if (s->val[i] == (uint8_t)data[0])
			return true;
	return false;
}

#endif /* TESTS_FAKE_HISTORY_H */
