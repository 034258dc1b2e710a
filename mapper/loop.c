// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * loop.c - faults to requests, answers to commands, results to the slowpath.
 *
 * The way of a fault:
 *
 *	FETCH's CQE -> job -> sp_handle() -> on_reply() -> RESOLVE
 *	RESOLVE's CQE -> sp_acked() -> job free
 *
 * sp_handle() is tried here without blocking, or with no more than a copy where the
 * embedder allows that and requests come one at a time (alone.h); if that won't do the
 * job goes to the embedder.  A FETCH is armed again once each of its faults has a job, so
 * the number of jobs bounds what is under way.
 *
 * Each fault is answered until the kernel takes the answer or says that the
 * fault is no longer ours (-ENOENT), so that no request waits for good: an
 * answer that is refused is replaced by HOLD where memory was short, by
 * EIO otherwise.
 */
#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "mapper.h"

#define NOMEM_HOLD_MS 20
#define LEAVING_HOLD_MS 20

static struct ubdm_mapper *mapper_of(void *ctx)
{
	return ctx;
}

static struct job *job_of(struct ubdm_cmd *cmd)
{
	return (struct job *)((char *)cmd - offsetof(struct job, cmd));
}

static void get_busy(struct ubdm_mapper *m)
{
	pthread_mutex_lock(&m->lock);
	m->busy++;
	pthread_mutex_unlock(&m->lock);
}

static void put_busy(struct ubdm_mapper *m)
{
	pthread_mutex_lock(&m->lock);
	if (!--m->busy)
		pthread_cond_broadcast(&m->idle);
	pthread_mutex_unlock(&m->lock);
}

void ubdm_loop_gone(struct ubdm_mapper *m, int error)
{
	m->fetching = false;
	if (m->gone)
		return;
	m->gone = error;
	m->ops->gone(m->ctx, error);
}

static bool is_end(int res)
{
	return res == -ESTALE || res == -ESHUTDOWN || res == -ENOTCONN;
}

/* --- jobs --------------------------------------------------------------- */

static void fetch_go(struct fetch *f);
static void try_job(struct job *job);

static struct job *job_get(struct ubdm_mapper *m)
{
	struct job *job = m->free_jobs;

	if (!job)
		return NULL;
	m->free_jobs = (struct job *)job->pub.next;
	job->cookie = 0;
	job->token = 0;
	job->space = false;
	job->walk = NULL;
	job->table = NULL;
	get_busy(m);
	return job;
}

static void job_put(struct job *job)
{
	struct ubdm_mapper *m = job->m;

	if (job->cookie)
		alone_went(&m->alone);
	else
		m->committing = false;
	job->pub.next = (struct ubdm_job *)m->free_jobs;
	m->free_jobs = job;
	put_busy(m);

	/* One that had no job for its faults can go on. */
	for (int i = 0; i < NR_FETCH && m->free_jobs; i++)
		if (m->fetches[i].pos < m->fetches[i].nr)
			fetch_go(&m->fetches[i]);
}

static void second_answer_done(struct ubdm_cmd *cmd, int res)
{
	struct job *job = job_of(cmd);

	/* These need none of the driver's memory, but io_uring's. */
	if (res == -ENOMEM) {
		ubdm_ring_queue(&job->m->ring, cmd);
		return;
	}
	if (is_end(res))
		ubdm_loop_gone(job->m, res);
	job_put(job);
}

/* The first answer was refused, and nothing of it was done. */
static void answer_again(struct job *job, int res)
{
	if (res == -ENOMEM)
		ubdm_encode_resolve_hold(&job->cmd.msg, job->cookie,
					 NOMEM_HOLD_MS);
	else
		ubdm_encode_resolve_error(&job->cmd.msg, job->cookie, -EIO);
	job->cmd.done = second_answer_done;
	ubdm_ring_queue(&job->m->ring, &job->cmd);
}

static struct walk just_map;

