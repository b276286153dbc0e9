/* The layouts of gre-ebpf-common, as C. Addresses and header words are in memory order. */
#pragma once

#include "bpf.h"

#define TIERS 2
#define TIER_XDP 0
#define MAX_OUTCOMES 128

enum outcome {
	ENCAPSULATED = 0,
	DECAPSULATED = 1,
	TRANSIT = 2,
	TO_DEVICE = 3,
	UNKNOWN_PORT = 8,
	OTHER_HOST = 9,
	NOT_IP = 10,
	NO_TUNNEL_ROUTE = 13,
	DETOUR = 31,
	ABORTED = 50,
	DETOUR_OF_FRAMES = 100,
};

struct port {
	u16 mac[3];
	u16 flags;
	u32 tunnel, reserved;
};
#define PORT_VALID 1
#define PORT_FORWARDING 2
#define PORT_GENERIC 4
#define PORT_REVERSE_PATH_STRICT 8
#define PORT_REVERSE_PATH_LOOSE 16
#define PORT_TUNNEL_BOUND 64
#define PORT_BRIDGED 256

struct tunnel {
	u32 flags, next_hop, device, ifindex, key;
	u16 mtu, overhead;
	u32 outer[5], gre, sent_key;
	u16 mss[2], path_mtu, reserved;
	u32 link;
};
#define TUNNEL_UP 1
#define TUNNEL_KEY 2
#define TUNNEL_TTL_INHERIT 4
#define TUNNEL_TOS_INHERIT 8
#define TUNNEL_FORWARDING 16
#define TUNNEL_REVERSE_PATH_STRICT 32
#define TUNNEL_REVERSE_PATH_LOOSE 64
#define TUNNEL_CHECKSUM (1 << 7)
#define TUNNEL_SEQUENCE (1 << 8)
#define TUNNEL_CHECKSUM_SENT (1 << 10)
#define TUNNEL_SEQUENCE_SENT (1 << 11)
#define TUNNEL_IPV6 (1 << 12)
#define TUNNEL_IGNORE_DF (1 << 15)
#define TUNNEL_LOCAL_ANY (1 << 17)
#define TUNNEL_REMOTE_ANY (1 << 18)
#define TUNNEL_ETHERNET (1 << 20)

struct next_hop {
	u32 ethernet[3];
	u32 ifindex, mtu, flags, tags[2];
};
#define HOP_RESOLVED 1
#define HOP_NATIVE_REDIRECT 2

#define SLOTS 8
struct bucket {
	u64 slots[SLOTS];
};

#define BLOCK 256
#define FIRST_LEVEL_BLOCKS 65536
struct block {
	u32 entries[BLOCK];
};
enum { PUNT = 0, TO_TUNNEL = 1, TO_NEXT_HOP = 2, TO_BLOCK = 3 };
#define ID(entry) ((entry) & 0x3fffffff)
#define KIND(entry) ((entry) >> 30)
/* One of several next hops. */
#define IS_GROUP(entry) ((entry) >> 29 == (TO_NEXT_HOP << 1 | 1))

struct traffic {
	u64 rx_packets, rx_bytes, tx_packets, tx_bytes;
};
struct tunnel_counters {
	struct traffic tiers[TIERS];
};
struct outcome_counters {
	u64 counts[MAX_OUTCOMES];
};

struct ethernet {
	u16 destination[3], source[3], type;
};
struct ipv4 {
	u8 version_length, tos;
	u16 total_len, id, fragment;
	u8 ttl, protocol;
	u16 checksum;
	u32 source, destination;
};
struct tcp {
	u16 ports[2];
	u32 sequence, acknowledgement;
	u8 offset, flags;
};
#define SYN 2

#define BE16(value) __builtin_bswap16(value)
#define ETHERTYPE_IPV4 BE16(0x0800)
#define PROTOCOL_GRE 47
#define PROTOCOL_TCP 6
#define FRAGMENT BE16(0x3fff)
#define FRAGMENT_OFFSET BE16(0x1fff)
#define DONT_FRAGMENT BE16(0x4000)

/* The first word of GRE headers, in memory order: flags and protocol type. */
#define WORD(flags, protocol) ((u32)BE16(flags) | (u32)BE16(protocol) << 16)
#define KEYLESS WORD(0, 0x0800)
#define KEYED WORD(0x2000, 0x0800)
#define FRAME WORD(0, 0x6558)
#define KEYED_FRAME WORD(0x2000, 0x6558)

#define MMAPABLE BPF_F_MMAPABLE
ARRAY(PORTS, struct port, MMAPABLE);
ARRAY(TUNNELS, struct tunnel, MMAPABLE);
ARRAY(DEMUX, struct bucket, MMAPABLE);
ARRAY(NEXT_HOPS, struct next_hop, MMAPABLE);
ARRAY(ROUTES, struct block, MMAPABLE);
ARRAY(TUNNEL_COUNTERS, struct tunnel_counters, MMAPABLE);
ARRAY(OUTCOMES, struct outcome_counters, MMAPABLE);
REDIRECT_TARGETS(TX_PORTS, 1);
PROGRAMS(DETOURS, 2);
#define DETOUR_TO_ANY 0
#define DETOUR_TO_FRAMES 1

/* Set by the loader and then frozen. */
volatile const u32 CPUS = 1;
volatile const u32 DEMUX_MASK = 0;
