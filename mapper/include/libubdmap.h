/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libubdmap.h - drive ubdmap devices from a program of your own.
 *
 * Two halves that do not need each other:
 *
 *   ubdm_ctl_*     the control plane: make, find, watch and delete devices.
 *   ubdm_mapper_*  the data plane: serve one device from one image.
 *
 * The library does not fork, starts no thread and owns no event loop.  A mapper
 * lends one file descriptor; when it rings call ubdm_mapper_process(),
 * always from the same thread: the one that called ubdm_mapper_serve() or
 * ubdm_mapper_takeover() (the ring thread).  What cannot be answered there
 * without blocking is handed out by the defer callback, for ubdm_job_run() on a
 * thread that may block.
 *
 * Life of a mapper:
 *
 *	ubdm_mapper_open()           the image is open and locked
 *	ubdm_ctl_create()            a device on a channel (open /dev/ubdmap)
 *	ubdm_mapper_serve()          /dev/ubdmapN is there
 *	poll, ubdm_mapper_process()  ...
 *	shutdown callback            somebody deletes the device
 *	ubdm_mapper_finish()         image clean, device gone
 *	ubdm_mapper_close()
 *
 * After a crash of the mapper, the device being orphaned, instead:
 *
 *	ubdm_ctl_attach()            a new channel
 *	ubdm_mapper_takeover()       serves on where the other stopped
 *
 * Errors are -errno.  Where a function takes a struct ubdm_err it leaves one
 * line there that names the cause and what to do about it.  lba, len and sizes
 * count sectors of 512 bytes unless they say bytes.
 */
#ifndef LIBUBDMAP_H
#define LIBUBDMAP_H

#include <stdbool.h>
#include <stdint.h>

#include "ubdmap.h"
#include "ubdmap_nl.h"

