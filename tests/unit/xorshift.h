/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * xorshift.h - random numbers for tests of the kernel's files, which have its types:
 * the same sequence everywhere for a seed.  Behind shim.h.
 */
#ifndef TESTS_UNIT_XORSHIFT_H
#define TESTS_UNIT_XORSHIFT_H

static u64 rng = 1;

/* For who has a seed of its own, a thread for instance. */
static inline u64 xorshift(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed >> 11;
}

/* Below n; n > 0. */
static inline u32 rnd(u32 n)
{
	return xorshift(&rng) % n;
}

#endif /* TESTS_UNIT_XORSHIFT_H */
