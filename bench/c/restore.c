/* BPF_PROG_TEST_RUN hands a packet to its next run as the last one left it. This program makes it
 * what it was, then runs the program under test. */
#include "bpf.h"

#define TEMPLATE_WORDS 12 /* 96 bytes: more than all headers */

struct template {
	u64 words[TEMPLATE_WORDS];
	u64 length;
};

ARRAY(TEMPLATE, struct template, 0);

struct {
	UINT(type, BPF_MAP_TYPE_PROG_ARRAY);
	UINT(max_entries, 1);
	UINT(key_size, 4);
	UINT(value_size, 4);
} SUBJECT SEC(".maps");

SEC("xdp.frags") int restore(struct xdp_md *ctx)
{
	u32 zero = 0;
	struct template *template = bpf_map_lookup_elem(&TEMPLATE, &zero);
	if (!template)
		return XDP_ABORTED;
	long length = DATA_END(ctx) - DATA(ctx);
	/* The verifier subtracts pointers from each other, but nothing else from them. */
	asm volatile("" : "+r"(length));
	int grown = length - (long)template->length;
	/* Also where there is nothing to move, so that it costs the same in every case. */
	if (bpf_xdp_adjust_head(ctx, grown))
		return XDP_ABORTED;
	u64 *words = DATA(ctx);
	if ((void *)(words + TEMPLATE_WORDS) > DATA_END(ctx))
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < TEMPLATE_WORDS; i++)
		words[i] = template->words[i];
	bpf_tail_call(ctx, &SUBJECT, 0);
	return XDP_ABORTED;
}

/* The subject whose cost is that of restoring. */
SEC("xdp.frags") int nothing(struct xdp_md *ctx)
{
	return XDP_PASS;
}
