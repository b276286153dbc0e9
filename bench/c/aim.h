/* What is sent, as user space has prepared it: one packet, and where each goes. */
#pragma once

#include "bpf.h"

#define TEMPLATE_WORDS 12 /* 96 bytes: more than all headers */

struct template {
	u64 words[TEMPLATE_WORDS];
	/* In memory order: of the inner IPv4 header with a destination of zero, and of the outer one,
	 * if there is one, with a source of zero. */
	u64 inner_sum, outer_sum;
	/* Bytes of the packet. */
	u32 length;
	/* Where the inner header stands, and the outer one; 0 is none. */
	u16 inner, outer;
	/* Where the last two bytes of the inner MAC address stand; 0 is none. */
	u16 station;
	u16 reserved[3];
	/* Targets, a power of two, less one. */
	u32 mask;
	u32 turn;
};

/* Addresses are in memory order. */
struct target {
	u32 destination;
	/* Of the outer header. */
	u32 source;
	u16 station, reserved;
	u32 reserved2;
};

ARRAY(TEMPLATE, struct template, BPF_F_MMAPABLE);
/* The loader says how many. */
ARRAY(TARGETS, struct target, BPF_F_MMAPABLE);

INLINE u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

/* An offset that the verifier knows to be one into a packet. */
#define OFFSET(value) ((value) & 0x7f)

/* Writes the next packet; 0 where there is no room. */
INLINE int aim(struct template *template, void *data, void *end)
{
	u64 *words = data;
	if ((void *)(words + TEMPLATE_WORDS) > end)
		return 0;
#pragma unroll
	for (int i = 0; i < TEMPLATE_WORDS; i++)
		words[i] = template->words[i];

	u32 turn = template->turn++ & template->mask;
	struct target *target = bpf_map_lookup_elem(&TARGETS, &turn);
	if (!target)
		return 0;
	void *inner = data + OFFSET(template->inner);
	if (inner + 20 > end)
		return 0;
	*(u16 *)(inner + 10) = ~fold(template->inner_sum + target->destination);
	*(u32 *)(inner + 16) = target->destination;
	if (template->outer) {
		void *outer = data + OFFSET(template->outer);
		if (outer + 20 > end)
			return 0;
		*(u16 *)(outer + 10) = ~fold(template->outer_sum + target->source);
		*(u32 *)(outer + 12) = target->source;
	}
	if (template->station) {
		void *station = data + OFFSET(template->station);
		if (station + 2 > end)
			return 0;
		*(u16 *)station = target->station;
	}
	return 1;
}
