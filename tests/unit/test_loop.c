// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_loop.c - the mapper between a fake ring and a fake image.
 *
 * Commands are recorded in the order in which they were queued, and completed
 * when a test says so.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cm.h"
#include "mapper.h"
#include "ring_fake.h"

/* --- fake ring ---------------------------------------------------------- */

static struct ubdm_cmd *sent[512];
static unsigned int nr_sent;

void ubdm_ring_queue(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	(void)ring;
	cmd->local = false;
	assert_in_range(nr_sent, 0, 511);
	sent[nr_sent++] = cmd;
}

int ubdm_ring_init(struct ubdm_ring *ring, int channel)
{
	(void)ring;
	(void)channel;
	return 0;
}

void ubdm_ring_exit(struct ubdm_ring *ring)
{
	(void)ring;
}

int ubdm_ring_turn(struct ubdm_ring *ring)
{
	(void)ring;
	return 0;
}

/* --- fake image --------------------------------------------------------- */

static struct ubdm_mapper m;
static enum sp_may needs;		/* what sp_handle() must be allowed */
static struct sp_reply answer;
static bool hold_answers;		/* sp_handle() takes and says nothing yet */
static struct sp_req taken[UBDM_MAX_JOBS];
static unsigned int nr_taken;
static struct { uint64_t token; int res; } acks[16];
static unsigned int nr_acks;

int sp_handle(struct sp_image *img, const struct sp_req *req, enum sp_may may)
{
	(void)img;
	if (may > needs)
		return -EAGAIN;
	taken[nr_taken++] = *req;
	if (!hold_answers)
		ubdm_sp_ops.reply(&m, req, &answer);
	return 0;
}

bool sp_acked(struct sp_image *img, uint64_t token, int res)
{
	(void)img;
	acks[nr_acks].token = token;
	acks[nr_acks++].res = res;
	return false;
}

int sp_open(struct sp_image **out, const struct sp_options *opt,
	    struct sp_err *err)
{
	(void)out;
	(void)opt;
	(void)err;
	return -EIO;
}

const struct sp_info *sp_info(const struct sp_image *img)
{
	(void)img;
	return NULL;
}

const struct sp_store *sp_store(const struct sp_image *img, unsigned int i)
{
	(void)img;
	(void)i;
	return NULL;
}

static unsigned int nr_ahead, busy_ahead;

bool sp_ahead(struct sp_image *img)
{
	(void)img;
	nr_ahead++;
	busy_ahead = m.busy;
	return true;
}

int sp_work(struct sp_image *img)
{
	(void)img;
	return -1;
}

int sp_relink(struct sp_image *img, const struct sp_extent *ext,
	      unsigned int nr, uint64_t max_tid, struct sp_err *err)
{
	(void)img;
	(void)ext;
	(void)nr;
	(void)max_tid;
	(void)err;
	return 0;
}

int sp_finish(struct sp_image *img, const struct sp_extent *ext,
	      unsigned int nr, struct sp_err *err)
{
	(void)img;
	(void)ext;
	(void)nr;
	(void)err;
	return 0;
}

void sp_close(struct sp_image *img)
{
	(void)img;
}

/* --- fake embedder ------------------------------------------------------ */

static struct ubdm_job *deferred[UBDM_MAX_JOBS + 1];
static unsigned int nr_deferred, nr_shutdowns, nr_works;
static int gone;

static void on_defer(void *ctx, struct ubdm_job *job)
{
	(void)ctx;
	deferred[nr_deferred++] = job;
}

static void on_work(void *ctx)
{
	(void)ctx;
	nr_works++;
}

static void on_shutdown(void *ctx)
{
	(void)ctx;
	nr_shutdowns++;
}

static void on_gone(void *ctx, int error)
{
	(void)ctx;
	assert_int_equal(gone, 0);
	gone = error;
}

static struct ubdm_mapper_ops ops = {
	.defer = on_defer,
	.work = on_work,
	.shutdown = on_shutdown,
	.gone = on_gone,
};

/* --- helpers ------------------------------------------------------------ */

