/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * util.h - a scratch folder, child programs, random numbers.  For tests only:
 * included by the one file of each test program.
 */
#ifndef TESTS_FAKE_UTIL_H
#define TESTS_FAKE_UTIL_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE 1
#endif
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define MAYBE_UNUSED	__attribute__((unused))

/* xorshift64*: the same sequence everywhere for a seed. */
struct rng {
	uint64_t s;
};

static MAYBE_UNUSED uint64_t rng_next(struct rng *r)
{
	r->s ^= r->s >> 12;
	r->s ^= r->s << 25;
	r->s ^= r->s >> 27;
	return r->s * 0x2545f4914f6cdd1dULL;
}

static MAYBE_UNUSED void rng_seed(struct rng *r, uint64_t seed)
{
	r->s = seed * 0x9e3779b97f4a7c15ULL + 0x1234567;
	if (!r->s)
		r->s = 1;
	rng_next(r);
}

/* Below n; n > 0. */
static MAYBE_UNUSED uint64_t rng_below(struct rng *r, uint64_t n)
{
	return (rng_next(r) >> 11) % n;
}

static MAYBE_UNUSED bool rng_chance(struct rng *r, unsigned int percent)
{
	return rng_below(r, 100) < percent;
}

static MAYBE_UNUSED int64_t clock_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* The scratch folder. */
static char scratch[128];

static MAYBE_UNUSED void scratch_remove(void)
{
	char cmd[160];

	if (!scratch[0] || getenv("KEEP"))
		return;
	snprintf(cmd, sizeof(cmd), "rm -rf '%s'", scratch);
	if (system(cmd))
		fprintf(stderr, "# cannot remove %s\n", scratch);
	scratch[0] = 0;
}

static MAYBE_UNUSED const char *scratch_make(void)
{
	/* Memory, unless told otherwise: fdatasync is what takes the time. */
	const char *t = getenv("TMPDIR") ? getenv("TMPDIR") :
			access("/dev/shm", W_OK) ? "/tmp" : "/dev/shm";

	if (scratch[0])
		return scratch;
	snprintf(scratch, sizeof(scratch), "%s/ubdmap-test-XXXXXX", t);
	if (!mkdtemp(scratch)) {
		perror(scratch);
		exit(2);
	}
	atexit(scratch_remove);
	return scratch;
}

/* A path in the scratch folder, in one of a few static buffers. */
static MAYBE_UNUSED const char *in_scratch(const char *name)
{
	static char buf[8][256];
	static unsigned int n;
	char *p = buf[n++ % 8];

	snprintf(p, sizeof(buf[0]), "%s/%s", scratch_make(), name);
	return p;
}

/* Run a shell command in the scratch folder; its exit status.  Output is
 * dropped unless V is set in the environment. */
__attribute__((format(printf, 1, 2)))
static MAYBE_UNUSED int sh(const char *fmt, ...)
{
	char cmd[2048], full[2400];
	va_list ap;
	int rc;

	va_start(ap, fmt);
	vsnprintf(cmd, sizeof(cmd), fmt, ap);
	va_end(ap);
	snprintf(full, sizeof(full), "cd '%s' && { %s; } %s", scratch_make(), cmd,
		 getenv("V") ? "" : ">/dev/null 2>&1");
	rc = system(full);
	return WIFEXITED(rc) ? WEXITSTATUS(rc) : 128;
}

/* Is this program there?  Tests that need it skip otherwise. */
static MAYBE_UNUSED bool have(const char *prog)
{
	return !sh("command -v %s", prog);
}

static MAYBE_UNUSED void write_file(const char *path, const void *buf, size_t len)
{
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0 || write(fd, buf, len) != (ssize_t)len || close(fd)) {
		perror(path);
		exit(2);
	}
}

/* Whole file, malloc'ed. */
static MAYBE_UNUSED char *read_file(const char *path, size_t *len)
{
	int fd = open(path, O_RDONLY);
	struct stat st;
	char *buf;
	size_t n = 0;
	ssize_t r;

	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		exit(2);
	}
	buf = malloc(st.st_size + 1);
	while (n < (size_t)st.st_size && (r = read(fd, buf + n, st.st_size - n)) > 0)
		n += r;
	close(fd);
	buf[n] = 0;
	*len = n;
	return buf;
}

#endif /* TESTS_FAKE_UTIL_H */
