/* What P1 measures against: xgre_xdp of gre-ebpf as one would write it by hand in C, with the same
 * checks in the same order, the same look-ups and the same counters, on the same maps, and the same
 * detours for what is not of the plainest kind.
 *
 * An early end returns its outcome. */
#include "layout.h"

struct received {
	u32 id;
	struct tunnel *tunnel;
	/* Bytes of the outer IP and the GRE header, and of the packet behind them. */
	u32 overhead, room;
	u8 tos;
};

INLINE u16 fold(u64 sum)
{
	/* Halves are added both ways round: the carry comes in at the upper one. */
	u32 word = (sum + (sum << 32 | sum >> 32)) >> 32;
	return (word + (word << 16 | word >> 16)) >> 16;
}

INLINE u16 sum_ipv4(const void *header)
{
	const u32 *words = header;
	return fold((u64)words[0] + words[1] + words[2] + words[3] + words[4]);
}

INLINE int is_martian(u32 source)
{
	u8 first = source;
	return first == 0 || first == 127 || first >= 224;
}

INLINE int is_unicast(u32 destination)
{
	return !is_martian(destination);
}

INLINE void *at(void *map, u32 index)
{
	return bpf_map_lookup_elem(map, &index);
}

INLINE u32 route(u32 address)
{
	u32 host = __builtin_bswap32(address);
	struct block *block = at(&ROUTES, host >> 16);
	if (!block)
		return PUNT;
	u32 entry = block->entries[host >> 8 & 0xff];
	if (KIND(entry) != TO_BLOCK)
		return entry;
	block = at(&ROUTES, FIRST_LEVEL_BLOCKS + ID(entry));
	if (!block)
		return PUNT;
	entry = block->entries[host & 0xff];
	return KIND(entry) == TO_BLOCK ? PUNT : entry;
}

INLINE struct traffic *traffic(u32 tunnel, u32 cpu)
{
	struct tunnel_counters *counters = at(&TUNNEL_COUNTERS, tunnel * CPUS + cpu);
	return counters ? &counters->tiers[TIER_XDP] : 0;
}

INLINE void count_received(u32 tunnel, u32 bytes)
{
	struct traffic *counters = traffic(tunnel, bpf_get_smp_processor_id());
	if (counters) {
		counters->rx_packets += 1;
		counters->rx_bytes += bytes;
	}
}

INLINE u16 count_sent(u32 tunnel, u32 bytes)
{
	u32 cpu = bpf_get_smp_processor_id();
	struct traffic *counters = traffic(tunnel, cpu);
	if (!counters)
		return 0;
	u64 turn = counters->tx_packets;
	counters->tx_packets = turn + 1;
	counters->tx_bytes += bytes;
	return (turn * CPUS + cpu) * TIERS + TIER_XDP;
}

INLINE int can_redirect(const struct port *port, const struct next_hop *hop)
{
	return hop->flags & HOP_NATIVE_REDIRECT || port->flags & PORT_GENERIC;
}

INLINE int redirect(const struct next_hop *hop)
{
	return bpf_redirect_map(&TX_PORTS, hop->ifindex, 0) == XDP_REDIRECT;
}

/* --- into a tunnel ---------------------------------------------------------------------------- */

#define UNLIKE_PLAIN (TUNNEL_CHECKSUM_SENT | TUNNEL_SEQUENCE_SENT | TUNNEL_IPV6)

INLINE int is_untagged(const struct next_hop *hop)
{
	return !(hop->tags[0] | hop->tags[1]);
}

/* Whether the packet can be sent into the tunnel from here. */
INLINE int ready(const struct port *port, u32 id, u32 len, struct tunnel **tunnel,
		 struct next_hop **hop)
{
	struct tunnel *t = at(&TUNNELS, id);
	if (!t || (t->flags & (UNLIKE_PLAIN | TUNNEL_UP)) != TUNNEL_UP)
		return 0;
	struct next_hop *h = at(&NEXT_HOPS, t->next_hop);
	if (!h || !(h->flags & HOP_RESOLVED) || !is_untagged(h))
		return 0;
	if (len > t->mtu || len + t->overhead > h->mtu)
		return 0;
	if (!can_redirect(port, h))
		return 0;
	*tunnel = t;
	*hop = h;
	return 1;
}

/* Whether the tunnel lowers the packet's segment size: it is a TCP SYN. */
INLINE int is_clamped(const struct tunnel *tunnel, const struct ipv4 *inner, const void *transport,
		      const void *end)
{
	const struct tcp *tcp = transport;
	if (!tunnel->mss[0] || inner->protocol != PROTOCOL_TCP || inner->fragment & FRAGMENT_OFFSET)
		return 0;
	return (void *)(tcp + 1) <= end && tcp->flags & SYN;
}

