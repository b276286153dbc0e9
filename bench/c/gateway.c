/* What P1 measures against: the XDP program of gre-ebpf as one would write it by hand in C, with
 * the same checks in the same order, the same look-ups and the same counters, on the same maps.
 *
 * An early end returns its outcome; `*blame` is the tunnel it is counted on. */
#include "layout.h"

struct received {
	u32 id;
	struct tunnel *tunnel;
	struct gre gre;
	u32 overhead;
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

INLINE u32 ready(const struct port *port, u32 id, u32 len, struct tunnel **tunnel,
		 struct next_hop **hop)
{
	struct tunnel *t = at(&TUNNELS, id);
	if (!t || !(t->flags & TUNNEL_UP))
		return TUNNEL_DOWN;
	struct next_hop *h = at(&NEXT_HOPS, t->next_hop);
	if (!h || !(h->flags & HOP_RESOLVED))
		return NEXT_HOP_UNRESOLVED;
	if (len > t->mtu || len + t->overhead > h->mtu)
		return TOO_BIG;
	if (!can_redirect(port, h))
		return EGRESS_WITHOUT_XDP;
	*tunnel = t;
	*hop = h;
	return ENCAPSULATED;
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
		if (KIND(entry) != TO_NEXT_HOP)
			return 0;
		struct next_hop *hop = at(&NEXT_HOPS, ID(entry));
		return hop && hop->ifindex == ctx->ingress_ifindex;
	}
	return !(port->flags & PORT_REVERSE_PATH_LOOSE) || KIND(route(source)) != PUNT;
}

INLINE u32 encapsulate(struct xdp_md *ctx, const struct port *port, const struct ipv4 *inner,
		       u32 size)
{
	u32 entry = route(inner->destination);
	if (KIND(entry) != TO_TUNNEL)
		return inner->protocol == PROTOCOL_GRE && KIND(entry) == PUNT ? NO_TUNNEL_FOR_GRE
									     : NO_TUNNEL_ROUTE;
	if (!(port->flags & PORT_FORWARDING))
		return FORWARDING_OFF;
	if (!is_unicast(inner->destination) || is_martian(inner->source))
		return NOT_UNICAST;
	if (inner->ttl <= 1)
		return TTL_EXPIRING;
	struct tunnel *tunnel;
	struct next_hop *hop;
	u32 outcome = ready(port, ID(entry), size, &tunnel, &hop);
	if (outcome != ENCAPSULATED)
		return outcome;
	if (!reverse_path(ctx, port, inner->source))
		return REVERSE_PATH;
	if (!redirect(hop))
		return EGRESS_WITHOUT_XDP;
	if (bpf_xdp_adjust_head(ctx, -(int)tunnel->overhead))
		return NO_HEADROOM;
	return write_outer(ctx, ID(entry), tunnel, hop, inner);
}

/* --- out of a tunnel -------------------------------------------------------------------------- */

enum kind { KEYLESS = 0, KEYED = 1, PAIR = 2 };

/* The tunnel of this key; of a pair of addresses, any. */
INLINE struct tunnel *find(u32 local, u32 remote, enum kind kind, u32 key, u32 *id)
{
	u64 hash = (u64)local << 32 | remote;
	hash = (hash ^ hash >> 33) * 0xff51afd7ed558ccd;
	hash ^= (u64)kind << 32 | key;
	hash = (hash ^ hash >> 33) * 0xc4ceb9fe1a85ec53;
	hash ^= hash >> 29;
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
			if (tunnel && tunnel->outer[3] == local && tunnel->outer[4] == remote &&
			    (kind == PAIR || (!!(tunnel->flags & TUNNEL_KEY) == (kind == KEYED) &&
					      tunnel->key == key))) {
				*id = found - 1;
				return tunnel;
			}
		}
		number ^= (fingerprint * 0x5bd1e995 | 1) & DEMUX_MASK;
	}
	return 0;
}

