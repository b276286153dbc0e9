/* Sends frames by BPF_F_TEST_XDP_LIVE_FRAMES. The kernel recycles the pages, and with them what the
 * programs down the line wrote into them, so all headers are written anew each time. */
#include "aim.h"

volatile const u32 TARGET = 0;

REDIRECT_TARGETS(GENERATOR_PORTS, 1024);

SEC("xdp") int generate(struct xdp_md *ctx)
{
	u32 zero = 0;
	struct template *template = bpf_map_lookup_elem(&TEMPLATE, &zero);
	if (!template || !aim(template, DATA(ctx), DATA_END(ctx)))
		return XDP_ABORTED;
	return bpf_redirect_map(&GENERATOR_PORTS, TARGET, 0);
}