INLINE int write_ethernet(void *data, void *end, const struct next_hop *hop)
{
	u32 *words = data;
	if (data + sizeof(struct ethernet) > end)
		return 0;
	words[0] = hop->ethernet[0];
	words[1] = hop->ethernet[1];
	words[2] = hop->ethernet[2];
	*(u16 *)(words + 3) = ETHERTYPE_IPV4;
	return 1;
}

/* The third word of a header with the TTL one less. */
INLINE u32 decremented_ttl(const struct ipv4 *header)
{
	u32 checksum = header->checksum + BE16(0x0100);
	checksum += checksum >= 0xffff;
	return (u8)(header->ttl - 1) | header->protocol << 8 | checksum << 16;
}

INLINE u32 write_outer(struct xdp_md *ctx, u32 id, const struct tunnel *tunnel,
		       const struct next_hop *hop, const struct ipv4 *inner)
{
	void *data = DATA(ctx), *end = DATA_END(ctx);
	u32 len = BE16(inner->total_len);
	u16 identification = count_sent(id, len);
	if (!write_ethernet(data, end, hop))
		return ABORTED;

	struct ipv4 outer = *(const struct ipv4 *)tunnel->outer;
	outer.tos = tunnel->flags & TUNNEL_TOS_INHERIT ? inner->tos
						       : (outer.tos & ~3) | (inner->tos & 3);
	u32 total = len + tunnel->overhead;
	outer.total_len = total > 0xffff ? 0 : BE16((u16)total);
	outer.id = BE16(identification);
	if (!(tunnel->flags & TUNNEL_IGNORE_DF))
		outer.fragment |= inner->fragment & DONT_FRAGMENT;
	if (tunnel->flags & TUNNEL_TTL_INHERIT)
		outer.ttl = inner->ttl - 1;
	outer.checksum = 0;
	outer.checksum = ~sum_ipv4(&outer);

	void *to = data + sizeof(struct ethernet);
	void *inner_at;
	if (tunnel->flags & TUNNEL_KEY) {
		inner_at = to + 28;
		if (inner_at > end)
			return ABORTED;
		*(struct ipv4 *)to = outer;
		*(u32 *)(to + 20) = tunnel->gre | (u32)ETHERTYPE_IPV4 << 16;
		*(u32 *)(to + 24) = tunnel->sent_key;
	} else {
		inner_at = to + 24;
		if (inner_at > end)
			return ABORTED;
		*(struct ipv4 *)to = outer;
		*(u32 *)(to + 20) = tunnel->gre | (u32)ETHERTYPE_IPV4 << 16;
	}
	if (inner_at + 12 > end)
		return ABORTED;
	*(u32 *)(inner_at + 8) = decremented_ttl(inner);
	return ENCAPSULATED;
}

INLINE int reverse_path(struct xdp_md *ctx, const struct port *port, u32 source)
{
	if (port->flags & PORT_REVERSE_PATH_STRICT) {
		u32 entry = route(source);
		if (KIND(entry) != TO_NEXT_HOP || IS_GROUP(entry))
			return 0;
		struct next_hop *hop = at(&NEXT_HOPS, ID(entry));
		return hop && hop->ifindex == ctx->ingress_ifindex && is_untagged(hop);
	}
	return !(port->flags & PORT_REVERSE_PATH_LOOSE) || KIND(route(source)) != PUNT;
}

INLINE u32 encapsulate(struct xdp_md *ctx, const struct port *port, void *data, void *end,
		       const struct ipv4 *inner)
{
	u32 entry = route(inner->destination);
	if (IS_GROUP(entry))
		return DETOUR;
	if (KIND(entry) != TO_TUNNEL)
		return NO_TUNNEL_ROUTE;
	if (!(port->flags & PORT_FORWARDING))
		return DETOUR;
	if (!is_unicast(inner->destination) || is_martian(inner->source) || inner->ttl <= 1)
		return DETOUR;
	struct tunnel *tunnel;
	struct next_hop *hop;
	u32 size = (u32)(end - data) - sizeof(struct ethernet);
	if (!ready(port, ID(entry), size, &tunnel, &hop))
		return DETOUR;
	if (!reverse_path(ctx, port, inner->source))
		return DETOUR;
	if (is_clamped(tunnel, inner, data + sizeof(struct ethernet) + sizeof(*inner), end))
		return DETOUR;
	if (!redirect(hop))
		return DETOUR;
	if (bpf_xdp_adjust_head(ctx, -(int)tunnel->overhead))
		return DETOUR;
	return write_outer(ctx, ID(entry), tunnel, hop, inner);
}

/* --- out of a tunnel -------------------------------------------------------------------------- */

