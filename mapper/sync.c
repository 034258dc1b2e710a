// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * sync.c - commands that are waited for.
 *
 * The ring thread waits by turning the ring itself; another thread by m->idle.
 */
#include <errno.h>

#include "mapper.h"

struct sync_cmd {
	struct ubdm_cmd cmd;
	struct ubdm_mapper *m;
	int res;
	bool over; /* under m->lock */
};

static void sync_done(struct ubdm_cmd *cmd, int res)
{
	struct sync_cmd *s = (struct sync_cmd *)cmd;
	struct ubdm_mapper *m = s->m;

	pthread_mutex_lock(&m->lock);
	s->res = res;
	s->over = true;
	pthread_cond_broadcast(&m->idle);
	pthread_mutex_unlock(&m->lock);
}

static bool is_over(struct ubdm_mapper *m, const struct sync_cmd *s)
{
	bool over;

	pthread_mutex_lock(&m->lock);
	over = s ? s->over : !m->busy;
	pthread_mutex_unlock(&m->lock);
	return over;
}

/* Until @s is over, or with NULL until nothing is under way. */
static int wait_for(struct ubdm_mapper *m, const struct sync_cmd *s)
{
	if (!ubdm_ring_is_mine(&m->ring)) {
		pthread_mutex_lock(&m->lock);
		while ((s ? !s->over : m->busy != 0) && !m->ring_error)
			pthread_cond_wait(&m->idle, &m->lock);
		pthread_mutex_unlock(&m->lock);
		return m->ring_error;
	}

	while (!is_over(m, s) && !m->ring_error) {
		int ret = ubdm_ring_wait(&m->ring, 1000);

		if (ret)
			return ret;
		/* Gone is no reason to leave: the kernel answers what it has. */
		ubdm_mapper_process(m);
	}
	return m->ring_error;
}

/**
 * ubdm_sync_run - send a command and wait for its result
 * @m: the mapper
 * @msg: the command
 *
 * On the ring thread what else arrives meanwhile is handled too.
 *
 * Return: the CQE's result.
 */
int ubdm_sync_run(struct ubdm_mapper *m, const struct ubdm_msg *msg)
{
	struct sync_cmd s = { .cmd.done = sync_done, .m = m };
	int ret;

	s.cmd.msg = *msg;
	ubdm_ring_queue(&m->ring, &s.cmd);
	if (ubdm_ring_is_mine(&m->ring))
		ubdm_mapper_process(m);
	ret = wait_for(m, &s);
	return ret ? ret : s.res;
}

/**
 * ubdm_sync_idle - wait until no job and no note is under way
 * @m: the mapper
 */
int ubdm_sync_idle(struct ubdm_mapper *m)
{
	return wait_for(m, NULL);
}
