/* Sends frames by BPF_F_TEST_XDP_LIVE_FRAMES. The kernel recycles the pages, and with them what the
 * programs down the line wrote into them, so all headers are written anew each time. */
#include "bpf.h"

#define TEMPLATE_WORDS 12 /* 96 bytes: more than all headers */

volatile const u32 TARGET = 0;
/* Where the IPv4 header stands whose destination goes round. */
volatile const u32 INNER = 0;
/* Where the last two bytes of the MAC address stand that goes round with it; 0 is none. */
volatile const u32 STATION = 0;
/* Destinations, a power of two, less one: each in a /24 of its own. */
volatile const u32 DESTINATIONS_MASK = 0;

struct template {
	u64 words[TEMPLATE_WORDS];
	/* Of the inner header with a destination of zero, in memory order. */
	u64 sum;
	/* The first destination, host order. */
	u32 destination;
	u32 reserved;
};

ARRAY(TEMPLATE, struct template, 0);
ARRAY(TURN, u64, 0);
REDIRECT_TARGETS(GENERATOR_PORTS, 1024);

INLINE u16 fold(u64 sum)
{
	sum = (sum & 0xffffffff) + (sum >> 32);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	sum = (sum & 0xffff) + (sum >> 16);
	return sum;
}

SEC("xdp") int generate(struct xdp_md *ctx)
{
	u32 zero = 0;
	struct template *template = bpf_map_lookup_elem(&TEMPLATE, &zero);
	u64 *turn = bpf_map_lookup_elem(&TURN, &zero);
	u64 *words = DATA(ctx);
	if (!template || !turn || (void *)(words + TEMPLATE_WORDS) > DATA_END(ctx))
		return XDP_ABORTED;
#pragma unroll
	for (int i = 0; i < TEMPLATE_WORDS; i++)
		words[i] = template->words[i];

	/* An odd step visits every destination, and none that the cache would guess. */
	u32 n = (*turn)++ * 2654435761u & DESTINATIONS_MASK;
	u32 destination = __builtin_bswap32(template->destination + (n << 8));
	void *inner = DATA(ctx) + INNER;
	if (inner + 20 > DATA_END(ctx))
		return XDP_ABORTED;
	*(u16 *)(inner + 10) = ~fold(template->sum + destination);
	*(u32 *)(inner + 16) = destination;
	if (STATION) {
		void *station = DATA(ctx) + STATION;
		if (station + 2 > DATA_END(ctx))
			return XDP_ABORTED;
		*(u16 *)station = __builtin_bswap16(n);
	}
	return bpf_redirect_map(&GENERATOR_PORTS, TARGET, 0);
}