static int set_up(void **state)
{
	(void)state;
	memset(&m, 0, sizeof(m));
	m.ops = &ops;
	pthread_mutex_init(&m.lock, NULL);
	pthread_cond_init(&m.idle, NULL);
	assert_int_equal(ubdm_tables_init(&m.tables), 0);
	ubdm_loop_init(&m);

	ops.may_copy = true;
	nr_sent = nr_taken = nr_acks = nr_deferred = nr_shutdowns = nr_works = 0;
	gone = 0;
	hold_answers = false;
	needs = SP_MAY_NOTHING;
	answer = (struct sp_reply){ .action = SP_REDRIVE };
	ubdm_loop_arm(&m);
	assert_int_equal(nr_sent, NR_FETCH);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	ubdm_tables_exit(&m.tables);
	return 0;
}

/* The ring forgets what was sent so far and completes one. */
static void complete(struct ubdm_cmd *cmd, int res)
{
	cmd->done(cmd, cmd->local ? cmd->res : res);
}

/* Delivers @nr faults through the @i-th FETCH. */
static void deliver(int i, const struct ubdm_fault *f, int nr)
{
	memcpy(m.fetches[i].faults, f, nr * sizeof(*f));
	nr_sent = 0;
	complete(&m.fetches[i].cmd, nr);
}

static struct ubdm_fault fault_of(uint8_t kind, uint64_t cookie)
{
	return (struct ubdm_fault){ .kind = kind, .cookie = cookie, .lba = 8,
				    .len = 8, .want_lba = 8, .want_len = 8 };
}

static const struct ubdm_resolve *resolve_at(unsigned int i)
{
	assert_true(i < nr_sent);
	assert_int_equal(sent[i]->msg.op, UBDM_CMD_RESOLVE);
	return (const struct ubdm_resolve *)sent[i]->msg.body;
}

static void send_fault(uint8_t kind)
{
	struct ubdm_fault f = fault_of(kind, 0x100000005ULL);

	deliver(0, &f, 1);
}

/* --- tests -------------------------------------------------------------- */

static void answer_and_next_fetch_go_together(void **state)
{
	(void)state;
	send_fault(UBDM_FAULT_READ);
	assert_int_equal(nr_sent, 2);
	assert_int_equal(resolve_at(0)->cookie, 0x100000005ULL);
	assert_int_equal(sent[1]->msg.op, UBDM_CMD_FETCH);
	assert_int_equal(m.busy, 1);
	complete(sent[0], 0);
	assert_int_equal(m.busy, 0);
}

static void what_would_block_is_deferred(void **state)
{
	(void)state;
	needs = SP_MAY_WAIT;
	send_fault(UBDM_FAULT_WRITE);
	assert_int_equal(nr_deferred, 1);
	assert_int_equal(nr_sent, 1);	/* the FETCH */
	ubdm_job_run(deferred[0]);
	assert_int_equal(nr_sent, 2);
	assert_int_equal(resolve_at(1)->cookie, 0x100000005ULL);
}

/* Reads that come one after the other, each after the last one's answer. */
static void come_alone(unsigned int n)
{
	needs = SP_MAY_NOTHING;
	while (n--) {
		m.ring.turns += 2;
		send_fault(UBDM_FAULT_READ);
		complete(sent[0], 0);
	}
}

/* A write that has to be copied for comes; is it left to another thread? */
static bool copy_is_deferred(void)
{
	unsigned int before = nr_deferred;

	needs = SP_MAY_COPY;
	send_fault(UBDM_FAULT_WRITE);
	return nr_deferred > before;
}

static void who_came_alone_for_long_is_copied_for_at_once(void **state)
{
	(void)state;
	come_alone(ALONE_ROW);
	m.ring.turns++;
	assert_false(copy_is_deferred());
	assert_int_equal(resolve_at(0)->cookie, 0x100000005ULL);
}

static void who_came_alone_for_less_is_not(void **state)
{
	(void)state;
	come_alone(ALONE_ROW - 1);
	m.ring.turns++;
	assert_true(copy_is_deferred());
}

static void nothing_is_copied_at_once_unless_the_embedder_says_so(void **state)
{
	(void)state;
	ops.may_copy = false;
	come_alone(ALONE_ROW);
	m.ring.turns++;
	assert_true(copy_is_deferred());
}

