/* The end of the line: counts and drops. */
#include "bpf.h"

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
