// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_room.c - whom an upgrade kills: the mapper that serves a device is asked to make
 * room, and killed if it does not; so is one that comes meanwhile, but not one whose
 * device is being deleted.
 *
 * That mapper is a process that is told nothing and does nothing.  What the driver says
 * of the device is ours, by the time that was waited, which does not pass.
 */
#include "util.h"
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include "keeper.h"
#include "mapper_process.h"
#include "cm.h"

#define LONG_MS		8000		/* more than it has to make room */

const struct ubdm_mapper_ops mapper_ops;

static pid_t mapper;
static int now;				/* ms */
static int dying_from, dying_till;	/* the device is being deleted then */
static bool gone_after;			/* and its mapper has gone afterwards */
static int died_at;			/* -1: it lives */
static bool attached;
static pid_t rival;			/* attaches before us, once; 0: nobody */
static int answered_at;			/* the miss that waits from the start; -1: not yet */
static uint64_t pause_ms;		/* what was seen of it */

/* ---- the driver, and time ---- */

int __wrap_open(const char *path, int flags, ...);
int __real_open(const char *path, int flags, ...);
int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms);
int __wrap_ubdm_ctl_open(struct ubdm_ctl **ctl);
int __wrap_ubdm_ctl_get(struct ubdm_ctl *ctl, uint32_t index, struct ubdm_device *dev);
int __wrap_ubdm_ctl_attach(struct ubdm_ctl *ctl, int channel, uint32_t index,
			   struct ubdm_device *dev);
int __wrap_ubdm_ctl_stats(struct ubdm_ctl *ctl, uint32_t index, struct ubdm_stats *s);
const char *__wrap_ubdm_ctl_reason(const struct ubdm_ctl *ctl);
void __wrap_ubdm_ctl_close(struct ubdm_ctl *ctl);

int __wrap_open(const char *path, int flags, ...)
{
	return __real_open(strcmp(path, UBDM_CHANNEL_PATH) ? path : "/dev/null", flags, 0);
}

int __wrap_poll(struct pollfd *fds, nfds_t nr, int ms)
{
	assert_true(!fds && !nr);
	now += ms;
	return 0;
}

int __wrap_ubdm_ctl_open(struct ubdm_ctl **ctl)
{
	*ctl = NULL;
	return 0;
}

const char *__wrap_ubdm_ctl_reason(const struct ubdm_ctl *ctl)
{
	(void)ctl;
	return "";
}

void __wrap_ubdm_ctl_close(struct ubdm_ctl *ctl)
{
	(void)ctl;
}

static bool lives(void)
{
	siginfo_t info = { .si_pid = 0 };

	/* A signal that was sent to it has its time. */
	if (died_at < 0 && !(now % 1000))
		usleep(10000);
	if (died_at < 0 && !waitid(P_PID, mapper, &info, WEXITED | WNOHANG | WNOWAIT) &&
	    info.si_pid)
		died_at = now;
	return died_at < 0;
}

int __wrap_ubdm_ctl_get(struct ubdm_ctl *ctl, uint32_t index, struct ubdm_device *dev)
{
	bool is_gone = !lives() || (gone_after && now >= dying_till);

	(void)ctl;
	*dev = (struct ubdm_device){ .index = index, .state = UBDM_STATE_ORPHANED };
	if (is_gone)
		return 0;
	dev->mapper_pid = mapper;
	dev->state = now >= dying_from && now < dying_till ? UBDM_STATE_DYING : UBDM_STATE_LIVE;
	return 0;
}

int __wrap_ubdm_ctl_attach(struct ubdm_ctl *ctl, int channel, uint32_t index,
			   struct ubdm_device *dev)
{
	(void)ctl; (void)index; (void)dev;
	answered_at = now;
	if (rival) {
		mapper = rival;
		rival = 0;
		died_at = -1;
		return -EBUSY;
	}
	attached = true;
	close(channel);
	return -ENOMEM;			/* that is enough */
}

/* The longest is that of the latest mapper's time, as in the driver. */
int __wrap_ubdm_ctl_stats(struct ubdm_ctl *ctl, uint32_t index, struct ubdm_stats *s)
{
	(void)ctl; (void)index;
	*s = (struct ubdm_stats){ .v = { [UBDM_S_WAITING_MS] = answered_at < 0 ? now : 0 } };
	return 0;
}

