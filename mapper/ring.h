/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * ring.h - commands to the channel and their results.
 *
 * Any thread may queue a command; one thread, the ring thread, alone talks to
 * io_uring.  The queue is a FIFO under a lock, so commands reach the kernel in
 * the order of ubdm_ring_queue(): that is what rule 1 of the durability
 * protocol asks for, without a system call under the image's lock and without
 * waiting for room in the ring (the results of earlier commands take the
 * image's lock, so waiting could deadlock).
 *
 * It also keeps completions prompt: the kernel runs them in the context of the
 * thread that submitted, and the ring thread never waits for a disk.
 */
#ifndef UBDM_RING_H
#define UBDM_RING_H

#include <pthread.h>
#include <stdbool.h>

#include "encode.h"

struct io_uring;

/**
 * struct ubdm_cmd - a command under way; embedded in what it belongs to
 * @next: the ring's, from ubdm_ring_queue() to @done
 * @done: its CQE's result, on the ring thread
 * @msg: what is sent
 * @res: see ubdm_ring_queue_local()
 * @local: dito
 * @patient: sent along with the next that is not, or when several of them wait
 */
struct ubdm_cmd {
	struct ubdm_cmd *next;
	void (*done)(struct ubdm_cmd *cmd, int res);
	struct ubdm_msg msg;
	int res;
	bool local;
	bool patient;
};

struct ubdm_ring {
	struct io_uring *uring; /* ring thread only, as what follows */
	pthread_t thread;
	int eventfd; /* the bell */
	struct ubdm_cmd *head, **tail; /* to be sent; ring thread's share */
	struct ubdm_cmd *patient; /* those that wait for company */
	unsigned int nr_patient;
	unsigned int in_flight;
	unsigned int turns; /* so far; what was queued in one is sent in the next */

	pthread_mutex_t lock; /* innermost */
	struct ubdm_cmd *queue, **queue_tail; /* under lock */
};

/**
 * ubdm_ring_init - a ring locked in on one channel
 * @ring: to fill
 * @channel: registered as the only file; need not stay open otherwise
 *
 * The calling thread becomes the ring thread.  The ring admits URING_CMD on
 * the channel and nothing else.
 */
int ubdm_ring_init(struct ubdm_ring *ring, int channel);
void ubdm_ring_exit(struct ubdm_ring *ring);

bool ubdm_ring_is_mine(const struct ubdm_ring *ring);

/**
 * ubdm_ring_queue - send a command; any thread
 * @ring: the ring
 * @cmd: the command; @cmd->msg and @cmd->done are set
 */
void ubdm_ring_queue(struct ubdm_ring *ring, struct ubdm_cmd *cmd);

/**
 * ubdm_ring_queue_quietly - as ubdm_ring_queue(), without waking the ring thread
 * @ring: the ring
 * @cmd: the command; @cmd->msg and @cmd->done are set
 *
 * For who holds a lock that the ring thread is going to want.
 *
 * Return: whether the caller must ubdm_ring_kick(), soon, and before it waits for
 * anything that the ring thread does.
 */
bool ubdm_ring_queue_quietly(struct ubdm_ring *ring, struct ubdm_cmd *cmd);
void ubdm_ring_kick(struct ubdm_ring *ring);

/**
 * ubdm_ring_queue_local - not sent: its done comes with @res, in its turn
 * @ring: the ring
 * @cmd: the command; @cmd->msg and @cmd->done are set
 * @res: what its done gets
 */
void ubdm_ring_queue_local(struct ubdm_ring *ring, struct ubdm_cmd *cmd,
			   int res);

/**
 * ubdm_ring_turn - send what is queued, deliver what is there; ring thread
 * @ring: the ring
 *
 * Return: how many commands were sent or delivered, or -errno.
 */
int ubdm_ring_turn(struct ubdm_ring *ring);

/**
 * ubdm_ring_run - turns, until there is nothing to do; ring thread
 * @ring: the ring
 *
 * What comes after that rings the bell.
 *
 * Return: 0, or -errno.
 */
int ubdm_ring_run(struct ubdm_ring *ring);

/**
 * ubdm_ring_wait - until there is reason for a run
 * @ring: the ring
 * @timeout_ms: negative: without end
 *
 * For now and then: an epoll that watches @ring->eventfd for edges (EPOLLET) is
 * cheaper, as nobody has to read it.
 *
 * Return: 0, or -errno.
 */
int ubdm_ring_wait(struct ubdm_ring *ring, int timeout_ms);

#endif /* UBDM_RING_H */