/* Of what needs space: all that changes a cluster. */
static bool may_hold_readers(enum sp_kind kind)
{
	return kind == SP_WRITE || kind == SP_ZEROES || kind == SP_DISCARD;
}

/*
 * A change is held for want of space, and reads of the same cluster would wait
 * behind it: have what they want mapped.
 */
static void map_for_readers(struct job *job)
{
	job->space = false;
	job->walk = &just_map;
	job->req.kind = SP_READ;
	try_job(job);
}

static void answer_done(struct ubdm_cmd *cmd, int res)
{
	struct job *job = job_of(cmd);
	struct ubdm_mapper *m = job->m;
	bool due;

	ubdm_table_put(&m->tables, job->table);
	job->table = NULL;
	due = job->req.kind != SP_READ && job->req.kind != SP_WRITE;
	if (job->token)
		due |= sp_acked(m->img, job->token, res < 0 ? res : 0);
	job->token = 0;
	if (due || res == -ENOMEM)
		m->ops->work(m->ctx);

	if (is_end(res))
		ubdm_loop_gone(m, res);
	if (res >= 0 && job->space && may_hold_readers(job->req.kind))
		map_for_readers(job);
	else if (res >= 0 || res == -ENOENT || res == -ECANCELED ||
		 is_end(res) || !job->cookie)
		job_put(job);
	else
		answer_again(job, res);
}

static void note_tids(struct ubdm_mapper *m, const struct sp_extent *ext,
		      unsigned int nr)
{
	uint64_t max = 0, old;

	for (unsigned int i = 0; i < nr; i++)
		if (ext[i].tid > max)
			max = ext[i].tid;
	old = atomic_load(&m->max_tid);
	while (max > old &&
	       !atomic_compare_exchange_weak(&m->max_tid, &old, max))
		;
}

static void on_map(void *ctx, const struct sp_extent *ext, unsigned int nr);
static void give_up(struct ubdm_mapper *m);

/* Is [walk->next, ...) continued by these extents, and how far? */
static void walk_on(struct ubdm_mapper *m, struct walk *walk,
		    const struct sp_reply *reply)
{
	if (reply->action != SP_REDRIVE) {
		walk->error = reply->action == SP_ERROR ? reply->error : -EAGAIN;
		return;
	}
	for (unsigned int i = 0; i < reply->nr_ext; i++) {
		const struct sp_extent *e = &reply->ext[i];

		if (e->lba > walk->next || e->lba + e->len <= walk->next)
			continue;
		if ((walk->home && (e->type != SP_LINEAR || e->store)) ||
		    (e->type == SP_LINEAR &&
		     sp_store(m->img, e->store)->flags & SP_STORE_CACHE) ||
		    (e->perm & walk->perm) != walk->perm) {
			walk->whole = false;
			return;
		}
		walk->next = e->lba + e->len;
	}
}

/* Nobody waits for it but us. */
static void on_walk(struct ubdm_mapper *m, struct job *job,
		    const struct sp_reply *reply)
{
	if (reply->action == SP_REDRIVE)
		on_map(m, reply->ext, reply->nr_ext);
	if (job->walk != &just_map) {
		walk_on(m, job->walk, reply);
		if (reply->token)
			give_up(m);	/* a change that nobody will install */
		return;
	}
	job->cmd.done = second_answer_done;
	ubdm_ring_queue_local(&m->ring, &job->cmd, 0);
}

/**
 * ubdm_loop_ask - a request of our own, answered to nobody
 * @m: the mapper
 * @req: READ: what is answered is mapped.  WRITE: makes the image ready for
 *	writing, where the sectors are allocated already.  FLUSH: commits
 * @walk: notes what was answered
 *
 * Context: may block; not the ring thread.
 * Return: 0, or @walk->error.
 */
int ubdm_loop_ask(struct ubdm_mapper *m, const struct sp_req *req,
		  struct walk *walk)
{
	struct job job = { .m = m, .req = *req, .walk = walk };

