//! TOS bytes by name and number, as iproute2 reads and prints them.

/// iproute2's `rt_dsfield`, as Debian ships it. RFC 2474, 2597 and 3246.
const NAMES: [(u8, &str); 21] = [
    (0x00, "default"),
    (0x28, "AF11"),
    (0x30, "AF12"),
    (0x38, "AF13"),
    (0x48, "AF21"),
    (0x50, "AF22"),
    (0x58, "AF23"),
    (0x68, "AF31"),
    (0x70, "AF32"),
    (0x78, "AF33"),
    (0x88, "AF41"),
    (0x90, "AF42"),
    (0x98, "AF43"),
    (0x20, "CS1"),
    (0x40, "CS2"),
    (0x60, "CS3"),
    (0x80, "CS4"),
    (0xa0, "CS5"),
    (0xc0, "CS6"),
    (0xe0, "CS7"),
    (0xb8, "EF"),
];

/// A name, or a number that is hexadecimal with or without `0x`.
pub(super) fn parse(text: &str) -> Option<u8> {
    if let Some((tos, _)) = NAMES.iter().find(|(_, name)| *name == text) {
        return Some(*tos);
    }
    let digits = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")).unwrap_or(text);
    u8::from_str_radix(digits, 16).ok()
}

pub(super) fn name(tos: u8) -> String {
    match NAMES.iter().find(|(known, _)| *known == tos) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("{tos:#04x}"),
    }
}