/* Reads the GRE header. Returns an outcome that stops it, or ENCAPSULATED. */
INLINE u32 read_gre(void *data, void *end, u32 outer_len, struct received *received, u32 *key)
{
	struct gre *gre = data + sizeof(struct ethernet) + sizeof(struct ipv4);
	u32 room = outer_len - sizeof(struct ipv4);
	if ((void *)(gre + 1) > end || room < sizeof(*gre))
		return GRE_TRUNCATED;
	u16 flags = gre->flags;
	if (flags & GRE_VERSION)
		return (flags & GRE_VERSION) == BE16(1) ? PPTP : GRE_VERSION_WRONG;
	if (flags & GRE_ROUTING)
		return GRE_ROUTING_SET;
	if (flags & GRE_RESERVED)
		return GRE_RESERVED_SET;
	u32 key_at = flags & GRE_CHECKSUM ? 8 : 4;
	u32 len = key_at + (flags & GRE_KEY ? 4 : 0) + (flags & GRE_SEQUENCE ? 4 : 0);
	if (room < len)
		return GRE_TRUNCATED;
	*key = 0;
	if (flags & GRE_KEY) {
		u32 *word = (void *)gre + key_at;
		if ((void *)(word + 1) > end)
			return GRE_TRUNCATED;
		*key = *word;
	}
	received->gre = *gre;
	received->overhead = sizeof(struct ipv4) + len;
	return ENCAPSULATED;
}

/* Returns ENCAPSULATED with a tunnel, or without one where it is not ours; else why it stops. */
INLINE u32 receive(void *data, void *end, const struct ipv4 *outer, struct received *received,
		   u32 *blame)
{
	u32 local = outer->destination, remote = outer->source, key, id;
	received->tunnel = 0;
	if (outer->fragment & FRAGMENT)
		return find(local, remote, PAIR, 0, &id) ? OUTER_FRAGMENT : ENCAPSULATED;
	u32 refusal = read_gre(data, end, BE16(outer->total_len), received, &key);
	int keyed = refusal == ENCAPSULATED && received->gre.flags & GRE_KEY;
	if (refusal == ENCAPSULATED) {
		struct tunnel *tunnel =
			find(local, remote, keyed ? KEYED : KEYLESS, key, &received->id);
		if (tunnel) {
			if (!(tunnel->flags & TUNNEL_UP))
				return TUNNEL_DOWN;
			received->tunnel = tunnel;
			return ENCAPSULATED;
		}
	}
	struct tunnel *other = find(local, remote, PAIR, 0, &id);
	if (!other)
		return ENCAPSULATED;
	if (refusal == PPTP)
		return PPTP;
	*blame = id;
	if (refusal != ENCAPSULATED)
		return refusal;
	if (keyed)
		return other->flags & TUNNEL_KEY ? KEY_MISMATCH : KEY_UNEXPECTED;
	return other->flags & TUNNEL_KEY ? KEY_MISSING : KEY_MISMATCH;
}

/* Whether the inner packet may be let out of the tunnel: DECAPSULATED, or why not. */
INLINE u32 inspect(void *data, void *end, u32 outer_len, const struct received *received,
		   struct ipv4 *inner)
{
	if (received->gre.flags & GRE_CHECKSUM)
		return CHECKSUM_UNEXPECTED;
	if (received->gre.protocol != ETHERTYPE_IPV4)
		return PROTOCOL_UNSUPPORTED;
	u32 room = outer_len - received->overhead;
	struct ipv4 *header = data + sizeof(struct ethernet) + received->overhead;
	if ((void *)(header + 1) > end || room < sizeof(*header) || room > 0xffff)
		return INNER_TRUNCATED;
	*inner = *header;
	u32 header_len = (inner->version_length & 0xf) * 4;
	u32 len = BE16(inner->total_len);
	if (inner->version_length >> 4 != 4 || header_len < sizeof(*header))
		return INNER_MALFORMED;
	if (len < header_len)
		return INNER_MALFORMED;
	if (len > room)
		return INNER_TRUNCATED;
	if (inner->version_length == 0x45 && sum_ipv4(inner) != 0xffff)
		return INNER_CHECKSUM;
	if (is_martian(inner->source))
		return INNER_MARTIAN;
	return DECAPSULATED;
}

