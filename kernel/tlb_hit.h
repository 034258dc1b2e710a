/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * tlb_hit.h - the lookup of a plain hit, to be inlined where a bio comes in.
 *
 * As a function it costs a third more: what it finds would go through memory.
 */
#ifndef UBDM_TLB_HIT_H
#define UBDM_TLB_HIT_H

#include "tlb_node.h"

/**
 * ubdm_tlb_translate() - translate sectors that all lie in one extent with storage
 * @tlb: the TLB
 * @lba: the first sector; below U64_MAX
 * @nr: how many
 * @write: they will be written, which is noted as by ubdm_tlb_lookup_write()
 * @hit: out: valid are off (of @lba itself), tid and backing
 *
 * What nearly every hit needs, and no more.
 *
 * Context: as ubdm_tlb_lookup().
 * Return: false if it is not as simple as that: look up in full.
 */
static __always_inline bool
ubdm_tlb_translate(struct ubdm_tlb *tlb, u64 lba, unsigned int nr, bool write,
		   struct ubdm_hit *hit)
{
	struct ubdm_tlb_node *node = rcu_dereference_check(tlb->root,
						rcu_read_lock_sched_held());
	const struct ubdm_tlb_slot *s;
	unsigned int n = 0;
	u64 skip;

	if (unlikely(!node))
		return false;
	while (node->level)
		node = READ_ONCE(node->child[ubdm_tlb_child(node, lba)]);
	/* A disk that is one extent: there is nothing to search. */
	if (node->nr != 1)
		n = ubdm_tlb_floor(node, lba);
	skip = lba - node->start[n];
	s = &node->slot[n];
	if (unlikely(lba < node->start[n] || skip + nr > s->len ||
		     s->type != UBDM_EXT_LINEAR ||
		     !(s->perm & (write ? UBDM_PERM_W : UBDM_PERM_R))))
		return false;
	hit->off = s->off + skip;
	hit->backing = s->backing;
	hit->tid = s->tid;
	if (unlikely(s->tid))
		hit->tid = s->tid > READ_ONCE(tlb->committed_tid) ? s->tid : 0;
	if (unlikely(!(READ_ONCE(node->accessed) & BIT(n))))
		set_bit(n, &node->accessed);
	/* If the leaf is on its way out, the full lookup knows what to do. */
	return !write || !hit->tid || ubdm_tlb_mark_touched(tlb, node, n, hit->tid);
}

#endif /* UBDM_TLB_HIT_H */
