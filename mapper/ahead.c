// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * ahead.c - reading ahead, on threads that the embedder can spare.
 *
 * Who does so counts as busy, so that the end of a mapper waits for him: a MAP that
 * came behind STOP would look like a channel that was lost.
 */
#include "mapper.h"

bool ubdm_mapper_ahead(struct ubdm_mapper *m)
{
	bool more;

	pthread_mutex_lock(&m->lock);
	if (m->quiet) {
		pthread_mutex_unlock(&m->lock);
		return false;
	}
	m->busy++;
	pthread_mutex_unlock(&m->lock);

	more = sp_ahead(m->img);

	pthread_mutex_lock(&m->lock);
	if (!--m->busy)
		pthread_cond_broadcast(&m->idle);
	pthread_mutex_unlock(&m->lock);
	return more;
}

/**
 * ubdm_mapper_quiet - nothing is read ahead from now on
 * @m: the mapper
 *
 * Who does so just now is waited for by ubdm_sync_idle().
 */
void ubdm_mapper_quiet(struct ubdm_mapper *m)
{
	pthread_mutex_lock(&m->lock);
	m->quiet = true;
	pthread_mutex_unlock(&m->lock);
}
