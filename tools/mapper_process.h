/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mapper_process.h - the process that serves one device: what its files share.
 */
#ifndef UBDMAP_MAPPER_PROCESS_H
#define UBDMAP_MAPPER_PROCESS_H

#include <pthread.h>

#include "options.h"
#include "workers.h"

#define MAPPER_NAME "ubdmap-mapper" /* as ps shows it */

/* What the background thread is to end with. */
enum mapper_end {
	END_NONE,
	END_FINISH, /* the device is being deleted */
	END_LEAVE, /* another mapper wants to take over */
	END_DETACH, /* the device is to go on without a mapper */
};

/**
 * struct predecessor - the mapper that a keeper replaces
 * @pid: 0: there was none
 * @how: it ended, as from waitpid()
 * @patience_ms: leave the device that long to whoever wants to take it over
 * @died_ms: when the keeper saw its end, CLOCK_MONOTONIC
 */
struct predecessor {
	pid_t pid;
	int how;
	int patience_ms;
	int64_t died_ms;
};

struct mapper_process {
	struct serve_options opt;
	struct predecessor after;
	int keeper_fd; /* to tell it that we serve, or -1 */
	struct ubdm_mapper *m;
	struct workers workers;
	pthread_t back;
	bool have_back;
	int channel, signals, done; /* fds; done: back has finished */
	int epoll; /* of these, and of the mapper's */
	unsigned int watched; /* what is in it already */
	uint32_t index;
	uint64_t disk; /* device_disk(), once there is one */

	pthread_mutex_t lock;
	pthread_cond_t wake;
	bool work; /* under lock */
	enum mapper_end end; /* wanted; under lock */
	enum mapper_end came_to; /* back is at it, or was last; under lock */

	bool ready; /* main only, as the next */
	uint64_t pause_ms; /* a miss was seen to wait so long before we attached */
	unsigned int withdraw; /* tries left to delete the device */
	bool unwanted; /* it is to be deleted as soon as nobody uses it */
	bool told_in_use;
	int gone;
	bool leaving; /* asked to */
	bool detached; /* the device needs us no more */
	int result; /* of finish; main, once done is readable */
	struct ubdm_err err; /* dito */
};

/* mapper_daemon.c */
extern const struct ubdm_mapper_ops mapper_ops;

/**
 * mapper_turn - wait for something to do, at most @ms, and do it
 *
 * Return: true when the image is finished.
 */
bool mapper_turn(struct mapper_process *p, int ms);
int mapper_start_back(struct mapper_process *p);
/* Returns 0 or -errno, with p->err. */
int mapper_detach(struct mapper_process *p);

/* mapper_start.c: a device, until it is ready; these return exit statuses */
int mapper_begin_new(struct mapper_process *p);
int mapper_begin_attach(struct mapper_process *p);
int mapper_begin_next(struct mapper_process *p);

/* mapper_tell.c: to whoever started us, who prints it; or it is us */
void tell_log(const struct mapper_process *p, int level, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));
void tell_warning(const struct mapper_process *p, const char *text);
void tell_stays(const struct mapper_process *p, int status, const char *text);
int tell_failure(const struct mapper_process *p, int status, const char *fmt,
		 ...) __attribute__((format(printf, 3, 4)));
void tell_ready(struct mapper_process *p);
void tell_succession(const struct mapper_process *p);

#endif /* UBDMAP_MAPPER_PROCESS_H */
