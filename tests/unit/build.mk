# SPDX-License-Identifier: GPL-2.0-only
# The N-th allocation fails: see tests/fake/failalloc.h.
FAILALLOC := -Wl,--wrap=malloc,--wrap=calloc,--wrap=realloc \
	     -Wl,--wrap=reallocarray,--wrap=aligned_alloc,--wrap=strdup
test_sweep_LDFLAGS := $(FAILALLOC)
test_takeover_LDFLAGS := $(FAILALLOC)
# Of the tool, and making a thread fails.
test_workers_SRCS := tools/workers.c
test_workers_LDFLAGS := -Wl,--wrap=pthread_create
test_text_SRCS := tools/text.c
test_options_SRCS := tools/options.c tools/flags.c tools/size.c tools/say.c tools/text.c
# Files of any size of block.
test_odd_end_LDFLAGS := -Wl,--wrap=statx
# Of the tool, and the driver is ours, as is the time.
test_room_SRCS := tools/mapper_start.c
test_room_LDFLAGS := -Wl,--wrap=open,--wrap=poll -Wl,--wrap=ubdm_ctl_open,--wrap=ubdm_ctl_get \
		     -Wl,--wrap=ubdm_ctl_stats \
		     -Wl,--wrap=ubdm_ctl_attach,--wrap=ubdm_ctl_reason,--wrap=ubdm_ctl_close