static void what_waits_for_others_is_deferred_also_alone(void **state)
{
	(void)state;
	come_alone(ALONE_ROW);
	m.ring.turns++;
	needs = SP_MAY_WAIT;
	send_fault(UBDM_FAULT_WRITE);
	assert_int_equal(nr_deferred, 1);
}

static void two_that_come_together_are_not_alone(void **state)
{
	struct ubdm_fault f[2];

	(void)state;
	f[0] = fault_of(UBDM_FAULT_WRITE, 1);
	f[1] = fault_of(UBDM_FAULT_WRITE, 2);
	come_alone(ALONE_ROW);
	m.ring.turns++;
	needs = SP_MAY_COPY;
	deliver(0, f, 2);
	assert_int_equal(nr_deferred, 2);
}

static void who_comes_while_another_is_served_is_not_alone(void **state)
{
	(void)state;
	come_alone(ALONE_ROW);
	m.ring.turns++;
	needs = SP_MAY_WAIT;
	send_fault(UBDM_FAULT_WRITE);
	m.ring.turns++;
	assert_true(copy_is_deferred());
}

/*
 *	ring thread               writers
 *	copies for A              B's request comes
 *	sends A's answer, and
 *	finds B's                 B has waited for A's copy: never again, soon
 */
static void who_waited_for_a_copy_ends_the_row(void **state)
{
	struct ubdm_cmd *first;

	(void)state;
	come_alone(ALONE_ROW);
	m.ring.turns++;
	assert_false(copy_is_deferred());
	first = sent[0];
	m.ring.turns++;
	complete(first, 0);
	assert_true(copy_is_deferred());
	ubdm_job_run(deferred[0]);
	complete(sent[nr_sent - 1], 0);
	come_alone(ALONE_ROW - 1);
	m.ring.turns += 2;
	assert_true(copy_is_deferred());
}

static void who_comes_after_the_answer_has_not_waited(void **state)
{
	(void)state;
	come_alone(ALONE_ROW);
	for (int i = 0; i < 3; i++) {
		m.ring.turns++;
		assert_false(copy_is_deferred());
		m.ring.turns++;
		complete(sent[0], 0);
	}
}

static void token_is_acknowledged_with_the_result(void **state)
{
	(void)state;
	answer.token = 42;
	send_fault(UBDM_FAULT_WRITE);
	assert_int_equal(nr_acks, 0);
	complete(sent[0], 0);
	assert_int_equal(nr_acks, 1);
	assert_int_equal(acks[0].token, 42);
	assert_int_equal(acks[0].res, 0);
}

static void fault_taken_back_is_acknowledged_and_let_go(void **state)
{
	(void)state;
	answer.token = 42;
	send_fault(UBDM_FAULT_WRITE);
	complete(sent[0], -ENOENT);
	assert_int_equal(acks[0].res, -ENOENT);
	assert_int_equal(nr_sent, 2);
	assert_int_equal(m.busy, 0);
}

static void refused_answer_becomes_eio(void **state)
{
	(void)state;
	answer.token = 42;
	send_fault(UBDM_FAULT_READ);
	complete(sent[0], -EINVAL);
	assert_int_equal(nr_acks, 1);
	assert_int_equal(acks[0].res, -EINVAL);
	assert_int_equal(nr_sent, 3);
	assert_int_equal(resolve_at(2)->action, UBDM_RESOLVE_ERROR);
	assert_int_equal(resolve_at(2)->error, -EIO);
	assert_int_equal(resolve_at(2)->cookie, 0x100000005ULL);
	assert_int_equal(m.busy, 1);
	complete(sent[2], -ENOENT);
	assert_int_equal(nr_acks, 1);
	assert_int_equal(m.busy, 0);
}

static void short_memory_holds_the_fault(void **state)
{
	(void)state;
	send_fault(UBDM_FAULT_WRITE);
	complete(sent[0], -ENOMEM);
	assert_int_equal(resolve_at(2)->action, UBDM_RESOLVE_HOLD);
	assert_true(resolve_at(2)->done > 0);
	assert_true(nr_works > 0);

	/* Not even that: nobody else would answer, so it is sent until it is taken. */
	complete(sent[2], -ENOMEM);
	assert_int_equal(nr_sent, 4);
	assert_int_equal(resolve_at(3)->action, UBDM_RESOLVE_HOLD);
	assert_int_equal(m.busy, 1);
	complete(sent[3], 0);
	assert_int_equal(m.busy, 0);
}

