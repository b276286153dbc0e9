/* The end of the line: counts and drops. */
#include "bpf.h"

#define TC_SHOT 2 /* TC_ACT_SHOT */

struct {
	UINT(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	UINT(max_entries, 1);
	TYPE(key, u32);
	TYPE(value, u64);
} RECEIVED SEC(".maps");

SEC("xdp") int sink(struct xdp_md *ctx)
{
	u32 zero = 0;
	u64 *received = bpf_map_lookup_elem(&RECEIVED, &zero);
	if (received)
		*received += 1;
	return XDP_DROP;
}

/* The same where a frame comes as an skb, for which XDP would have to copy it. */
SEC("classifier") int sink_tc(struct __sk_buff *skb)
{
	u32 zero = 0;
	u64 *received = bpf_map_lookup_elem(&RECEIVED, &zero);
	if (received)
		*received += 1;
	return TC_SHOT;
}
