// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * ring.c - commands to the channel and their results; see ring.h.
 *
 * The only file that knows liburing.
 */
#include <errno.h>
#include <poll.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <liburing.h>

#include "ring.h"

#define SQ_ENTRIES 256 /* a longer batch takes another turn */
#define CQ_ENTRIES 1024 /* beyond, the kernel keeps a list */
#define PATIENT_MAX 4 /* half of the FETCHes: the others are armed */

/**
 * ubdm_ring_kick - wake the ring thread
 * @ring: the ring
 *
 * Context: any thread.
 */
void ubdm_ring_kick(struct ubdm_ring *ring)
{
	uint64_t one = 1;
	ssize_t n;

	/* Full: it has rung.  Who watches for edges doesn't read it, but 2^64 is far. */
	do
		n = write(ring->eventfd, &one, sizeof(one));
	while (n < 0 && errno == EINTR);
}

static int restrict_ring(struct io_uring *uring)
{
	struct io_uring_restriction res[] = {
		{
			.opcode = IORING_RESTRICTION_SQE_OP,
			.sqe_op = IORING_OP_URING_CMD,
		},
		{
			.opcode = IORING_RESTRICTION_SQE_FLAGS_ALLOWED,
			.sqe_flags = IOSQE_FIXED_FILE,
		},
		{
			.opcode = IORING_RESTRICTION_SQE_FLAGS_REQUIRED,
			.sqe_flags = IOSQE_FIXED_FILE,
		},
	};

	/* liburing 2.3 declares the call for this and does not export it. */
	return io_uring_register(uring->ring_fd, IORING_REGISTER_RESTRICTIONS,
				 res, sizeof(res) / sizeof(res[0]));
}

static int set_up(struct ubdm_ring *ring, int channel)
{
	struct io_uring_params p = {
		.flags = IORING_SETUP_SQE128 | IORING_SETUP_CQSIZE |
			 IORING_SETUP_R_DISABLED | IORING_SETUP_SUBMIT_ALL |
			 IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_TASKRUN_FLAG,
		.cq_entries = CQ_ENTRIES,
	};
	int ret;

	ret = io_uring_queue_init_params(SQ_ENTRIES, ring->uring, &p);
	if (ret)
		return ret;
	ret = io_uring_register_files(ring->uring, &channel, 1);
	if (!ret)
		ret = io_uring_register_eventfd(ring->uring, ring->eventfd);
	if (!ret)
		ret = restrict_ring(ring->uring);
	if (!ret)
		ret = io_uring_register(ring->uring->ring_fd,
					IORING_REGISTER_ENABLE_RINGS, NULL, 0);
	if (ret)
		io_uring_queue_exit(ring->uring);
	return ret;
}

int ubdm_ring_init(struct ubdm_ring *ring, int channel)
{
	int ret;

	memset(ring, 0, sizeof(*ring));
	ring->tail = &ring->head;
	ring->queue_tail = &ring->queue;
	ring->thread = pthread_self();
	ring->uring = calloc(1, sizeof(*ring->uring));
	if (!ring->uring)
		return -ENOMEM;
	ring->eventfd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (ring->eventfd < 0) {
		ret = -errno;
		goto err_free;
	}
	ret = set_up(ring, channel);
	if (ret)
		goto err_eventfd;
	pthread_mutex_init(&ring->lock, NULL);
	return 0;

err_eventfd:
	close(ring->eventfd);
err_free:
	free(ring->uring);
	ring->uring = NULL;
	return ret;
}

void ubdm_ring_exit(struct ubdm_ring *ring)
{
	if (!ring->uring)
		return;
	io_uring_queue_exit(ring->uring);
	close(ring->eventfd);
	pthread_mutex_destroy(&ring->lock);
	free(ring->uring);
	ring->uring = NULL;
}

bool ubdm_ring_is_mine(const struct ubdm_ring *ring)
{
	return pthread_equal(ring->thread, pthread_self());
}

/* Returns whether the ring thread has to be told. */
static bool enqueue(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	bool was_empty;

	cmd->next = NULL;
	pthread_mutex_lock(&ring->lock);
	was_empty = !ring->queue;
	*ring->queue_tail = cmd;
	ring->queue_tail = &cmd->next;
	pthread_mutex_unlock(&ring->lock);
	return was_empty && !ubdm_ring_is_mine(ring);
}

bool ubdm_ring_queue_quietly(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	cmd->local = false;
	return enqueue(ring, cmd);
}

void ubdm_ring_queue(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	if (cmd->patient && ubdm_ring_is_mine(ring)) {
		cmd->local = false;
		cmd->next = ring->patient;
		ring->patient = cmd;
		ring->nr_patient++;
	} else if (ubdm_ring_queue_quietly(ring, cmd)) {
		ubdm_ring_kick(ring);
	}
}

