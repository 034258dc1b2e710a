/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * alone.h - do requests come one at a time?
 *
 * Then the ring thread may copy a cluster by itself, instead of waking a thread for
 * it that wakes the ring thread for the answer.  Where two writers copy at once it
 * must not: the second would wait for the disk twice.
 *
 * That there is no other request when one comes does not tell: the other may come
 * while the ring thread is at the disk and cannot see it.  So it looks back.  A
 * request that was there as soon as the answer to such a one was sent had waited, and
 * from then on nothing is done here until many in a row came alone again.  Two writers
 * are held up by a copy once in ALONE_ROW requests, at the most.
 *
 * All of it belongs to the ring thread.
 */
#ifndef UBDM_ALONE_H
#define UBDM_ALONE_H

#include <stdbool.h>

#define ALONE_ROW 16

/**
 * struct alone - what is known of the requests so far
 * @under_way: without their answer's result
 * @row: so many came alone since the last that did not; at most ALONE_ROW
 * @sent: the turn of the ring that sends, or sent, the answer to the last one that the
 *	ring thread stayed with; the first has the number 1
 */
struct alone {
	unsigned int under_way;
	unsigned int row;
	unsigned int sent;
};

/**
 * alone_came - a request is there
 * @a: what is known
 * @more: others came with it
 * @turn: of the ring
 *
 * Return: whether the ring thread may stay with it.
 */
static inline bool alone_came(struct alone *a, bool more, unsigned int turn)
{
	if (a->under_way++ || more || turn == a->sent) {
		a->row = 0;
		return false;
	}
	if (a->row == ALONE_ROW)
		return true;
	a->row++;
	return false;
}

/**
 * alone_stayed - the ring thread has answered one, perhaps with a copy
 * @a: what is known
 * @turn: of the ring, now
 */
static inline void alone_stayed(struct alone *a, unsigned int turn)
{
	a->sent = turn + 1;
}

/**
 * alone_went - a request is through
 * @a: what is known
 */
static inline void alone_went(struct alone *a)
{
	a->under_way--;
}

#endif /* UBDM_ALONE_H */