/* Of a tunnel that takes plain packets: what it must be, and what it must not. */
#define FOUND_PLAIN                                                                                \
	(TUNNEL_UP | TUNNEL_KEY | TUNNEL_CHECKSUM | TUNNEL_SEQUENCE | TUNNEL_ETHERNET |            \
	 TUNNEL_IPV6 | TUNNEL_LOCAL_ANY | TUNNEL_REMOTE_ANY)

/* The tunnel between these addresses; `keyed` is 1 where it has a key. */
INLINE struct tunnel *find(u32 local, u32 remote, u32 keyed, u32 key, u32 *id)
{
	u64 hash = (u64)local << 32 | remote;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash ^= (u64)keyed << 32 | key;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	hash ^= hash >> 29;
	u32 wanted = TUNNEL_UP | (keyed ? TUNNEL_KEY : 0);
	u32 fingerprint = hash >> 32 | 1;
	u32 number = (u32)hash & DEMUX_MASK;
#pragma unroll
	for (int i = 0; i < 2; i++) {
		struct bucket *bucket = at(&DEMUX, number);
		if (!bucket)
			return 0;
		u32 found = 0;
#pragma unroll
		for (int slot = 0; slot < SLOTS; slot++)
			if (bucket->slots[slot] >> 32 == fingerprint) {
				found = bucket->slots[slot];
				break;
			}
		if (found) {
			struct tunnel *tunnel = at(&TUNNELS, found - 1);
			if (tunnel && (tunnel->flags & FOUND_PLAIN) == wanted &&
			    tunnel->key == key && tunnel->outer[3] == local &&
			    tunnel->outer[4] == remote) {
				*id = found - 1;
				return tunnel;
			}
		}
		number ^= (fingerprint * 0x5bd1e995 | 1) & DEMUX_MASK;
	}
	return 0;
}

/* Finds the tunnel of a GRE packet: DECAPSULATED, or a detour. */
INLINE u32 receive(const struct port *port, void *data, void *end, const struct ipv4 *outer,
		   struct received *received)
{
	u32 *gre = data + sizeof(struct ethernet) + sizeof(struct ipv4);
	u32 len = BE16(outer->total_len), keyed = 0, key = 0;
	if (outer->fragment & FRAGMENT || port->flags & PORT_TUNNEL_BOUND || (void *)(gre + 1) > end)
		return DETOUR;
	if (*gre == KEYED) {
		if ((void *)(gre + 2) > end)
			return DETOUR;
		keyed = 1;
		key = gre[1];
	} else if (*gre != KEYLESS) {
		return *gre == FRAME || *gre == KEYED_FRAME ? DETOUR_OF_FRAMES : DETOUR;
	}
	received->overhead = sizeof(struct ipv4) + (keyed ? 8 : 4);
	if (len < received->overhead)
		return DETOUR;
	received->room = len - received->overhead;
	received->tos = outer->tos;
	received->tunnel = find(outer->destination, outer->source, keyed, key, &received->id);
	return received->tunnel ? DECAPSULATED : DETOUR;
}

/* Whether the inner packet may be let out of the tunnel as it is. */
INLINE int inspect(void *data, void *end, const struct received *received, struct ipv4 *inner)
{
	struct ipv4 *header = data + sizeof(struct ethernet) + received->overhead;
	if ((void *)(header + 1) > end || received->room < sizeof(*header))
		return 0;
	*inner = *header;
	/* RFC 6040: the outer header has met no congestion. */
	if (inner->version_length != 0x45 ||
	    (received->tos & 3 && (received->tos ^ inner->tos) & 3))
		return 0;
	u32 len = BE16(inner->total_len);
	return len >= sizeof(*inner) && len <= received->room && sum_ipv4(inner) == 0xffff &&
	       !is_martian(inner->source);
}

INLINE int reverse_path_of(const struct received *received, u32 source)
{
	u32 flags = received->tunnel->flags;
	if (!(flags & (TUNNEL_REVERSE_PATH_STRICT | TUNNEL_REVERSE_PATH_LOOSE)))
		return 1;
	u32 entry = route(source);
	if (entry == (TO_TUNNEL << 30 | received->id))
		return 1;
	return KIND(entry) != PUNT && !(flags & TUNNEL_REVERSE_PATH_STRICT);
}