	walk->error = 0;
	job.req.priv = &job;
	sp_handle(m->img, &job.req, SP_MAY_WAIT);
	if (req->kind == SP_FLUSH && walk->error == -EAGAIN)
		walk->error = 0;
	return walk->error;
}

/*
 * The answer of a job that this thread runs wakes the ring thread only when
 * the image's lock is free: it takes it next, for sp_acked().  Nothing that
 * waits comes between an answer and the end of sp_handle().
 */
static _Thread_local bool in_job, kick_due;

static void send_answer(struct job *job)
{
	if (!in_job)
		ubdm_ring_queue(&job->m->ring, &job->cmd);
	else if (ubdm_ring_queue_quietly(&job->m->ring, &job->cmd))
		kick_due = true;
}

/* sp_ops.reply: any thread, the image's lock held. */
static void on_reply(void *ctx, const struct sp_req *req,
		     const struct sp_reply *reply)
{
	struct ubdm_mapper *m = mapper_of(ctx);
	struct job *job = req->priv;
	int ret = 0;

	if (job->walk) {
		on_walk(m, job, reply);
		return;
	}
	job->token = reply->token;
	job->space = reply->space && reply->action == SP_HOLD;
	job->cmd.done = answer_done;
	note_tids(m, reply->ext, reply->nr_ext);
	if (!job->cookie) {
		ubdm_ring_queue_local(&m->ring, &job->cmd, 0);
		return;
	}
	if (reply->nr_ext > 1) {
		job->table = ubdm_table_get(&m->tables, reply->nr_ext);
		if (!job->table)
			ret = -ENOMEM;
	}
	if (!ret)
		ret = ubdm_encode_resolve(&job->cmd.msg, job->cookie, reply,
					  job->table);
	if (ret)
		ubdm_ring_queue_local(&m->ring, &job->cmd, ret);
	else
		send_answer(job);
}

void ubdm_job_run(struct ubdm_job *pub)
{
	struct job *job = (struct job *)pub;
	struct ubdm_mapper *m = job->m;

	in_job = true;
	sp_handle(m->img, &job->req, SP_MAY_WAIT);
	in_job = false;
	/* The job may be another's by now, but the mapper waits for its threads. */
	if (kick_due)
		ubdm_ring_kick(&m->ring);
	kick_due = false;
}

/* --- faults ------------------------------------------------------------- */

/* The answer to a fault that the slowpath is not asked about. */
static void refuse(struct job *job, int error)
{
	ubdm_encode_resolve_error(&job->cmd.msg, job->cookie, error);
	job->cmd.done = second_answer_done;
	ubdm_ring_queue(&job->m->ring, &job->cmd);
}

/* We are about to go; whoever comes after us, if anybody, will answer. */
static void put_off(struct job *job)
{
	ubdm_encode_resolve_hold(&job->cmd.msg, job->cookie, LEAVING_HOLD_MS);
	job->cmd.done = second_answer_done;
	ubdm_ring_queue(&job->m->ring, &job->cmd);
}

static void try_job(struct job *job)
{
	struct ubdm_mapper *m = job->m;

	job->req.priv = job;
	if (sp_handle(m->img, &job->req, SP_MAY_NOTHING) == -EAGAIN)
		m->ops->defer(m->ctx, &job->pub);
}

/* Nobody else waits for us, so the ring thread may take its time for this one. */
static void stay_with_job(struct job *job)
{
	struct ubdm_mapper *m = job->m;

	job->req.priv = job;
	if (sp_handle(m->img, &job->req, SP_MAY_COPY) == -EAGAIN)
		m->ops->defer(m->ctx, &job->pub);
	else
		alone_stayed(&m->alone, m->ring.turns);
}

/* Too much is uncommitted: as if somebody had flushed. */
static bool take_commit(struct ubdm_mapper *m)
{
	struct job *job;

	if (m->committing)
		return true;
	job = job_get(m);
	if (!job)
		return false;
	m->committing = true;
	job->req = (struct sp_req){
		.kind = SP_FLUSH,
		.tid = atomic_load(&m->max_tid),
	};
	try_job(job);
	return true;
}