/*
 * What changes part of a cluster and finds no space waits, and with it would who reads
 * another part that was never mapped.
 *
 * Fails with SP_WRITE alone in may_hold_readers(): zeros and discards have nothing mapped.
 */
static void who_finds_no_space_does_not_hold_readers(void **state)
{
	static const uint8_t kinds[] = {
		UBDM_FAULT_WRITE, UBDM_FAULT_ZEROES, UBDM_FAULT_DISCARD, UBDM_FAULT_READ,
	};
	static const struct sp_extent e = { .lba = 0, .len = 128, .type = SP_LINEAR,
					    .store = 1, .perm = SP_PERM_R };

	(void)state;
	for (unsigned int i = 0; i < 4; i++) {
		nr_taken = 0;
		answer = (struct sp_reply){ .action = SP_HOLD, .space = true, .done = 1000 };
		send_fault(kinds[i]);
		assert_int_equal(resolve_at(0)->action, UBDM_RESOLVE_HOLD);
		assert_true(resolve_at(0)->flags & UBDM_RESOLVE_F_SPACE);
		assert_int_equal(nr_taken, 1);
		answer = (struct sp_reply){ .action = SP_REDRIVE, .nr_ext = 1, .ext = &e };
		nr_sent = 1;
		complete(sent[0], 0);
		if (kinds[i] == UBDM_FAULT_READ) {
			assert_int_equal(nr_sent, 1);
		} else {
			assert_int_equal(nr_taken, 2);
			assert_int_equal(taken[1].kind, SP_READ);
			assert_int_equal(taken[1].lba, taken[0].lba);
			assert_int_equal(nr_sent, 3);
			assert_int_equal(sent[1]->msg.op, UBDM_CMD_MAP);
			complete(sent[1], 0);
			complete(sent[2], 0);
		}
		assert_int_equal(m.busy, 0);
	}
	/* What waits for something else than space maps nothing. */
	answer = (struct sp_reply){ .action = SP_HOLD, .done = 1000 };
	send_fault(UBDM_FAULT_ZEROES);
	nr_sent = 1;
	complete(sent[0], 0);
	assert_int_equal(nr_sent, 1);
	assert_int_equal(m.busy, 0);
}

static void bad_answer_of_the_slowpath_is_eio_too(void **state)
{
	struct sp_extent e = { .lba = 0, .len = 0, .type = SP_LINEAR };

	(void)state;
	answer.nr_ext = 1;
	answer.ext = &e;
	answer.token = 7;
	send_fault(UBDM_FAULT_READ);
	assert_true(sent[0]->local);
	complete(sent[0], 0);
	assert_int_equal(acks[0].res, -EINVAL);
	assert_int_equal(resolve_at(2)->action, UBDM_RESOLVE_ERROR);
}

static void faults_wait_in_their_fetch_for_a_job(void **state)
{
	struct ubdm_fault f[FETCH_FAULTS];
	struct ubdm_cmd *first = NULL;
	int n = 0;

	(void)state;
	for (int i = 0; i < FETCH_FAULTS; i++)
		f[i] = fault_of(UBDM_FAULT_READ, 100 + i);
	/* 12 times 16 faults use all 192 jobs, the 13th gets none. */
	for (int i = 0; i < UBDM_MAX_JOBS / FETCH_FAULTS; i++) {
		deliver(i % NR_FETCH, f, FETCH_FAULTS);
		assert_int_equal(nr_sent, FETCH_FAULTS + 1);
		first = sent[0];
		n += FETCH_FAULTS;
	}
	assert_int_equal(n, UBDM_MAX_JOBS);
	assert_int_equal(m.busy, UBDM_MAX_JOBS);
	nr_taken = 0;
	deliver(0, f, 2);
	assert_int_equal(nr_taken, 0);
	assert_int_equal(nr_sent, 0);	/* not armed again either */

	complete(first, 0);
	assert_int_equal(nr_taken, 1);
	assert_int_equal(nr_sent, 1);
	assert_int_equal(resolve_at(0)->cookie, 100);
	complete(sent[0], 0);
	assert_int_equal(nr_sent, 3);
	assert_int_equal(resolve_at(1)->cookie, 101);
	assert_ptr_equal(sent[2], &m.fetches[0].cmd);
}

