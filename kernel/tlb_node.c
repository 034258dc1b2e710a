// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlb_node.c - what is in a node of the TLB, and how it moves within and between them.
 *
 * Nothing here knows the tree: who may change which node, and what has to be told to
 * those above it, is the transaction's (tlb_txn.c).
 */
#include "tlb_node.h"

static_assert(sizeof(struct ubdm_tlb_node) <= UBDM_NODE_BYTES);
static_assert(UBDM_LEAF_MAX < BITS_PER_LONG);

static void assign_bit_in(unsigned long *word, unsigned int i, bool on)
{
	*word = (*word & ~BIT(i)) | ((unsigned long)on << i);
}

/* Open a gap of n bits in front of bit i. */
static unsigned long widen(unsigned long word, unsigned int i, unsigned int n)
{
	unsigned long low = BIT(i) - 1;

	return (word & low) | ((word & ~low) << n);
}

/* Close the gap of n bits from bit i on. */
static unsigned long narrow(unsigned long word, unsigned int i, unsigned int n)
{
	unsigned long low = BIT(i) - 1;

	return (word & low) | ((word >> n) & ~low);
}

/**
 * ubdm_node_gap() - make room in a node
 * @node: of the caller's transaction
 * @pos: the entry in front of which
 * @n: for how many entries; no more than there is room for.  To be filled next
 */
void ubdm_node_gap(struct ubdm_tlb_node *node, unsigned int pos, unsigned int n)
{
	unsigned int tail = node->nr - pos;

	node->nr += n;
	if (node->level) {
		memmove(node->key + pos + n, node->key + pos, tail * sizeof(u64));
		memmove(node->child + pos + n, node->child + pos,
			tail * sizeof(*node->child));
		return;
	}
	memmove(node->start + pos + n, node->start + pos, tail * sizeof(u64));
	memmove(node->slot + pos + n, node->slot + pos, tail * sizeof(*node->slot));
	node->accessed = widen(node->accessed, pos, n);
	node->touched = widen(node->touched, pos, n);
}

/**
 * ubdm_node_copy() - copy entries of a node into another one
 * @dst: of the caller's transaction; its entries from @dpos on make room
 * @dpos: where to
 * @src: of the same level, published or not
 * @spos: where from
 * @n: how many
 * @touched: the bits of @src to go by, if it is a leaf
 * @committed: the committed tid; extents up to it become clean
 */
void ubdm_node_copy(struct ubdm_tlb_node *dst, unsigned int dpos,
		    const struct ubdm_tlb_node *src, unsigned int spos, unsigned int n,
		    unsigned long touched, u64 committed)
{
	unsigned long accessed;
	unsigned int i;

	ubdm_node_gap(dst, dpos, n);
	if (dst->level) {
		memcpy(dst->key + dpos, src->key + spos, n * sizeof(u64));
		memcpy(dst->child + dpos, src->child + spos, n * sizeof(*dst->child));
		return;
	}
	memcpy(dst->start + dpos, src->start + spos, n * sizeof(u64));
	memcpy(dst->slot + dpos, src->slot + spos, n * sizeof(*dst->slot));

	accessed = READ_ONCE(src->accessed);
	dst->accessed |= ((accessed >> spos) & (BIT(n) - 1)) << dpos;
	dst->touched |= ((touched >> spos) & (BIT(n) - 1)) << dpos;
	if (!src->tids)
		return;
	for (i = dpos; i < dpos + n; i++) {
		if (dst->slot[i].tid > committed) {
			dst->tids = 1;
			continue;
		}
		dst->slot[i].tid = 0;
		assign_bit_in(&dst->touched, i, false);
	}
}

/**
 * ubdm_node_squeeze() - drop extents from a leaf's midst
 * @leaf: of the caller's transaction
 * @i: the first of them
 * @n: how many
 * @nr: how many the leaf has; ubdm_node_cut() tells it how many are left
 */
void ubdm_node_squeeze(struct ubdm_tlb_node *leaf, unsigned int i, unsigned int n,
		       unsigned int nr)
{
	unsigned int tail = nr - i - n;

	memmove(leaf->start + i, leaf->start + i + n, tail * sizeof(u64));
	memmove(leaf->slot + i, leaf->slot + i + n, tail * sizeof(*leaf->slot));
	leaf->accessed = narrow(leaf->accessed, i, n);
	leaf->touched = narrow(leaf->touched, i, n);
}

/**
 * ubdm_node_cut() - leave only the first entries
 * @node: of the caller's transaction
 * @n: how many are left
 */
void ubdm_node_cut(struct ubdm_tlb_node *node, unsigned int n)
{
	memset64((node->level ? node->key : node->start) + n, U64_MAX, node->nr - n);
	node->nr = n;
	if (node->level)
		return;
	node->accessed &= BIT(n) - 1;
	node->touched &= BIT(n) - 1;
}

/**
 * ubdm_node_put() - fill a leaf's slot
 * @leaf: of the caller's transaction
 * @i: slot
 * @ent: with what
 */
void ubdm_node_put(struct ubdm_tlb_node *leaf, unsigned int i,
		   const struct ubdm_tlb_ent *ent)
{
	leaf->start[i] = ent->lba;
	leaf->slot[i] = (struct ubdm_tlb_slot) {
		.len = ent->end - ent->lba,
		.off = ent->off,
		.tid = ent->tid,
		.backing = ent->backing,
		.type = ent->type,
		.perm = ent->perm,
	};
	assign_bit_in(&leaf->accessed, i, ent->accessed);
	assign_bit_in(&leaf->touched, i, ent->touched);
	if (ent->tid)
		leaf->tids = 1;
}

/**
 * ubdm_tlb_read_slot() - take an extent out of a leaf
 * @tlb: the TLB
 * @leaf: a leaf, published or not
 * @i: slot
 * @ent: out; clean, if it was committed meanwhile
 *
 * Context: any, under RCU or the lock.
 */
void ubdm_tlb_read_slot(const struct ubdm_tlb *tlb,
			const struct ubdm_tlb_node *leaf, int i,
			struct ubdm_tlb_ent *ent)
{
	const struct ubdm_tlb_slot *slot = &leaf->slot[i];

	ent->lba = leaf->start[i];
	ent->end = ent->lba + slot->len;
	ent->off = slot->off;
	ent->tid = slot->tid > READ_ONCE(tlb->committed_tid) ? slot->tid : 0;
	ent->backing = slot->backing;
	ent->type = slot->type;
	ent->perm = slot->perm;
	ent->accessed = READ_ONCE(leaf->accessed) & BIT(i);
	ent->touched = ent->tid && READ_ONCE(leaf->touched) & BIT(i);
}

/**
 * ubdm_node_link() - insert a child
 * @node: an inner node of the caller's transaction, with room
 * @i: which it becomes
 * @child: the child
 */
void ubdm_node_link(struct ubdm_tlb_node *node, unsigned int i,
		    struct ubdm_tlb_node *child)
{
	ubdm_node_gap(node, i, 1);
	node->key[i] = ubdm_tlb_first(child);
	node->child[i] = child;
}

/**
 * ubdm_node_unlink() - take a child out
 * @node: an inner node of the caller's transaction
 * @i: which
 */
void ubdm_node_unlink(struct ubdm_tlb_node *node, unsigned int i)
{
	unsigned int tail = --node->nr - i;

	memmove(node->key + i, node->key + i + 1, tail * sizeof(u64));
	memmove(node->child + i, node->child + i + 1, tail * sizeof(*node->child));
	node->key[node->nr] = U64_MAX;
}
