/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_spare.h - nodes that are between two trees.  For tlb*.c, and who unloads.
 */
#ifndef UBDM_TLB_SPARE_H
#define UBDM_TLB_SPARE_H

#include "tlb_node.h"

/*
 * What is let go during a grace period of some 15 ms and 30,000 misses a second.
 * Where the allocator looks for late readers it is to see nearly all of them.
 */
#ifndef UBDM_SPARE_MAX
#ifdef CONFIG_KASAN
#define UBDM_SPARE_MAX	8
#else
#define UBDM_SPARE_MAX	512	/* 1 MiB */
#endif
#endif

struct ubdm_tlb_node *ubdm_spare_get(gfp_t gfp);
void ubdm_spare_retire(struct ubdm_tlb_node *node);
void ubdm_spare_put(struct ubdm_tlb_node *node);
void ubdm_spare_exit(void);

#endif /* UBDM_TLB_SPARE_H */
