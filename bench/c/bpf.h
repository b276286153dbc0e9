/* What the C programs need of the kernel, so that they depend on linux/bpf.h alone. */
#pragma once

#include <linux/bpf.h>

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;

#define SEC(name) __attribute__((section(name), used))
#define INLINE static inline __attribute__((always_inline))

/* BTF-defined maps, as libbpf and aya read them. */
#define UINT(name, value) int(*name)[value]
#define TYPE(name, type) type *name

#define ARRAY(name, value_type, bits)                                                              \
	struct {                                                                                   \
		UINT(type, BPF_MAP_TYPE_ARRAY);                                                    \
		UINT(max_entries, 1);                                                              \
		UINT(map_flags, bits);                                                             \
		TYPE(key, u32);                                                                    \
		TYPE(value, value_type);                                                           \
	} name SEC(".maps")

/* From a number to what the kernel knows by one: devices, or programs. */
#define BY_NUMBER(kind, name, entries)                                                             \
	struct {                                                                                   \
		UINT(type, kind);                                                                  \
		UINT(max_entries, entries);                                                        \
		UINT(key_size, 4);                                                                 \
		UINT(value_size, 4);                                                               \
	} name SEC(".maps")
#define REDIRECT_TARGETS(name, entries) BY_NUMBER(BPF_MAP_TYPE_DEVMAP, name, entries)
#define PROGRAMS(name, entries) BY_NUMBER(BPF_MAP_TYPE_PROG_ARRAY, name, entries)

static void *(*const bpf_map_lookup_elem)(void *map, const void *key) = (void *)1;
static u64 (*const bpf_ktime_get_ns)(void) = (void *)5;
static u32 (*const bpf_get_smp_processor_id)(void) = (void *)8;
static long (*const bpf_skb_store_bytes)(struct __sk_buff *skb, u32 offset, const void *from, u32 len,
					 u64 flags) = (void *)9;
static long (*const bpf_tail_call)(void *ctx, void *map, u32 index) = (void *)12;
static long (*const bpf_xdp_adjust_head)(struct xdp_md *ctx, int delta) = (void *)44;
static long (*const bpf_redirect_map)(void *map, u64 key, u64 flags) = (void *)51;

#define DATA(ctx) ((void *)(long)(ctx)->data)
#define DATA_END(ctx) ((void *)(long)(ctx)->data_end)

char LICENSE[] SEC("license") = "GPL";