INLINE u32 decapsulate(struct xdp_md *ctx, const struct port *port, void *data, void *end,
		       const struct received *received)
{
	struct ipv4 inner;
	if (!inspect(data, end, received, &inner))
		return DETOUR;
	u32 inner_at = sizeof(struct ethernet) + received->overhead;
	void *transport = data + inner_at + sizeof(inner);
	if (is_clamped(received->tunnel, &inner, transport, end))
		return DETOUR;
	u32 len = BE16(inner.total_len), from = TO_TUNNEL << 30 | received->id;
	u32 size = (u32)(end - data) - inner_at;
	u32 entry = route(inner.destination);
	int unicast = is_unicast(inner.destination);
	if (IS_GROUP(entry))
		return DETOUR;
	if (entry == from && unicast)
		return DETOUR;
	struct tunnel *tunnel = 0;
	struct next_hop *hop = 0;
	if (received->tunnel->flags & TUNNEL_FORWARDING && inner.ttl > 1 && unicast &&
	    reverse_path_of(received, inner.source)) {
		if (KIND(entry) == TO_NEXT_HOP) {
			hop = at(&NEXT_HOPS, ID(entry));
			if (hop && !(hop->flags & HOP_RESOLVED && size <= hop->mtu &&
				     can_redirect(port, hop)))
				hop = 0;
			if (hop && !is_untagged(hop))
				return DETOUR;
		} else if (KIND(entry) == TO_TUNNEL) {
			if (!ready(port, ID(entry), size, &tunnel, &hop))
				return DETOUR;
			if (is_clamped(tunnel, &inner, transport, end))
				return DETOUR;
		}
	}
	int to_device = !hop;
	if (to_device) {
		if (size > received->tunnel->mtu)
			return DETOUR;
		hop = at(&NEXT_HOPS, received->tunnel->device);
		if (!hop || !can_redirect(port, hop))
			return DETOUR;
	}
	if (!redirect(hop))
		return DETOUR;
	int surplus = received->overhead;
	if (tunnel)
		surplus -= tunnel->overhead;
	if ((!tunnel || surplus) && bpf_xdp_adjust_head(ctx, surplus))
		return DETOUR;
	count_received(received->id, len);
	if (tunnel)
		return write_outer(ctx, ID(entry), tunnel, hop, &inner) == ABORTED ? ABORTED
										    : TRANSIT;
	data = DATA(ctx);
	end = DATA_END(ctx);
	if (!write_ethernet(data, end, hop))
		return ABORTED;
	if (to_device)
		return TO_DEVICE;
	if (data + sizeof(struct ethernet) + 12 > end)
		return ABORTED;
	*(u32 *)(data + sizeof(struct ethernet) + 8) = decremented_ttl(&inner);
	return DECAPSULATED;
}

/* --- both ------------------------------------------------------------------------------------- */

INLINE u32 forward(struct xdp_md *ctx)
{
	struct port *port = at(&PORTS, ctx->ingress_ifindex);
	if (!port || !(port->flags & PORT_VALID))
		return UNKNOWN_PORT;
	void *data = DATA(ctx), *end = DATA_END(ctx);
	struct ethernet *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return NOT_IP;
	int is_for_us = *(u32 *)data == *(u32 *)port && ethernet->destination[2] == port->mac[2];
	int is_bridged = !is_for_us && port->flags & PORT_BRIDGED;
	if (ethernet->type != ETHERTYPE_IPV4)
		return is_bridged ? DETOUR_OF_FRAMES : DETOUR;
	if (!is_for_us)
		return is_bridged ? DETOUR_OF_FRAMES : OTHER_HOST;
	struct ipv4 *at = data + sizeof(*ethernet);
	if ((void *)(at + 1) > end)
		return DETOUR;
	struct ipv4 header = *at;
	u32 len = BE16(header.total_len);
	if (header.version_length != 0x45 || len < sizeof(header) ||
	    (u32)(end - data) < sizeof(*ethernet) + len || sum_ipv4(&header) != 0xffff)
		return DETOUR;
	if (header.protocol != PROTOCOL_GRE)
		return encapsulate(ctx, port, data, end, &header);
	struct received received;
	u32 outcome = receive(port, data, end, &header, &received);
	if (outcome != DECAPSULATED)
		return outcome;
	return decapsulate(ctx, port, data, end, &received);
}

SEC("xdp.frags") int gateway(struct xdp_md *ctx)
{
	u32 outcome = forward(ctx);
	if (outcome == DETOUR)
		bpf_tail_call(ctx, &DETOURS, DETOUR_TO_ANY);
	if (outcome == DETOUR_OF_FRAMES)
		bpf_tail_call(ctx, &DETOURS, DETOUR_TO_FRAMES);
	struct outcome_counters *outcomes =
		at(&OUTCOMES, bpf_get_smp_processor_id() * TIERS + TIER_XDP);
	if (outcomes)
		outcomes->counts[outcome & (MAX_OUTCOMES - 1)] += 1;
	if (outcome <= TO_DEVICE)
		return XDP_REDIRECT;
	return outcome == ABORTED ? XDP_ABORTED : XDP_PASS;
}