static bool take_shutdown(struct ubdm_mapper *m)
{
	m->fetching = false;
	if (!m->shut_down) {
		m->shut_down = true;
		m->ops->shutdown(m->ctx);
	}
	return true;
}

/* Returns false if no job is free.  @more: others came with it. */
static bool take_fault(struct ubdm_mapper *m, const struct ubdm_fault *fault, bool more)
{
	struct job *job;
	bool alone;

	if (fault->kind == UBDM_FAULT_SHUTDOWN)
		return take_shutdown(m);
	if (fault->kind == UBDM_FAULT_COMMIT)
		return m->shut_down || take_commit(m);

	job = job_get(m);
	if (!job)
		return false;
	job->cookie = fault->cookie;
	alone = alone_came(&m->alone, more, m->ring.turns);
	if (m->shut_down)
		refuse(job, -EIO);
	else if (atomic_load(&m->leaving))
		put_off(job);
	else if (ubdm_decode_fault(&job->req, fault))
		refuse(job, -EOPNOTSUPP);
	else if (alone && m->ops->may_copy)
		stay_with_job(job);
	else
		try_job(job);
	return true;
}

static void fetch_arm(struct fetch *f)
{
	f->pos = 0;
	f->nr = 0;
	if (f->m->fetching)
		ubdm_ring_queue(&f->m->ring, &f->cmd);
}

static void fetch_go(struct fetch *f)
{
	while (f->pos < f->nr) {
		if (!take_fault(f->m, &f->faults[f->pos], f->nr > 1))
			return;
		f->pos++;
	}
	fetch_arm(f);
}

static void fetch_done(struct ubdm_cmd *cmd, int res)
{
	struct fetch *f = (struct fetch *)cmd;
	struct ubdm_mapper *m = f->m;

	if (res > FETCH_FAULTS)
		res = -EPROTO;
	if (res > 0) {
		f->nr = res;
		f->pos = 0;
		fetch_go(f);
	} else if (!m->fetching) {
		return;
	} else if (res == 0 || res == -EINTR || res == -EAGAIN ||
		   res == -ENOMEM) {
		fetch_arm(f);
	} else {
		ubdm_loop_gone(m, res == -ECANCELED ? -ESHUTDOWN : res);
	}
}

/* --- notes -------------------------------------------------------------- */

static struct note *note_get(struct ubdm_mapper *m)
{
	struct note *n;

	pthread_mutex_lock(&m->lock);
	n = m->free_notes;
	if (n)
		m->free_notes = n->next;
	else
		n = calloc(1, sizeof(*n));
	if (n) {
		n->m = m;
		n->token = 0;
		n->table = NULL;
		m->busy++;
	}
	pthread_mutex_unlock(&m->lock);
	return n;
}

static void note_put(struct note *n)
{
	struct ubdm_mapper *m = n->m;

	ubdm_table_put(&m->tables, n->table);
	pthread_mutex_lock(&m->lock);
	if (n->pooled) {
		n->next = m->free_notes;
		m->free_notes = n;
	} else {
		free(n);
	}
	if (!--m->busy)
		pthread_cond_broadcast(&m->idle);
	pthread_mutex_unlock(&m->lock);
}

static void note_done(struct ubdm_cmd *cmd, int res)
{
	struct note *n = (struct note *)cmd;
	struct ubdm_mapper *m = n->m;

	if (n->token) {
		sp_acked(m->img, n->token, res < 0 ? res : 0);
		m->ops->work(m->ctx);
	}
	if (is_end(res))
		ubdm_loop_gone(m, res);
	note_put(n);
}

static void note_send(struct note *n, int error)
{
	n->cmd.done = note_done;
	if (error)
		ubdm_ring_queue_local(&n->m->ring, &n->cmd, error);
	else
		ubdm_ring_queue(&n->m->ring, &n->cmd);
}

/*
 * What must not be lost and cannot be remembered: the mapper gives up, and
 * another one finds everything in the kernel.
 */