#ifdef __cplusplus
extern "C" {
#endif

#define UBDM_CHANNEL_PATH	"/dev/ubdmap"

struct ubdm_err {
	char msg[10240]; /* paths are in it, in full */
};

/* --- control plane ------------------------------------------------------ */

struct ubdm_ctl;

/**
 * struct ubdm_device - what the driver says about a device
 * @index: N of /dev/ubdmapN
 * @state: enum ubdm_dev_state
 * @size: sectors
 * @block_size: bytes
 * @flags: UBDM_DEV_F_*
 * @mapper_pid: 0 if none
 * @owner_uid: who opened the channel it was made on
 * @openers: how often it is open
 * @error: -errno of the last thing that was queued and went wrong, or 0
 * @trouble: UBDM_TROUBLE_*
 * @space_timeout: seconds that writes wait for space; 0: without end
 * @ident: what it serves
 * @format: its format
 */
struct ubdm_device {
	uint32_t index;
	uint32_t state;
	uint64_t size;
	uint32_t block_size;
	uint64_t flags;
	uint32_t mapper_pid;
	uint32_t owner_uid;
	uint32_t openers;
	int error;
	uint32_t trouble;
	uint32_t space_timeout;
	char ident[4096];
	char format[32];
};

/**
 * struct ubdm_create - how a device is to be made
 * @channel: an open file of UBDM_CHANNEL_PATH
 * @index: wanted N, or -1 for the lowest that is free
 * @size: sectors
 * @block_size: logical, bytes
 * @phys_block_size: bytes
 * @io_opt: bytes, 0: no preference
 * @discard_gran: bytes, 0: no discard
 * @flags: UBDM_DEV_F_*
 * @max_extents: to be kept in the kernel, beside uncommitted ones; 0: the
 *	driver's default
 * @orphan_timeout: seconds parked requests wait for a mapper; negative: the
 *	driver's default
 * @space_timeout: seconds writes wait for space below, 0: without end; negative:
 *	the driver's default
 * @ident: what it serves, for people
 * @format: its format, for people
 */
struct ubdm_create {
	int channel;
	int index;
	uint64_t size;
	uint32_t block_size;
	uint32_t phys_block_size;
	uint32_t io_opt;
	uint32_t discard_gran;
	uint64_t flags;
	uint64_t max_extents;
	int orphan_timeout;
	int space_timeout;
	const char *ident;
	const char *format;
};

/**
 * struct ubdm_stats - counters of one device
 * @v: indexed by enum ubdm_stat
 */
struct ubdm_stats {
	uint64_t v[UBDM_S_MAX + 1];
};

/**
 * struct ubdm_event_info - one event
 * @event: enum ubdm_event
 * @index: which device
 * @error: -errno or 0
 * @kind: STALLED: UBDM_FAULT_*, 0 otherwise, as the others
 * @waited_ms: STALLED: so far
 * @sector: STALLED: where the miss begins
 * @sectors: STALLED: how much it wants
 */
struct ubdm_event_info {
	uint32_t event;
	uint32_t index;
	int error;
	uint32_t kind;
	uint32_t waited_ms;
	uint64_t sector;
	uint64_t sectors;
};

/**
 * ubdm_ctl_open - connect to the driver's control plane
 * @out: gets the connection
 *
 * Return: 0; -ENOENT if the driver is not loaded; -EPROTO if it speaks another
 * version; others from the socket.
 */
int ubdm_ctl_open(struct ubdm_ctl **out);
void ubdm_ctl_close(struct ubdm_ctl *ctl);

/**
 * ubdm_ctl_reason - what the driver said of the last failure, or ""
 * @ctl: the connection
 */
const char *ubdm_ctl_reason(const struct ubdm_ctl *ctl);

int ubdm_ctl_create(struct ubdm_ctl *ctl, const struct ubdm_create *c,
		    uint32_t *index);
int ubdm_ctl_attach(struct ubdm_ctl *ctl, int channel, uint32_t index,
		    struct ubdm_device *dev);
int ubdm_ctl_delete(struct ubdm_ctl *ctl, uint32_t index, bool force);
int ubdm_ctl_get(struct ubdm_ctl *ctl, uint32_t index, struct ubdm_device *dev);
int ubdm_ctl_stats(struct ubdm_ctl *ctl, uint32_t index,
		   struct ubdm_stats *stats);

/**
 * ubdm_ctl_list - tell of each device
 * @ctl: the connection
 * @arg: handed to @fn
 * @fn: called for each; a negative return ends it and is returned
 */
int ubdm_ctl_list(struct ubdm_ctl *ctl,
		  int (*fn)(void *arg, const struct ubdm_device *dev),
		  void *arg);

/**
 * ubdm_ctl_extents - tell of each extent the kernel holds now
 * @ctl: the connection
 * @index: which device
 * @fn: called for each; a negative return ends it and is returned
 * @arg: handed to @fn
 */
int ubdm_ctl_extents(struct ubdm_ctl *ctl, uint32_t index,
		     int (*fn)(void *arg, const struct ubdm_extent *ext),
		     void *arg);

/**
 * ubdm_ctl_subscribe - receive events on this connection from now on
 * @ctl: the connection
 *
 * It is then good for ubdm_ctl_event() only.  Needs CAP_SYS_ADMIN.
 */
int ubdm_ctl_subscribe(struct ubdm_ctl *ctl);
int ubdm_ctl_fd(const struct ubdm_ctl *ctl);

/**
 * ubdm_ctl_event - the next event
 * @ctl: the connection
 * @ev: to fill
 *
 * Return: 1: @ev is filled; 0: none waits; -ENOBUFS: some were lost; -errno.
 */
int ubdm_ctl_event(struct ubdm_ctl *ctl, struct ubdm_event_info *ev);

/* --- data plane --------------------------------------------------------- */

struct ubdm_mapper;

/*
 * A piece of work that may block.  @next is for whoever holds the job, to queue
 * it; the job is given back by ubdm_job_run().
 */
struct ubdm_job {
	struct ubdm_job *next;
};

/**
 * struct ubdm_mapper_ops - what the embedder does for a mapper
 * @defer: have ubdm_job_run(@job) called on a thread that may block.  Called
 *	on the ring thread; at most UBDM_MAX_JOBS are out at a time.
 * @work: call ubdm_mapper_work() soon: what it returned last may be outdated.
 *	Called from any thread that is inside the library.
 * @ahead: have ubdm_mapper_ahead() called, on threads that may block and have
 *	nothing else to do, by as many of them as there are CPUs; or NULL.
 *	Called from any thread that is inside the library.
 * @shutdown: the device is being deleted: let ubdm_mapper_finish() run, while
 *	the ring thread goes on with ubdm_mapper_process().  Called once, on the
 *	ring thread.
 * @gone: the channel is of no use any more: -ESTALE (another mapper took
 *	over), -ESHUTDOWN, ...  Do not finish; close.  Called once, ring thread.
 * @may_copy: ubdm_mapper_process() may copy a cluster on write by itself, which
 *	waits for the image's disks, while requests come one at a time: two threads
 *	less to be woken.  Not for who has something else to do on the ring thread
 */
struct ubdm_mapper_ops {
	void (*defer)(void *ctx, struct ubdm_job *job);
	void (*work)(void *ctx);
	void (*ahead)(void *ctx);
	void (*shutdown)(void *ctx);
	void (*gone)(void *ctx, int error);
	bool may_copy;
};

#define UBDM_MAX_JOBS	192

/**
 * struct ubdm_image - which image and how
 * @path: absolute, better
 * @format: "raw", "qcow2", NULL: from the name
 * @read_only: nothing is written
 * @cache_bytes: bound of the cache for decompressed data; 0: the default
 * @block_size: bytes; the device will have logical blocks of this size, if the image's
 *	storage allows less.  0: what it allows
 * @allow_backing: NULL or asked for each backing file, with its path
 */
struct ubdm_image {
	const char *path;
	const char *format;
	bool read_only;
	uint64_t cache_bytes;
	uint32_t block_size;
	bool (*allow_backing)(void *ctx, const char *path);
};

/**
 * struct ubdm_image_info - what an open image is
 * @size: sectors
 * @granule_bytes: its cluster
 * @block_size: smallest logical block in bytes
 * @discard_gran: bytes; 0: cannot discard
 * @read_only: as opened
 * @format: its name
 * @warning: one line for the user, or ""
 */
struct ubdm_image_info {
	uint64_t size;
	uint64_t granule_bytes;
	uint32_t block_size;
	uint32_t discard_gran;
	bool read_only;
	const char *format;
	const char *warning;
};

/**
 * ubdm_mapper_open - open and lock an image, to be served
 * @out: the mapper
 * @image: which
 * @ops: callbacks; must outlive the mapper
 * @ctx: for the callbacks
 * @err: why not
 */
int ubdm_mapper_open(struct ubdm_mapper **out, const struct ubdm_image *image,
		     const struct ubdm_mapper_ops *ops, void *ctx,
		     struct ubdm_err *err);

void ubdm_mapper_info(const struct ubdm_mapper *m, struct ubdm_image_info *info);

/**
 * ubdm_mapper_serve - have the device appear
 * @m: a mapper with an image
 * @channel: with a device on it (ubdm_ctl_create())
 * @block_size: the device's logical block in bytes
 * @err: why not
 *
 * Makes the calling thread the ring thread and runs ubdm_mapper_process()
 * inside: callbacks come, and whoever runs deferred jobs must be running.
 * Returns when the disk is usable.
 */
int ubdm_mapper_serve(struct ubdm_mapper *m, int channel, uint32_t block_size,
		      struct ubdm_err *err);

/**
 * ubdm_mapper_takeover - serve a device that lost its mapper
 * @out: the mapper
 * @channel: attached (ubdm_ctl_attach())
 * @dev: as ubdm_ctl_attach() told
 * @cache_bytes: as in struct ubdm_image
 * @ops: callbacks
 * @ctx: for them
 * @err: why not
 *
 * Gets the image's open files back from the kernel, reads which changes are
 * not in its metadata yet and links them, then goes on as ubdm_mapper_serve().
 * On failure the device is as orphaned as before.
 */
int ubdm_mapper_takeover(struct ubdm_mapper **out, int channel,
			 const struct ubdm_device *dev, uint64_t cache_bytes,
			 const struct ubdm_mapper_ops *ops, void *ctx,
			 struct ubdm_err *err);

/**
 * ubdm_mapper_fd - an eventfd; rings when ubdm_mapper_process() has something to do
 * @m: the mapper
 *
 * Watch it for edges (EPOLLET) and leave it alone; or poll it, and read it before
 * ubdm_mapper_process().  It does not block.
 */
int ubdm_mapper_fd(const struct ubdm_mapper *m);

/**
 * ubdm_mapper_process - take what the kernel has, send what waits; never blocks
 * @m: the mapper
 *
 * Ring thread only.  Return: 0, or why the mapper is of no use any more.
 */
int ubdm_mapper_process(struct ubdm_mapper *m);

/**
 * ubdm_job_run - do a deferred job; may block
 * @job: what ubdm_mapper_process() handed out
 */
void ubdm_job_run(struct ubdm_job *job);

/**
 * ubdm_mapper_work - background work; may block
 * @m: the mapper
 *
 * Return: milliseconds until it is to be called again, -1: not before the work
 * callback asks.
 */
int ubdm_mapper_work(struct ubdm_mapper *m);

/**
 * ubdm_mapper_ahead - a step of what the ahead callback asks for; may block
 * @m: the mapper
 *
 * Any number of threads at a time.  Return: whether there is another step to do; if
 * not, the callback will tell.
 */
bool ubdm_mapper_ahead(struct ubdm_mapper *m);

/**
 * ubdm_mapper_finish - the clean end: image linked and marked clean, device gone
 * @m: the mapper, after its shutdown callback; no thread is inside
 *	ubdm_mapper_work() any more, but deferred jobs are still run
 * @err: what went wrong with the image, if something did
 *
 * Not on the ring thread, which must go on.  The device is let go in any
 * case, and the image's error reported to whoever deletes it.
 *
 * Return: 0, or the image's error.
 */
int ubdm_mapper_finish(struct ubdm_mapper *m, struct ubdm_err *err);

/**
 * ubdm_mapper_leave - make room for another mapper
 * @m: the mapper
 *
 * Commits, then ends the channel: the device is orphaned, with all that the next
 * mapper needs, and requests that were not answered yet are that one's.  End the
 * process next, or close without finishing.  Not on the ring thread.
 *
 * Return: 0; -ESHUTDOWN: the channel is as it was, for SHUTDOWN has come meanwhile,
 * and what is to be done is ubdm_mapper_finish(); or why the channel is of no use any
 * more.
 */
int ubdm_mapper_leave(struct ubdm_mapper *m);

/**
 * ubdm_mapper_detach - leave the device to the driver alone
 * @m: the mapper
 * @err: why not
 *
 * Possible if all of the image is allocated (or it is read-only) and nothing is
 * compressed: then everything is mapped, the image closed cleanly, and its locks
 * stay with the device.  End the process next.  Not on the ring thread.
 *
 * Return: 0; -ENODATA: it needs a mapper, which can go on; others: it was not
 * possible just now, and this mapper must end without finishing.
 */
int ubdm_mapper_detach(struct ubdm_mapper *m, struct ubdm_err *err);

/**
 * ubdm_mapper_abort - undo ubdm_ctl_create(): the device goes, unfinished
 * @m: the mapper
 *
 * For a start that failed.  On the ring thread, or before there is one.
 */
void ubdm_mapper_abort(struct ubdm_mapper *m);

/**
 * ubdm_mapper_close - let go of everything; without finish as a crash would
 * @m: the mapper
 */
void ubdm_mapper_close(struct ubdm_mapper *m);

#ifdef __cplusplus
}
#endif

#endif /* LIBUBDMAP_H */
