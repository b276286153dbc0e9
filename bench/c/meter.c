/* Measures how long frames are under way: from where they enter the first link to the end of the line. */
#include "bpf.h"

ARRAY(TAKEN, u64, BPF_F_MMAPABLE);
/* The loader says how many, a power of two. */
ARRAY(SAMPLES, u64, BPF_F_MMAPABLE);

volatile const u32 SAMPLES_MASK = 0;

#define TC_PASS -1 /* TC_ACT_UNSPEC */

/* On the way out of the sender: writes the time into the last eight bytes. */
SEC("classifier") int stamp(struct __sk_buff *skb)
{
	u64 now = bpf_ktime_get_ns();
	if (skb->len > sizeof(now))
		bpf_skb_store_bytes(skb, skb->len - sizeof(now), &now, sizeof(now), 0);
	return TC_PASS;
}

/* At the end of the line. */
SEC("xdp") int meter(struct xdp_md *ctx)
{
	u64 now = bpf_ktime_get_ns();
	u32 zero = 0;
	u64 *taken = bpf_map_lookup_elem(&TAKEN, &zero);
	long length = DATA_END(ctx) - DATA(ctx);
	/* The verifier subtracts pointers from each other, but nothing else from them. */
	asm volatile("" : "+r"(length));
	u64 *sent = DATA(ctx) + ((length - sizeof(now)) & 0xff);
	if (!taken || (void *)(sent + 1) > DATA_END(ctx))
		return XDP_DROP;
	u32 turn = (*taken)++ & SAMPLES_MASK;
	u64 *sample = bpf_map_lookup_elem(&SAMPLES, &turn);
	if (sample)
		*sample = now - *sent;
	return XDP_DROP;
}
