/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * kdeps.h - all that tlb.c and fault.c take from their surroundings.
 *
 * In userspace tests/shim/shim.h stands in for the kernel; what the two need
 * and this list lacks has to be added there too.
 */
#ifndef UBDM_KDEPS_H
#define UBDM_KDEPS_H

#ifdef __KERNEL__
#include <linux/bio.h>
#include <linux/bitops.h>
#include <linux/blk_types.h>
#include <linux/build_bug.h>
#include <linux/cleanup.h>
#include <linux/jiffies.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/rcupdate.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/types.h>
#else
#include <shim.h>
#endif

#include "../uapi/ubdmap.h"

#endif /* UBDM_KDEPS_H */
