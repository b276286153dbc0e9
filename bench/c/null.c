/* The least that a forwarding program can do, which P2 measures against: swaps the MAC addresses
 * and redirects. */
#include "bpf.h"

volatile const u32 TARGET = 0;

REDIRECT_TARGETS(NULL_PORTS, 1024);

struct ethernet {
	u16 destination[3], source[3], type;
};

SEC("xdp") int null_redirect(struct xdp_md *ctx)
{
	struct ethernet *ethernet = DATA(ctx);
	if ((void *)(ethernet + 1) > DATA_END(ctx))
		return XDP_DROP;
	for (int i = 0; i < 3; i++) {
		u16 word = ethernet->destination[i];
		ethernet->destination[i] = ethernet->source[i];
		ethernet->source[i] = word;
	}
	return bpf_redirect_map(&NULL_PORTS, TARGET, 0);
}
