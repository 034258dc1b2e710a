/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * failalloc.h - the N-th allocation fails.  Included by the one file of a test
 * that is linked with --wrap for these functions: see tests/unit/build.mk.
 */
#ifndef TESTS_FAKE_FAILALLOC_H
#define TESTS_FAKE_FAILALLOC_H

#include <stdbool.h>
#include <stddef.h>

void *__real_malloc(size_t n);
void *__real_calloc(size_t n, size_t m);
void *__real_realloc(void *p, size_t n);
void *__real_reallocarray(void *p, size_t n, size_t m);
void *__real_aligned_alloc(size_t a, size_t n);
char *__real_strdup(const char *s);
void *__wrap_malloc(size_t n);
void *__wrap_calloc(size_t n, size_t m);
void *__wrap_realloc(void *p, size_t n);
void *__wrap_reallocarray(void *p, size_t n, size_t m);
void *__wrap_aligned_alloc(size_t a, size_t n);
char *__wrap_strdup(const char *s);

static unsigned int fail_alloc_in;	/* which one, 0: none; counts down */
static bool fail_alloc_on;

static bool alloc_fails(void)
{
	return fail_alloc_on && fail_alloc_in && !--fail_alloc_in;
}

void *__wrap_malloc(size_t n)
{
	return alloc_fails() ? NULL : __real_malloc(n);
}

void *__wrap_calloc(size_t n, size_t m)
{
	return alloc_fails() ? NULL : __real_calloc(n, m);
}

void *__wrap_realloc(void *p, size_t n)
{
	return alloc_fails() ? NULL : __real_realloc(p, n);
}

void *__wrap_reallocarray(void *p, size_t n, size_t m)
{
	return alloc_fails() ? NULL : __real_reallocarray(p, n, m);
}

void *__wrap_aligned_alloc(size_t a, size_t n)
{
	return alloc_fails() ? NULL : __real_aligned_alloc(a, n);
}

char *__wrap_strdup(const char *s)
{
	return alloc_fails() ? NULL : __real_strdup(s);
}

#endif /* TESTS_FAKE_FAILALLOC_H */
