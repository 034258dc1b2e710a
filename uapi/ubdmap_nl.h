/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * ubdmap_nl.h - control plane of ubdmap: generic netlink family "ubdmap".
 *
 * No request waits until a mapper has done something: DELETE is queued, and the
 * state in GET (or an event) tells how it ended; what CREATE made gets its disk
 * with START.  Only ATTACH waits, for a command that the mapper before may have
 * under way; who is killed meanwhile has -EINTR.
 *
 * A request that changes a device is for its owner (the user who opened the
 * channel it was created on) or for CAP_SYS_ADMIN.
 */
#ifndef _UAPI_UBDMAP_NL_H
#define _UAPI_UBDMAP_NL_H

#define UBDM_GENL_NAME		"ubdmap"
#define UBDM_GENL_VERSION	1
#define UBDM_GENL_MCGRP		"events"	/* needs CAP_SYS_ADMIN */

enum ubdm_nl_cmd {
	UBDM_NL_UNSPEC,
	UBDM_NL_CREATE,		/* CHANNEL_FD, SIZE, ... -> INDEX */
	UBDM_NL_ATTACH,		/* CHANNEL_FD, INDEX -> as GET */
	UBDM_NL_DELETE,		/* INDEX, [FORCE] */
	UBDM_NL_RESIZE,		/* reserved: -EOPNOTSUPP */
	UBDM_NL_GET,		/* [INDEX]; dump without */
	UBDM_NL_STATS,		/* INDEX -> STATS nest */
	UBDM_NL_EVENT,		/* multicast: EVENT, INDEX, [ERROR] */
	UBDM_NL_EXTENTS,	/* INDEX; dump: EXTENT nests, for `ubdmap map` */
	__UBDM_NL_MAX,
};

enum ubdm_nl_attr {
	UBDM_A_UNSPEC,
	UBDM_A_PAD,
	UBDM_A_INDEX,		/* u32: N of /dev/ubdmapN; CREATE: wanted, else lowest free */
	UBDM_A_CHANNEL_FD,	/* u32 */
	UBDM_A_SIZE,		/* u64 sectors */
	UBDM_A_BLOCK_SIZE,	/* u32 bytes, logical: 512..4096 */
	UBDM_A_PHYS_BLOCK_SIZE,	/* u32 bytes */
	UBDM_A_IO_OPT,		/* u32 bytes */
	UBDM_A_DISCARD_GRAN,	/* u32 bytes; 0: no discard */
	UBDM_A_FLAGS,		/* u64: UBDM_DEV_F_* */
	UBDM_A_IDENT,		/* string: what it serves, for people (a path) */
	UBDM_A_FORMAT,		/* string: its format, for people */
	UBDM_A_STATE,		/* u32: enum ubdm_dev_state */
	UBDM_A_MAPPER_PID,	/* u32: 0 if none */
	UBDM_A_OWNER_UID,	/* u32 */
	UBDM_A_OPENERS,		/* u32 */
	UBDM_A_FORCE,		/* flag */
	UBDM_A_STATS,		/* nest: u64 each, UBDM_S_* */
	UBDM_A_EVENT,		/* u32: enum ubdm_event */
	UBDM_A_ERROR,		/* s32: -errno */
	UBDM_A_EXTENT,		/* binary: struct ubdm_extent */
	UBDM_A_MAX_EXTENTS,	/* u64: bound of the TLB; 0: the default */
	UBDM_A_ORPHAN_TIMEOUT,	/* u32 seconds parked requests wait for a mapper; 0: forever */
	UBDM_A_SPACE_TIMEOUT,	/* u32 seconds writes wait for space; 0: forever; CREATE: else 60 */
	UBDM_A_TROUBLE,		/* u32: UBDM_TROUBLE_*, now */
	UBDM_A_SECTOR,		/* u64: STALLED: where the miss begins */
	UBDM_A_SECTORS,		/* u64: STALLED: what it wants */
	UBDM_A_KIND,		/* u32: STALLED: UBDM_FAULT_* */
	UBDM_A_WAITED,		/* u32 ms: STALLED: so far */
	__UBDM_A_MAX,
};
#define UBDM_A_MAX (__UBDM_A_MAX - 1)

/* UBDM_A_FLAGS */
#define UBDM_DEV_F_RO		(1ULL << 0)
#define UBDM_DEV_F_PARTSCAN	(1ULL << 1)
#define UBDM_DEV_F_UNPRIVILEGED	(1ULL << 2)	/* kernel-set */

/* UBDM_A_TROUBLE */
#define UBDM_TROUBLE_STALLED	(1U << 0)	/* the mapper does not answer a miss */
#define UBDM_TROUBLE_SPACE	(1U << 1)	/* writes wait for space below */

enum ubdm_dev_state {
	UBDM_STATE_NEW,		/* created, not started */
	UBDM_STATE_LIVE,
	UBDM_STATE_ORPHANED,	/* no mapper: hits go on, misses wait */
	UBDM_STATE_FAILED,	/* a sync failed: reads only */
	UBDM_STATE_DYING,	/* being deleted */
	UBDM_STATE_DETACHED,	/* no mapper, and none is needed: all is mapped */
};

enum ubdm_event {
	UBDM_EV_CREATED,
	UBDM_EV_LIVE,
	UBDM_EV_ORPHANED,
	UBDM_EV_ATTACHED,
	UBDM_EV_DELETED,
	UBDM_EV_STALLED,	/* a miss waits longer than it should */
	UBDM_EV_BACKING_ERROR,
	UBDM_EV_SPACE,		/* a fault is held for space */
	UBDM_EV_RESIZED,	/* reserved: nothing sends it */
	UBDM_EV_RECOVERED,	/* of what STALLED or SPACE told */
	UBDM_EV_DETACHED,
};

enum ubdm_stat {
	UBDM_S_UNSPEC,
	UBDM_S_PAD,
	UBDM_S_READ_HITS,	/* bios (or parts) served by an extent */
	UBDM_S_WRITE_HITS,
	UBDM_S_READ_MISSES,	/* bios (or parts) that had to park */
	UBDM_S_WRITE_MISSES,
	UBDM_S_ZERO_FILLS,
	UBDM_S_READ_SECTORS,
	UBDM_S_WRITE_SECTORS,
	UBDM_S_FAULTS,		/* delivered to a mapper */
	UBDM_S_FLUSH_KERNEL,	/* flushes the kernel did alone */
	UBDM_S_FLUSH_MAPPER,
	UBDM_S_EXTENTS,		/* in the TLB now */
	UBDM_S_EVICTED,
	UBDM_S_PARKED,		/* bios waiting now */
	UBDM_S_BACKINGS,
	UBDM_S_INLINE,		/* file hits issued by the submitter */
	UBDM_S_WORKER,		/* file hits issued by a worker */
	UBDM_S_ERRORS,		/* bios failed */
	UBDM_S_MAX_TID,
	UBDM_S_COMMITTED_TID,
	UBDM_S_WAITING_MS,	/* the oldest miss waits so long now */
	UBDM_S_LONGEST_MS,	/* a miss has waited, of those since the mapper attached */
	__UBDM_S_MAX,
};
#define UBDM_S_MAX (__UBDM_S_MAX - 1)

#endif /* _UAPI_UBDMAP_NL_H */
