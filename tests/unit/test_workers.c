// SPDX-License-Identifier: GPL-2.0-only
/*
 * test_workers.c - the mapper's threads: every job is done once, whatever else they
 * are at, and they end when they are told to.
 *
 * The threads are real, the jobs are ours.  Who waits for ever ends the program.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "cm.h"
#include "workers.h"

#define HANGS_S		60
#define NR_THREADS	4
#define get(x)		__atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define set(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELEASE)
#define add(x, n)	__atomic_add_fetch(&(x), n, __ATOMIC_ACQ_REL)

#define until(c) \
	do { \
		while (!(c)) \
			usleep(200); \
	} while (0)

static struct workers w;

/* ---- jobs ---- */

struct item {
	struct ubdm_job job;
	void (*run)(struct item *i);	/* NULL: nothing more is to be done */
	unsigned int runs, nth;		/* how often, and at last as the n-th of all */
};

static struct item items[3000];
static unsigned int nr_run, inside, most_inside;
static bool shut;			/* the gate that some jobs and steps wait at */

static void note_most(unsigned int *most, unsigned int now)
{
	unsigned int was = get(*most);

	while (now > was && !__atomic_compare_exchange_n(most, &was, now, false,
							 __ATOMIC_ACQ_REL, __ATOMIC_ACQUIRE))
		;
}

void ubdm_job_run(struct ubdm_job *job)
{
	struct item *i = (struct item *)job;

	note_most(&most_inside, add(inside, 1));
	if (i->run)
		i->run(i);
	add(inside, -1);
	add(i->runs, 1);
	set(i->nth, add(nr_run, 1));
}

static void at_gate(struct item *i)
{
	(void)i;
	until(!get(shut));
}

static void slowly(struct item *i)
{
	(void)i;
	usleep(20000);
}

static void give(unsigned int first, unsigned int n)
{
	for (; n--; first++)
		workers_add(&w, &items[first].job);
}

static void each_ran(unsigned int n, unsigned int times)
{
	for (unsigned int i = 0; i < n; i++)
		assert_int_equal(items[i].runs, times);
	assert_int_equal(nr_run, n * times);
}

/* ---- threads, and how making them fails ---- */

static int create_in;			/* the n-th from now is refused; 0: none */
static unsigned int nr_made;
static size_t stack_bytes;

int __real_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*fn)(void *), void *arg);
int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*fn)(void *), void *arg);

int __wrap_pthread_create(pthread_t *thread, const pthread_attr_t *attr,
			  void *(*fn)(void *), void *arg)
{
	int ret;

	if (attr)
		pthread_attr_getstacksize(attr, &stack_bytes);
	/* From there on all are, as where a limit is reached. */
	if (create_in == 1)
		return EAGAIN;
	if (create_in)
		create_in--;
	ret = __real_pthread_create(thread, attr, fn, arg);
	nr_made += !ret;
	return ret;
}

/* ---- reading ahead ---- */

static unsigned int nr_steps, reading, most_reading, steps_left;
static bool endless, lost_ctx;

static bool step(void *ctx)
{
	bool more;

	if (ctx != &nr_steps)
		set(lost_ctx, true);
	note_most(&most_reading, add(reading, 1));
	add(nr_steps, 1);
	until(!get(shut));
	more = get(endless) || (get(steps_left) && add(steps_left, -1));
	add(reading, -1);
	return more;
}

static void wake(struct item *i)
{
	(void)i;
	workers_ahead(&w);
}

/* ---- a test ---- */

static void hangs(int sig)
{
	static const char why[] = "not ok - a test of workers waits for ever\n";

	(void)sig;
	if (write(STDOUT_FILENO, why, sizeof(why) - 1) < 0)
		_exit(2);
	_exit(1);
}

static int setup(void **state)
{
	(void)state;
	memset(&w, 0, sizeof(w));
	memset(items, 0, sizeof(items));
	nr_run = inside = most_inside = 0;
	nr_steps = reading = most_reading = steps_left = 0;
	create_in = 0;
	nr_made = 0;
	shut = endless = false;
	signal(SIGALRM, hangs);
	alarm(HANGS_S);
	return 0;
}

static void begin(unsigned int threads, unsigned int max_ahead)
{
	w.ahead = step;
	w.ctx = &nr_steps;
	w.max_ahead = max_ahead;
	assert_int_equal(workers_start(&w, threads), 0);
	assert_int_equal(w.nr, threads);
}

/* ---- jobs ---- */

