/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_real.h - the kernel's TLB in a test program: the files themselves, one tree, and
 * that it leaves no memory behind.
 */
#ifndef TLB_REAL_H
#define TLB_REAL_H

#define SHIM_IMPLEMENTATION
#include <stdarg.h>
#include <stdio.h>
#include <setjmp.h>
#include <cmocka.h>

/* Nothing is kept, so that each node let go is freed and can be counted, unless ... */
static unsigned int spare_max;
#define UBDM_SPARE_MAX spare_max

#include "../../kernel/tlb_node.c"
#include "../../kernel/tlb_spare.c"
#include "../../kernel/tlb_txn.c"
#include "../../kernel/tlb.c"
#include "../../kernel/tlb_hit.h"
#include "xorshift.h"

static struct ubdm_tlb tlb;

static int tlb_setup(void **state)
{
	(void)state;
	assert_int_equal(shim_nr_alloc, 0);
	return ubdm_tlb_init(&tlb, U64_MAX);
}

static int tlb_teardown(void **state)
{
	(void)state;
	ubdm_tlb_destroy(&tlb);
	shim_rcu_flush();
	ubdm_spare_exit();
	spare_max = 0;
	assert_int_equal(shim_nr_alloc, 0);
	return 0;
}

static inline struct ubdm_extent ext(u64 lba, u64 len, u64 off, u64 tid, u32 flags)
{
	return (struct ubdm_extent) {
		.lba = lba, .len = len, .off = off, .tid = tid, .backing = 1,
		.type = UBDM_EXT_LINEAR, .perm = UBDM_PERM_R | UBDM_PERM_W,
		.flags = flags,
	};
}

#endif /* TLB_REAL_H */
