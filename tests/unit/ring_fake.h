/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * ring_fake.h - a ring that a test turns itself: the functions of mapper/ring.h in
 * which every such ring is alike.  What becomes of a command, ubdm_ring_queue() and
 * ubdm_ring_turn(), is the test's.
 */
#ifndef TESTS_UNIT_RING_FAKE_H
#define TESTS_UNIT_RING_FAKE_H

#include "ring.h"

/* There is but one thread. */
bool ubdm_ring_is_mine(const struct ubdm_ring *ring)
{
	(void)ring;
	return true;
}

void ubdm_ring_queue_local(struct ubdm_ring *ring, struct ubdm_cmd *cmd, int res)
{
	ubdm_ring_queue(ring, cmd);
	cmd->local = true;
	cmd->res = res;
}

bool ubdm_ring_queue_quietly(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	ubdm_ring_queue(ring, cmd);
	return false;
}

void ubdm_ring_kick(struct ubdm_ring *ring)
{
	(void)ring;
}

/* Nor anything to wait for. */
int ubdm_ring_wait(struct ubdm_ring *ring, int timeout_ms)
{
	(void)ring;
	(void)timeout_ms;
	return 0;
}

int ubdm_ring_run(struct ubdm_ring *ring)
{
	int ret;

	do
		ret = ubdm_ring_turn(ring);
	while (ret > 0);
	return ret;
}

#endif /* TESTS_UNIT_RING_FAKE_H */
