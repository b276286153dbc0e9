/* BPF_PROG_TEST_RUN hands a packet to its next run as the last one left it. This program writes the next
 * packet in its place, then runs the program under test. */
#include "aim.h"

PROGRAMS(SUBJECT, 1);

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
	if (!aim(template, DATA(ctx), DATA_END(ctx)))
		return XDP_ABORTED;
	bpf_tail_call(ctx, &SUBJECT, 0);
	return XDP_ABORTED;
}

/* The subject whose cost is that of restoring. */
SEC("xdp.frags") int nothing(struct xdp_md *ctx)
{
	return XDP_PASS;
}