static void shutdown_comes_once_and_ends_fetching(void **state)
{
	struct ubdm_fault f[2] = { fault_of(UBDM_FAULT_SHUTDOWN, 0),
				   fault_of(UBDM_FAULT_READ, 6) };

	(void)state;
	deliver(0, f, 2);
	assert_int_equal(nr_shutdowns, 1);
	assert_int_equal(nr_taken, 0);
	assert_int_equal(nr_sent, 1);
	assert_int_equal(resolve_at(0)->action, UBDM_RESOLVE_ERROR);
	deliver(1, f, 1);
	assert_int_equal(nr_shutdowns, 1);
	assert_int_equal(nr_sent, 0);
	complete(&m.fetches[2].cmd, -ECANCELED);
	assert_int_equal(gone, 0);
}

static void commit_fault_is_a_flush_nobody_waits_for(void **state)
{
	struct sp_extent e = { .lba = 8, .len = 8, .tid = 9, .type = SP_ZERO,
			       .perm = SP_PERM_R };
	struct ubdm_fault f = fault_of(UBDM_FAULT_COMMIT, 0);

	(void)state;
	answer.nr_ext = 1;
	answer.ext = &e;
	send_fault(UBDM_FAULT_ZEROES);
	complete(sent[0], 0);
	answer = (struct sp_reply){ .action = SP_DONE };
	nr_taken = 0;
	deliver(0, &f, 1);
	assert_int_equal(nr_taken, 1);
	assert_int_equal(taken[0].kind, SP_FLUSH);
	assert_int_equal(taken[0].tid, 9);
	assert_int_equal(nr_sent, 2);
	assert_true(sent[0]->local);

	/* Another while it runs asks for nothing new. */
	deliver(1, &f, 1);
	assert_int_equal(nr_taken, 1);
	complete((struct ubdm_cmd *)&m.jobs[0].cmd, 0);
	assert_int_equal(m.busy, 0);
	deliver(2, &f, 1);
	assert_int_equal(nr_taken, 2);
}

static void unknown_fault_is_refused(void **state)
{
	(void)state;
	send_fault(99);
	assert_int_equal(nr_taken, 0);
	assert_int_equal(resolve_at(0)->error, -EOPNOTSUPP);
}

static void callbacks_keep_their_order(void **state)
{
	struct sp_extent e = { .lba = 8, .len = 8, .type = SP_ZERO,
			       .perm = SP_PERM_R };

	(void)state;
	nr_sent = 0;
	ubdm_sp_ops.map(&m, &e, 1);
	ubdm_sp_ops.invalidate(&m, 0, 64, 8, 11);
	ubdm_sp_ops.commit(&m, 5);
	assert_int_equal(nr_sent, 3);
	assert_int_equal(sent[0]->msg.op, UBDM_CMD_MAP);
	assert_int_equal(sent[1]->msg.op, UBDM_CMD_INVALIDATE);
	assert_int_equal(sent[2]->msg.op, UBDM_CMD_COMMIT);
	assert_int_equal(m.busy, 3);
	complete(sent[0], -ENOMEM);	/* readahead: nobody minds */
	complete(sent[1], -EBUSY);
	complete(sent[2], 0);
	assert_int_equal(nr_acks, 1);
	assert_int_equal(acks[0].token, 11);
	assert_int_equal(acks[0].res, -EBUSY);
	assert_int_equal(m.busy, 0);
}

/* A file stands for the channel: what is at the fault's position is its data. */
static void data_of_a_write_is_taken_by_its_cookie(void **state)
{
	struct ubdm_fault f = fault_of(UBDM_FAULT_WRITE, 9);
	FILE *file = tmpfile();
	char buf[8] = "";

	(void)state;
	assert_non_null(file);
	m.channel = fileno(file);
	assert_int_equal(pwrite(m.channel, "written", 8, UBDM_FAULT_POS(9, 0)), 8);
	hold_answers = true;
	deliver(0, &f, 1);
	assert_int_equal(ubdm_sp_ops.take(&m, &taken[0], buf, 8), 0);
	assert_string_equal(buf, "written");
	/* Less than there should be, and nobody's. */
	assert_int_equal(ubdm_sp_ops.take(&m, &taken[0], buf, 9), -EIO);
	((struct job *)taken[0].priv)->cookie = 0;
	assert_int_equal(ubdm_sp_ops.take(&m, &taken[0], buf, 8), -ENOENT);
	((struct job *)taken[0].priv)->cookie = 9;
	ubdm_sp_ops.reply(&m, &taken[0], &answer);
	complete(sent[nr_sent - 1], 0);
	fclose(file);
}