INLINE u32 decapsulate(struct xdp_md *ctx, const struct port *port, void *data, void *end,
		       u32 outer_len, const struct received *received, u32 *blame)
{
	struct ipv4 inner;
	u32 outcome = inspect(data, end, outer_len, received, &inner);
	if (outcome != DECAPSULATED) {
		*blame = received->id;
		return outcome;
	}
	u32 len = BE16(inner.total_len), from = TO_TUNNEL << 30 | received->id;
	u32 size = (u32)(end - data) - (sizeof(struct ethernet) + received->overhead);
	u32 entry = route(inner.destination), flags = received->tunnel->flags;
	int unicast = is_unicast(inner.destination);
	if (entry == from && unicast) {
		*blame = received->id;
		return LOOP;
	}
	struct tunnel *tunnel = 0;
	struct next_hop *hop = 0;
	if (flags & TUNNEL_FORWARDING && inner.version_length == 0x45 && inner.ttl > 1 && unicast &&
	    !(flags & TUNNEL_REVERSE_PATH_STRICT && route(inner.source) != from) &&
	    !(flags & TUNNEL_REVERSE_PATH_LOOSE && KIND(route(inner.source)) == PUNT)) {
		if (KIND(entry) == TO_NEXT_HOP) {
			hop = at(&NEXT_HOPS, ID(entry));
			if (hop && !(hop->flags & HOP_RESOLVED && size <= hop->mtu &&
				     can_redirect(port, hop)))
				hop = 0;
		} else if (KIND(entry) == TO_TUNNEL) {
			if (ready(port, ID(entry), size, &tunnel, &hop) != ENCAPSULATED)
				tunnel = 0, hop = 0;
		}
	}
	int to_device = !hop;
	if (to_device) {
		if (size > received->tunnel->mtu)
			return TOO_BIG;
		hop = at(&NEXT_HOPS, received->tunnel->device);
		if (!hop)
			return TUNNEL_DOWN;
		if (!can_redirect(port, hop))
			return EGRESS_WITHOUT_XDP;
	}
	if (!redirect(hop))
		return EGRESS_WITHOUT_XDP;
	int surplus = received->overhead;
	if (tunnel)
		surplus -= tunnel->overhead;
	if ((!tunnel || surplus) && bpf_xdp_adjust_head(ctx, surplus))
		return NO_HEADROOM;
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

INLINE u32 forward(struct xdp_md *ctx, u32 *blame)
{
	struct port *port = at(&PORTS, ctx->ingress_ifindex);
	if (!port || !(port->flags & PORT_VALID))
		return UNKNOWN_PORT;
	void *data = DATA(ctx), *end = DATA_END(ctx);
	struct ethernet *ethernet = data;
	if ((void *)(ethernet + 1) > end)
		return NOT_IPV4;
	if (*(u32 *)data != *(u32 *)port || ethernet->destination[2] != port->mac[2])
		return OTHER_HOST;
	if (ethernet->type != ETHERTYPE_IPV4)
		return NOT_IPV4;
	struct ipv4 *at = data + sizeof(*ethernet);
	if ((void *)(at + 1) > end)
		return IPV4_MALFORMED;
	struct ipv4 header = *at;
	if (header.version_length != 0x45)
		return header.version_length >> 4 == 4 && (header.version_length & 0xf) > 5
			       ? IPV4_OPTIONS
			       : IPV4_MALFORMED;
	u32 len = BE16(header.total_len);
	if (len < sizeof(header) || (u32)(end - data) < sizeof(*ethernet) + len ||
	    sum_ipv4(&header) != 0xffff)
		return IPV4_MALFORMED;
	if (header.protocol == PROTOCOL_GRE) {
		struct received received;
		u32 outcome = receive(data, end, &header, &received, blame);
		if (outcome != ENCAPSULATED)
			return outcome;
		if (received.tunnel)
			return decapsulate(ctx, port, data, end, len, &received, blame);
	}
	return encapsulate(ctx, port, &header, (u32)(end - data) - sizeof(*ethernet));
}

SEC("xdp.frags") int gateway(struct xdp_md *ctx)
{
	u32 blame = NO_TUNNEL;
	u32 outcome = forward(ctx, &blame);
	if (blame != NO_TUNNEL) {
		struct outcome_counters *drops = at(&TUNNEL_DROPS, blame);
		if (drops)
			__sync_fetch_and_add(&drops->counts[outcome & (MAX_OUTCOMES - 1)], 1);
	}
	struct outcome_counters *outcomes =
		at(&OUTCOMES, bpf_get_smp_processor_id() * TIERS + TIER_XDP);
	if (outcomes)
		outcomes->counts[outcome & (MAX_OUTCOMES - 1)] += 1;
	if (outcome <= TO_DEVICE)
		return XDP_REDIRECT;
	if (outcome <= PPTP)
		return XDP_PASS;
	return outcome == ABORTED ? XDP_ABORTED : XDP_DROP;
}
