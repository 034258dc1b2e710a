/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * plug.h - the block layer's plugs, seen from inside submit_bio.
 */
#ifndef UBDM_PLUG_H
#define UBDM_PLUG_H

#include <linux/blk-mq.h>
#include <linux/blkdev.h>
#include <linux/sched.h>

/*
 * The block layer plugs around every submit_bio, and looks at the end what is in
 * the plug.  What we send on has a plug of its own: a bio of ours is submitted when
 * we have returned, and a file system plugs by itself.  But that only if there is
 * none yet; else what it sends starts when we have returned, and where the disk
 * completes at once, a write that could have ended in front of us ends in a worker.
 * So a plug that holds nothing is finished here: all that is to be done for that.
 *
 * One that was there before this bio has told the time already, and other bios are
 * to come, with which ours had better start.  Who judges wrongly about that loses
 * a few instructions.
 */
static __always_inline void ubdm_plug_finish_empty(void)
{
	struct blk_plug *plug = current->plug;

	if (!plug || plug->cur_ktime || plug->nr_ios != 1 || plug->rq_count ||
	    !rq_list_empty(&plug->cached_rqs) || !list_empty(&plug->cb_list))
		return;
	/* In this order: the scheduler follows the pointer if the flag is set. */
	current->flags &= ~PF_BLOCK_TS;
	barrier();
	current->plug = NULL;
}

#endif /* UBDM_PLUG_H */
