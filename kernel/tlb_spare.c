// SPDX-License-Identifier: GPL-2.0-only
/*
 * tlb_spare.c - nodes that are between two trees.
 *
 * Each change of a tree makes a node and lets one go, which readers may still be
 * in until a grace period has ended.  A mapper that answers misses does that tens
 * of thousands of times a second, and the allocator would get whole pages back and
 * give them out again, cleared.  So nodes wait here, in the order in which they
 * were let go, and are taken again from the front, if their grace period is over:
 * nobody has to be called when it ends.  One list for all devices, so that what is
 * kept does not grow with their number.
 */
#include "tlb_spare.h"

static struct {
	spinlock_t lock;		/* inside tlb->lock */
	struct ubdm_tlb_node *head;
	struct ubdm_tlb_node *last;	/* if head */
	unsigned int nr;
	bool asked;			/* for the grace period of ... */
	unsigned long gp;		/* ... this cookie */
} kept = {
	.lock = __SPIN_LOCK_UNLOCKED(kept.lock),
};

static struct ubdm_tlb_node *pop(void)
{
	struct ubdm_tlb_node *node = kept.head;

	kept.head = node->chain;
	kept.nr--;
	return node;
}

/**
 * ubdm_spare_get() - memory for a node
 * @gfp: how to allocate it if none is here
 *
 * Context: as @gfp has it.
 * Return: the node, with anything in it, or NULL.
 */
struct ubdm_tlb_node *ubdm_spare_get(gfp_t gfp)
{
	struct ubdm_tlb_node *node = NULL;

	spin_lock(&kept.lock);
	if (kept.head && poll_state_synchronize_rcu(kept.head->gp))
		node = pop();
	spin_unlock(&kept.lock);
	return node ?: kmalloc(sizeof(*node), gfp);
}

/*
 * Grace periods begin only when somebody asks.  One that is asked for now may end
 * too early for who is let go while it runs; but by then the next is asked for.
 */
static void ask(void)
{
	if (kept.asked && !poll_state_synchronize_rcu(kept.gp))
		return;
	kept.gp = start_poll_synchronize_rcu();
	kept.asked = true;
}

/**
 * ubdm_spare_retire() - let a node go that new readers don't find any more
 * @node: the node; those who have found it before are under RCU
 *
 * Context: process.
 */
void ubdm_spare_retire(struct ubdm_tlb_node *node)
{
	struct ubdm_tlb_node *old = NULL;

	spin_lock(&kept.lock);
	node->chain = NULL;
	node->gp = get_state_synchronize_rcu();
	if (kept.head)
		kept.last->chain = node;
	else
		kept.head = node;
	kept.last = node;
	if (++kept.nr > UBDM_SPARE_MAX)
		old = pop();
	ask();
	spin_unlock(&kept.lock);
	if (old)
		kfree_rcu(old, rcu);
}

/**
 * ubdm_spare_put() - let a node go that no reader has seen
 * @node: the node
 *
 * Context: any that may free memory.
 */
void ubdm_spare_put(struct ubdm_tlb_node *node)
{
	spin_lock(&kept.lock);
	if (kept.nr < UBDM_SPARE_MAX) {
		node->gp = get_completed_synchronize_rcu();
		node->chain = kept.head;
		if (!kept.head)
			kept.last = node;
		kept.head = node;
		kept.nr++;
		node = NULL;
	}
	spin_unlock(&kept.lock);
	kfree(node);
}

/**
 * ubdm_spare_exit() - free what is here
 *
 * Context: process, may sleep; no TLB is left.
 */
void ubdm_spare_exit(void)
{
	if (kept.head)
		synchronize_rcu();
	while (kept.head)
		kfree(pop());
}