static void give_up(struct ubdm_mapper *m)
{
	atomic_store(&m->broken, -ENOMEM);
}

/* sp_ops.map: readahead; may be dropped. */
static void on_map(void *ctx, const struct sp_extent *ext, unsigned int nr)
{
	struct ubdm_mapper *m = mapper_of(ctx);
	struct note *n;

	if (!nr)
		return;
	n = note_get(m);
	if (!n)
		return;
	n->table = ubdm_table_get(&m->tables, nr);
	note_send(n, n->table ?
			     ubdm_encode_map(&n->cmd.msg, ext, nr, n->table) :
			     -ENOMEM);
}

static void on_invalidate(void *ctx, unsigned int store, uint64_t off,
			  uint64_t len, uint64_t token)
{
	struct ubdm_mapper *m = mapper_of(ctx);
	struct note *n = note_get(m);

	if (!n) {
		give_up(m);
		return;
	}
	n->token = token;
	note_send(n, ubdm_encode_invalidate(&n->cmd.msg, store, off, len));
}

static void on_commit(void *ctx, uint64_t tid)
{
	struct ubdm_mapper *m = mapper_of(ctx);
	struct note *n = note_get(m);

	if (!n) {
		give_up(m);
		return;
	}
	ubdm_encode_commit(&n->cmd.msg, tid);
	note_send(n, 0);
}

static void on_ahead(void *ctx)
{
	struct ubdm_mapper *m = mapper_of(ctx);

	if (m->ops->ahead)
		m->ops->ahead(m->ctx);
}

/*
 * sp_ops.take: a thread that may block, the job being its own.  A fault that is not
 * ours any more gives no data, and takes no answer either.
 */
static int on_take(void *ctx, const struct sp_req *req, void *buf, size_t len)
{
	struct ubdm_mapper *m = mapper_of(ctx);
	const struct job *job = req->priv;
	ssize_t n;

	if (job->walk || !job->cookie)
		return -ENOENT;
	n = pread(m->channel, buf, len, UBDM_FAULT_POS(job->cookie, 0));
	if (n < 0)
		return -errno;
	return (size_t)n == len ? 0 : -EIO;
}

const struct sp_ops ubdm_sp_ops = {
	.reply = on_reply,
	.map = on_map,
	.invalidate = on_invalidate,
	.commit = on_commit,
	.ahead = on_ahead,
	.take = on_take,
};

/* --- life --------------------------------------------------------------- */

void ubdm_loop_init(struct ubdm_mapper *m)
{
	for (int i = UBDM_MAX_JOBS - 1; i >= 0; i--) {
		m->jobs[i].m = m;
		m->jobs[i].pub.next = (struct ubdm_job *)m->free_jobs;
		m->free_jobs = &m->jobs[i];
	}
	for (int i = NR_NOTES - 1; i >= 0; i--) {
		m->notes[i].pooled = true;
		m->notes[i].next = m->free_notes;
		m->free_notes = &m->notes[i];
	}
	for (int i = 0; i < NR_FETCH; i++) {
		struct fetch *f = &m->fetches[i];

		f->m = m;
		f->cmd.done = fetch_done;
		f->cmd.patient = true;
		ubdm_encode_fetch(&f->cmd.msg, f->faults, FETCH_FAULTS);
	}
}

void ubdm_loop_arm(struct ubdm_mapper *m)
{
	m->fetching = true;
	for (int i = 0; i < NR_FETCH; i++)
		fetch_arm(&m->fetches[i]);
}

int ubdm_mapper_process(struct ubdm_mapper *m)
{
	int ret = ubdm_ring_run(&m->ring);

	if (ret) {
		pthread_mutex_lock(&m->lock);
		m->ring_error = ret;
		pthread_cond_broadcast(&m->idle);
		pthread_mutex_unlock(&m->lock);
	}
	if (!ret)
		ret = atomic_load(&m->broken);
	if (ret)
		ubdm_loop_gone(m, ret);
	return m->gone;
}
