/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * chan.h - a channel: the mapper's capability to one device.
 */
#ifndef UBDM_CHAN_H
#define UBDM_CHAN_H

#include <linux/io_uring/cmd.h>
#include <linux/kref.h>
#include <linux/list.h>
#include "dev.h"

/*
 * State of a command that waits in the kernel, kept in its pdu.
 *
 *   NEW -> WAITING -> FIRING -> (completed in its task)
 *    |        |
 *    +--------+-> CANCELLED (completed by the cancellation)
 *
 * All changes under the device's ftab.lock.
 */
enum ubdm_wait_state {
	UBDM_WS_NEW,
	UBDM_WS_WAITING,
	UBDM_WS_FIRING,
	UBDM_WS_CANCELLED,
};

struct ubdm_wait {
	struct list_head link;
	u64 buf;			/* FETCH; otherwise the result */
	u16 nr;				/* FETCH */
	u8 fetch;
	u8 state;			/* enum ubdm_wait_state */
};

struct ubdm_chan {
	struct ubdm_dev *dev;		/* set once, ubdm_ctl_mutex; READ_ONCE */
	struct list_head fetches;	/* armed; dev->ftab.lock */
	bool stopped;			/* dev->ftab.lock */
	bool started;			/* faults may be delivered; dev->ftab.lock */
	const struct cred *cred;	/* who opened it */
};

static inline struct ubdm_wait *ubdm_wait_of(struct io_uring_cmd *cmd)
{
	return io_uring_cmd_to_pdu(cmd, struct ubdm_wait);
}

static inline struct io_uring_cmd *ubdm_wait_cmd(struct ubdm_wait *w)
{
	return container_of((u8 (*)[32])w, struct io_uring_cmd, pdu);
}

struct ubdm_chan *ubdm_chan_from_fd(int fd, struct file **file);
int ubdm_chan_init(void);
void ubdm_chan_exit(void);

/* fetch.c */
int ubdm_fetch(struct ubdm_dev *dev, struct ubdm_chan *chan,
	       struct io_uring_cmd *cmd, const struct ubdm_fetch *f,
	       unsigned int issue_flags);
void ubdm_fetch_kick(struct ubdm_dev *dev);
void ubdm_fetch_cancel_all(struct ubdm_chan *chan);

/* wait.c */
int ubdm_wait_add(struct ubdm_dev *dev, struct io_uring_cmd *cmd,
		  struct list_head *list, unsigned int issue_flags);
void ubdm_wait_fire(struct ubdm_wait *w, long res);
void ubdm_wait_fire_all(struct ubdm_dev *dev, struct list_head *list, long res);
void ubdm_wait_cancel(struct ubdm_dev *dev, struct io_uring_cmd *cmd,
		      unsigned int issue_flags);
void ubdm_drain_work(struct work_struct *work);

/* map.c */
struct ubdm_extent *ubdm_take_extents(u64 addr, u32 nr);
int ubdm_map(struct ubdm_dev *dev, const struct ubdm_extent *ext, u32 nr);
int ubdm_resolve(struct ubdm_dev *dev, struct io_uring_cmd *cmd,
		 const struct ubdm_resolve *r, const struct ubdm_extent *ext,
		 struct bio_list *again, unsigned int issue_flags);
int ubdm_dump(struct ubdm_dev *dev, const struct ubdm_dump *d, void **out);

/* place.c */
int ubdm_place(struct ubdm_dev *dev, u64 cookie, struct io_uring_cmd *cmd,
	       const struct ubdm_extent *ext, unsigned int nr,
	       unsigned int issue_flags);
bool ubdm_place_uses_backing(struct ubdm_dev *dev, u16 backing);
void ubdm_place_forget(struct ubdm_dev *dev, struct io_uring_cmd *cmd);
unsigned int ubdm_place_dump(struct ubdm_dev *dev, struct ubdm_extent *ext,
			     unsigned int nr);

/* xfer.c */
ssize_t ubdm_xfer(struct kiocb *ki, struct iov_iter *iter, bool to_bio);

#endif /* UBDM_CHAN_H */