void ubdm_ring_queue_local(struct ubdm_ring *ring, struct ubdm_cmd *cmd,
			   int res)
{
	cmd->local = true;
	cmd->res = res;
	if (enqueue(ring, cmd))
		ubdm_ring_kick(ring);
}

/* Takes over what other threads have queued. */
static void collect(struct ubdm_ring *ring)
{
	pthread_mutex_lock(&ring->lock);
	if (ring->queue) {
		*ring->tail = ring->queue;
		ring->tail = ring->queue_tail;
		ring->queue = NULL;
		ring->queue_tail = &ring->queue;
	}
	pthread_mutex_unlock(&ring->lock);
}

/*
 * A system call for these alone is made only where it has to be.  They go first:
 * START wants a FETCH that is armed.
 */
static void collect_patient(struct ubdm_ring *ring)
{
	struct ubdm_cmd *cmd;

	if (!ring->head && ring->nr_patient <= PATIENT_MAX)
		return;
	while ((cmd = ring->patient)) {
		ring->patient = cmd->next;
		cmd->next = ring->head;
		if (!ring->head)
			ring->tail = &cmd->next;
		ring->head = cmd;
	}
	ring->nr_patient = 0;
}

static bool prepare(struct ubdm_ring *ring, struct ubdm_cmd *cmd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring->uring);

	if (!sqe)
		return false;
	memset(sqe, 0, sizeof(*sqe));
	sqe->opcode = IORING_OP_URING_CMD;
	sqe->flags = IOSQE_FIXED_FILE;
	sqe->fd = 0;
	sqe->cmd_op = cmd->msg.op;
	memcpy(sqe->cmd, cmd->msg.body, UBDM_CMD_BODY);
	io_uring_sqe_set_data(sqe, cmd);
	return true;
}

static struct ubdm_cmd *pop(struct ubdm_ring *ring)
{
	struct ubdm_cmd *cmd = ring->head;

	ring->head = cmd->next;
	if (!ring->head)
		ring->tail = &ring->head;
	return cmd;
}

/*
 * Moves commands into the ring until it is full.  A local one waits until
 * those in front of it were sent at least, which keeps its turn.
 */
static int fill(struct ubdm_ring *ring)
{
	int n = 0;

	collect(ring);
	collect_patient(ring);
	while (ring->head) {
		struct ubdm_cmd *cmd = ring->head;

		if (cmd->local) {
			pop(ring);
			cmd->done(cmd, cmd->res);
		} else if (prepare(ring, cmd)) {
			pop(ring);
			ring->in_flight++;
		} else {
			break;
		}
		n++;
	}
	return n;
}

static int reap(struct ubdm_ring *ring)
{
	struct io_uring_cqe *cqe;
	int n = 0;

	while (!io_uring_peek_cqe(ring->uring, &cqe)) {
		struct ubdm_cmd *cmd = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(ring->uring, cqe);
		ring->in_flight--;
		cmd->done(cmd, res);
		n++;
	}
	return n;
}

/*
 * Work that comes in right after this look rings the bell: the kernel sets the
 * flag first.
 */
static bool must_enter(const struct ubdm_ring *ring)
{
	return io_uring_sq_ready(ring->uring) ||
	       IO_URING_READ_ONCE(*ring->uring->sq.kflags) &
		       (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW);
}

int ubdm_ring_turn(struct ubdm_ring *ring)
{
	int sent, ret;

	ring->turns++;
	sent = fill(ring);
	if (!must_enter(ring))
		return sent + reap(ring);
	ret = io_uring_submit_and_get_events(ring->uring);
	/* Reaping is the cure for EBUSY; the others may be better next time. */
	if (ret < 0 && ret != -EBUSY && ret != -EAGAIN && ret != -EINTR)
		return ret;
	return sent + reap(ring);
}

/*
 * The kernel rings the bell for what completes while it is submitted, too, which we
 * look for anyway.  Elsewhere it might read this flag before it is seen to have left
 * us work, and we would sleep.
 */
static void ring_bell(struct ubdm_ring *ring, bool on)
{
#ifdef __x86_64__
	io_uring_cq_eventfd_toggle(ring->uring, on);
	atomic_thread_fence(memory_order_seq_cst);
#else
	(void)ring;
	(void)on;
#endif
}

int ubdm_ring_run(struct ubdm_ring *ring)
{
	int ret;

	do {
		ring_bell(ring, false);
		do
			ret = ubdm_ring_turn(ring);
		while (ret > 0);
		ring_bell(ring, true);
	} while (!ret && (must_enter(ring) || io_uring_cq_ready(ring->uring)));
	return ret;
}

int ubdm_ring_wait(struct ubdm_ring *ring, int timeout_ms)
{
	struct pollfd p = { .fd = ring->eventfd, .events = POLLIN };
	uint64_t v;

	if (poll(&p, 1, timeout_ms) < 0 && errno != EINTR)
		return -errno;
	while (read(ring->eventfd, &v, sizeof(v)) < 0 && errno == EINTR)
		;
	return 0;
}
