/* The layouts of gre-ebpf-common, as C. Addresses and header words are in memory order. */
#pragma once

#include "bpf.h"

#define TIERS 2
#define TIER_XDP 0
#define MAX_OUTCOMES 64
#define NO_TUNNEL 0xffffffff

enum outcome {
	ENCAPSULATED = 0,
	DECAPSULATED = 1,
	TRANSIT = 2,
	TO_DEVICE = 3,
	UNKNOWN_PORT = 8,
	OTHER_HOST = 9,
	NOT_IPV4 = 10,
	IPV4_OPTIONS = 11,
	IPV4_MALFORMED = 12,
	NO_TUNNEL_ROUTE = 13,
	FORWARDING_OFF = 14,
	TTL_EXPIRING = 15,
	TOO_BIG = 16,
	NEXT_HOP_UNRESOLVED = 17,
	TUNNEL_DOWN = 18,
	OUTER_FRAGMENT = 19,
	NO_TUNNEL_FOR_GRE = 20,
	REVERSE_PATH = 21,
	EGRESS_WITHOUT_XDP = 22,
	NO_HEADROOM = 23,
	NOT_UNICAST = 24,
	PPTP = 25,
	GRE_TRUNCATED = 32,
	GRE_VERSION_WRONG = 33,
	GRE_ROUTING_SET = 34,
	GRE_RESERVED_SET = 35,
	KEY_MISSING = 36,
	KEY_UNEXPECTED = 37,
	KEY_MISMATCH = 38,
	CHECKSUM_UNEXPECTED = 39,
	PROTOCOL_UNSUPPORTED = 40,
	INNER_TRUNCATED = 41,
	INNER_MALFORMED = 42,
	INNER_CHECKSUM = 43,
	INNER_MARTIAN = 44,
	LOOP = 45,
	ABORTED = 50,
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

struct next_hop {
	u32 ethernet[3];
	u32 ifindex, mtu, flags, reserved[2];
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
struct gre {
	u16 flags, protocol;
};

#define BE16(value) __builtin_bswap16(value)
#define ETHERTYPE_IPV4 BE16(0x0800)
#define PROTOCOL_GRE 47
#define FRAGMENT BE16(0x3fff)
#define DONT_FRAGMENT BE16(0x4000)

#define GRE_VERSION BE16(0x0007)
#define GRE_ROUTING BE16(0x4000)
#define GRE_RESERVED BE16(0x0c00)
#define GRE_CHECKSUM BE16(0x8000)
#define GRE_KEY BE16(0x2000)
#define GRE_SEQUENCE BE16(0x1000)

#define MMAPABLE BPF_F_MMAPABLE
ARRAY(PORTS, struct port, MMAPABLE);
ARRAY(TUNNELS, struct tunnel, MMAPABLE);
ARRAY(DEMUX, struct bucket, MMAPABLE);
ARRAY(NEXT_HOPS, struct next_hop, MMAPABLE);
ARRAY(ROUTES, struct block, MMAPABLE);
ARRAY(TUNNEL_COUNTERS, struct tunnel_counters, MMAPABLE);
ARRAY(TUNNEL_DROPS, struct outcome_counters, MMAPABLE);
ARRAY(OUTCOMES, struct outcome_counters, MMAPABLE);
REDIRECT_TARGETS(TX_PORTS, 1);

/* Set by the loader and then frozen. */
volatile const u32 CPUS = 1;
volatile const u32 DEMUX_MASK = 0;