static void more_notes_than_are_pooled_are_sent(void **state)
{
	(void)state;
	nr_sent = 0;
	for (int i = 0; i < NR_NOTES + 20; i++)
		ubdm_sp_ops.commit(&m, i + 1);
	assert_int_equal(nr_sent, NR_NOTES + 20);
	for (unsigned int i = 0; i < nr_sent; i++)
		complete(sent[i], 0);
	assert_int_equal(m.busy, 0);
}

static void the_end_waits_for_who_reads_ahead(void **state)
{
	(void)state;
	nr_ahead = 0;
	assert_true(ubdm_mapper_ahead(&m));
	assert_int_equal(busy_ahead, 1);
	assert_int_equal(m.busy, 0);
	ubdm_mapper_quiet(&m);
	assert_false(ubdm_mapper_ahead(&m));
	assert_int_equal(nr_ahead, 1);
}

static void taken_over_is_told_once(void **state)
{
	struct ubdm_fault f[2] = { fault_of(UBDM_FAULT_READ, 6),
				   fault_of(UBDM_FAULT_READ, 7) };

	(void)state;
	answer.token = 3;
	deliver(0, f, 2);
	complete(sent[0], -ESTALE);
	assert_int_equal(gone, -ESTALE);
	complete(sent[1], -ESTALE);
	complete(&m.fetches[1].cmd, -ECANCELED);
	complete(&m.fetches[2].cmd, -ESTALE);
	assert_int_equal(nr_acks, 2);
	assert_int_equal(m.busy, 0);
	assert_int_equal(nr_sent, 3);	/* nothing since */
}

static void cancelled_fetch_is_the_end(void **state)
{
	(void)state;
	complete(&m.fetches[0].cmd, -ECANCELED);
	assert_int_equal(gone, -ESHUTDOWN);
}

static void interrupted_fetch_is_armed_again(void **state)
{
	(void)state;
	nr_sent = 0;
	complete(&m.fetches[3].cmd, -EINTR);
	assert_int_equal(nr_sent, 1);
	assert_ptr_equal(sent[0], &m.fetches[3].cmd);
	assert_int_equal(gone, 0);
}

#define T(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(answer_and_next_fetch_go_together),
		T(what_would_block_is_deferred),
		T(who_came_alone_for_long_is_copied_for_at_once),
		T(who_came_alone_for_less_is_not),
		T(nothing_is_copied_at_once_unless_the_embedder_says_so),
		T(what_waits_for_others_is_deferred_also_alone),
		T(two_that_come_together_are_not_alone),
		T(who_comes_while_another_is_served_is_not_alone),
		T(who_waited_for_a_copy_ends_the_row),
		T(who_comes_after_the_answer_has_not_waited),
		T(token_is_acknowledged_with_the_result),
		T(fault_taken_back_is_acknowledged_and_let_go),
		T(refused_answer_becomes_eio),
		T(short_memory_holds_the_fault),
		T(who_finds_no_space_does_not_hold_readers),
		T(bad_answer_of_the_slowpath_is_eio_too),
		T(faults_wait_in_their_fetch_for_a_job),
		T(shutdown_comes_once_and_ends_fetching),
		T(commit_fault_is_a_flush_nobody_waits_for),
		T(unknown_fault_is_refused),
		T(callbacks_keep_their_order),
		T(data_of_a_write_is_taken_by_its_cookie),
		T(more_notes_than_are_pooled_are_sent),
		T(the_end_waits_for_who_reads_ahead),
		T(taken_over_is_told_once),
		T(cancelled_fetch_is_the_end),
		T(interrupted_fetch_is_armed_again),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