static void *give_a_third(void *arg)
{
	unsigned int first = (uintptr_t)arg;

	for (unsigned int i = 0; i < 1000; i++) {
		give(first + i, 1);
		/* So that the queue is empty at times. */
		if (i % 64 == 63)
			usleep(100);
	}
	return NULL;
}

static void every_job_is_done_once_whoever_gives_it(void **state)
{
	pthread_t givers[3];

	(void)state;
	begin(NR_THREADS, 0);
	for (uintptr_t i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&givers[i], NULL, give_a_third,
						(void *)(i * 1000)), 0);
	for (unsigned int i = 0; i < 3; i++)
		pthread_join(givers[i], NULL);
	until(get(nr_run) >= 3000);
	workers_stop(&w);
	each_ran(3000, 1);
}

/* A job is given back by being run, and may be out again at once. */
static void a_job_can_be_given_again_each_time_the_queue_was_empty(void **state)
{
	(void)state;
	begin(NR_THREADS, 0);
	for (unsigned int n = 1; n <= 500; n++) {
		give(0, 2);
		until(get(nr_run) == 2 * n);
	}
	workers_stop(&w);
	each_ran(2, 500);
}

/* One of two threads is held up, so that the other is alone with the rest. */
static void jobs_are_begun_in_the_order_they_came(void **state)
{
	(void)state;
	begin(2, 0);
	shut = true;
	items[0].run = at_gate;
	give(0, 1);
	until(get(inside) == 1);
	give(1, 200);
	until(get(nr_run) == 200);
	for (unsigned int i = 1; i <= 200; i++)
		assert_int_equal(items[i].nth, i);
	set(shut, false);
	workers_stop(&w);
	each_ran(201, 1);
}

static void as_many_jobs_as_there_are_threads_may_block(void **state)
{
	(void)state;
	begin(NR_THREADS, 0);
	shut = true;
	for (unsigned int i = 0; i < 2 * NR_THREADS; i++)
		items[i].run = at_gate;
	give(0, 2 * NR_THREADS);
	until(get(inside) == NR_THREADS);
	set(shut, false);
	workers_stop(&w);
	assert_int_equal(most_inside, NR_THREADS);
	each_ran(2 * NR_THREADS, 1);
}

/* ---- the end ---- */

static void stopping_ends_threads_that_have_nothing_to_do(void **state)
{
	(void)state;
	begin(NR_THREADS, 0);
	usleep(20000);			/* they sleep, by all appearances */
	workers_stop(&w);
	assert_int_equal(w.nr, 0);
}

static void stopping_waits_for_all_jobs_begun_or_not(void **state)
{
	(void)state;
	begin(2, 0);
	for (unsigned int i = 0; i < 10; i++)
		items[i].run = slowly;
	give(0, 10);
	until(get(inside));
	workers_stop(&w);
	assert_int_equal(w.nr, 0);
	each_ran(10, 1);
}

static void stopping_ends_reading_ahead_that_has_no_end(void **state)
{
	(void)state;
	begin(NR_THREADS, NR_THREADS);
	endless = true;
	workers_ahead(&w);
	until(get(nr_steps) > 100);
	workers_stop(&w);
	assert_int_equal(w.nr, 0);
	assert_int_equal(reading, 0);
}

/* ---- threads that cannot be made ---- */

static void the_error_is_handed_up_where_there_would_be_fewer_than_two(void **state)
{
	(void)state;
	for (int n = 1; n <= 2; n++) {
		memset(&w, 0, sizeof(w));
		create_in = n;
		assert_int_equal(workers_start(&w, NR_THREADS), -EAGAIN);
		/* And the one that was made is gone. */
		assert_int_equal(w.nr, 0);
		assert_int_equal(nr_made, n - 1);
	}
}

static void two_threads_are_enough(void **state)
{
	(void)state;
	create_in = 3;
	assert_int_equal(workers_start(&w, NR_THREADS), 0);
	assert_int_equal(w.nr, 2);
	give(0, 100);
	workers_stop(&w);
	each_ran(100, 1);
}

static void there_are_never_more_threads_than_there_is_room_for(void **state)
{
	(void)state;
	assert_int_equal(workers_start(&w, MAX_WORKERS + 1), 0);
	assert_int_equal(w.nr, MAX_WORKERS);
	assert_int_equal(nr_made, MAX_WORKERS);
	workers_stop(&w);
}