/* ---- the rest of the program ---- */

int device_index(const char *name, uint32_t *index)
{
	(void)name;
	*index = 0;
	return 0;
}

uint64_t device_disk(uint32_t index)
{
	(void)index;
	return 1;
}

void stay_in_memory(void)
{
}

bool device_node_ready(uint32_t index)
{
	(void)index;
	return true;
}

int exit_status_of(int error)
{
	(void)error;
	return EXIT_FAIL;
}

const char *driver_missing(void)
{
	return "";
}

int tell_failure(const struct mapper_process *p, int status, const char *fmt, ...)
{
	(void)p; (void)fmt;
	return status;
}

void tell_warning(const struct mapper_process *p, const char *text)
{
	(void)p; (void)text;
}

void tell_stays(const struct mapper_process *p, int status, const char *text)
{
	(void)p; (void)status; (void)text;
}

void keep_tell_ready(struct mapper_process *p)
{
	(void)p;
}

bool mapper_turn(struct mapper_process *p, int ms)
{
	(void)p; (void)ms;
	return false;
}

int mapper_start_back(struct mapper_process *p)
{
	(void)p;
	return 0;
}

int mapper_detach(struct mapper_process *p)
{
	(void)p;
	return 0;
}

/* ---- tests ---- */

/* Asked to make room it does, or not. */
static pid_t make_mapper(bool willing)
{
	int up[2];
	pid_t pid;
	char c;

	assert_int_equal(pipe(up), 0);
	pid = fork();
	if (!pid) {
		signal(SIGUSR1, willing ? SIG_DFL : SIG_IGN);
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_NAME, MAPPER_NAME);
		if (write(up[1], "", 1) == 1)
			pause();
		_exit(0);
	}
	assert_int_equal(read(up[0], &c, 1), 1);
	close(up[0]);
	close(up[1]);
	return pid;
}

static void upgrade(int from, int till, bool gone)
{
	struct mapper_process p = { .opt = { .attach = "ubdmap0", .take_over = true } };
	pid_t first, other = rival;

	dying_from = from;
	dying_till = till;
	gone_after = gone;
	now = 0;
	died_at = -1;
	attached = false;
	answered_at = -1;
	first = mapper = make_mapper(false);
	mapper_begin_attach(&p);
	pause_ms = p.pause_ms;
	kill(first, SIGKILL);
	waitpid(first, NULL, 0);
	if (!other)
		return;
	kill(other, SIGKILL);
	waitpid(other, NULL, 0);
}

static void one_that_makes_no_room_is_killed(void **state)
{
	(void)state;
	upgrade(0, 0, false);
	assert_in_range(died_at, 5000, 20000);
	assert_true(attached);
}

static void one_that_completes_its_image_is_not(void **state)
{
	(void)state;
	upgrade(10, LONG_MS, true);
	assert_int_equal(died_at, -1);
	assert_true(attached);
}

/* The deletion was called off: it has had no time yet. */
static void one_that_goes_on_serving_has_all_its_time(void **state)
{
	(void)state;
	upgrade(10, LONG_MS, false);
	assert_in_range(died_at, LONG_MS + 4900, 29000);
	assert_true(attached);
}

/* The keeper of the one that was killed has started another, which was faster than we. */
static void one_that_came_in_between_is_asked_as_well(void **state)
{
	(void)state;
	rival = make_mapper(true);
	upgrade(0, 0, false);
	assert_in_range(died_at, 5000, 9000);
	assert_true(attached);
	/* It has answered what waited; and that had waited for somebody to be killed. */
	assert_in_range(pause_ms, 4900, 6000);
}

static void and_killed_if_it_makes_no_room_either(void **state)
{
	(void)state;
	rival = make_mapper(false);
	upgrade(0, 0, false);
	assert_in_range(died_at, 10000, 20000);
	assert_true(attached);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(one_that_makes_no_room_is_killed),
		cmocka_unit_test(one_that_completes_its_image_is_not),
		cmocka_unit_test(one_that_goes_on_serving_has_all_its_time),
		cmocka_unit_test(one_that_came_in_between_is_asked_as_well),
		cmocka_unit_test(and_killed_if_it_makes_no_room_either),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