/* All of it is locked in memory. */
static void a_thread_has_a_small_stack(void **state)
{
	(void)state;
	begin(2, 0);
	assert_int_equal(stack_bytes, STACK_BYTES);
	workers_stop(&w);
}

/* ---- reading ahead ---- */

static void nothing_is_read_ahead_unless_asked_for(void **state)
{
	(void)state;
	begin(NR_THREADS, NR_THREADS);
	endless = true;
	give(0, 100);
	until(get(nr_run) == 100);
	usleep(20000);
	assert_int_equal(get(nr_steps), 0);
	workers_stop(&w);
}

static void reading_ahead_ends_when_there_is_no_further_step(void **state)
{
	unsigned int steps;

	(void)state;
	begin(NR_THREADS, 1);
	steps_left = 50;
	workers_ahead(&w);
	until(get(nr_steps) == 50);
	usleep(20000);
	assert_int_equal(get(nr_steps), 50);
	/* It is said again when there is. */
	steps = get(nr_steps);
	workers_ahead(&w);
	until(get(nr_steps) == steps + 1);
	workers_stop(&w);
	assert_int_equal(nr_steps, steps + 1);
	assert_false(lost_ctx);
}

static void as_many_read_ahead_as_may_and_no_more(void **state)
{
	(void)state;
	begin(NR_THREADS, NR_THREADS - 1);
	usleep(20000);			/* they sleep, and have to be woken */
	shut = endless = true;
	workers_ahead(&w);
	until(get(reading) == NR_THREADS - 1);
	workers_ahead(&w);
	usleep(20000);
	assert_int_equal(get(most_reading), NR_THREADS - 1);
	/* Who may not has time for jobs. */
	give(0, 100);
	until(get(nr_run) == 100);
	set(shut, false);
	workers_stop(&w);
	assert_int_equal(most_reading, NR_THREADS - 1);
}

/*
 *	worker				somebody
 *	a step, which finds no further
 *					finds more, asks
 *	returns false: that was before
 */
static void what_is_asked_for_during_the_last_step_is_not_lost(void **state)
{
	(void)state;
	begin(2, 1);
	shut = true;
	workers_ahead(&w);
	until(get(reading) == 1);
	workers_ahead(&w);
	set(shut, false);
	until(get(nr_steps) == 2);
	workers_stop(&w);
	assert_int_equal(nr_steps, 2);
}

static void a_job_never_waits_for_more_than_a_step(void **state)
{
	(void)state;
	begin(2, 2);
	endless = true;
	workers_ahead(&w);
	until(get(nr_steps) > 10);
	for (unsigned int n = 1; n <= 100; n++) {
		give(0, 1);
		until(get(nr_run) == n);
	}
	workers_stop(&w);
}

/* A job asks from a worker, whose own turn it then is. */
static void reading_ahead_goes_on_after_a_job(void **state)
{
	unsigned int steps;

	(void)state;
	begin(2, 2);
	endless = true;
	items[0].run = wake;
	give(0, 1);
	until(get(nr_steps) > 10);
	items[1].run = slowly;
	give(1, 1);
	until(get(nr_run) == 2);
	steps = get(nr_steps);
	until(get(nr_steps) > steps + 10);
	workers_stop(&w);
}

#define T(f) cmocka_unit_test_setup(f, setup)

int main(void)
{
	const struct CMUnitTest tests[] = {
		T(every_job_is_done_once_whoever_gives_it),
		T(a_job_can_be_given_again_each_time_the_queue_was_empty),
		T(jobs_are_begun_in_the_order_they_came),
		T(as_many_jobs_as_there_are_threads_may_block),
		T(stopping_ends_threads_that_have_nothing_to_do),
		T(stopping_waits_for_all_jobs_begun_or_not),
		T(stopping_ends_reading_ahead_that_has_no_end),
		T(the_error_is_handed_up_where_there_would_be_fewer_than_two),
		T(two_threads_are_enough),
		T(there_are_never_more_threads_than_there_is_room_for),
		T(a_thread_has_a_small_stack),
		T(nothing_is_read_ahead_unless_asked_for),
		T(reading_ahead_ends_when_there_is_no_further_step),
		T(as_many_read_ahead_as_may_and_no_more),
		T(what_is_asked_for_during_the_last_step_is_not_lost),
		T(a_job_never_waits_for_more_than_a_step),
		T(reading_ahead_goes_on_after_a_job),
	};

	/* What was said is there when the program is ended. */
	setvbuf(stdout, NULL, _IOLBF, 0);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
