//! What is compared of two outputs. What must differ is named here, with the reason.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Map, Value};

/// The lines of one tunnel of `tunnel show`, without ours, which begin with its state.
pub(super) fn tunnel_text(text: &str, name: &str) -> String {
    let own = format!("{name}: ");
    let mut lines = Vec::new();
    for line in text.lines().skip_while(|line| !line.starts_with(&own)) {
        let is_next = !line.starts_with(&own) && !line.starts_with([' ', 'R', 'T']);
        if is_next || line.starts_with("    state ") {
            break;
        }
        let end = line.find("\\    state ").unwrap_or(line.len());
        lines.push(&line[..end]);
    }
    lines.join("\n")
}

/// Words of `link show` whose value is that of our device, a veth, and not of a tunnel of the kernel's:
/// what it can take and cut, its queues, and that it makes no IPv6 addresses.
const OF_DEVICE: [&str; 10] = [
    "minmtu",
    "maxmtu",
    "addrgenmode",
    "numtxqueues",
    "numrxqueues",
    "gso_max_size",
    "gso_max_segs",
    "tso_max_size",
    "tso_max_segs",
    "gro_max_size",
];
/// The same in JSON.
const KEYS_OF_DEVICE: [&str; 11] = [
    "ifindex",
    "min_mtu",
    "max_mtu",
    "inet6_addr_gen_mode",
    "num_tx_queues",
    "num_rx_queues",
    "gso_max_size",
    "gso_max_segs",
    "tso_max_size",
    "tso_max_segs",
    "gro_max_size",
];

/// What `link show` prints of one device, without our lines; nothing where it does not show it.
pub(super) fn device_text(text: &str, name: &str) -> String {
    let own = format!("{name}@");
    // Behind its index, or in brief without one.
    let is_own = |line: &&str| line.split(": ").any(|start| start.starts_with(&own));
    let mut lines = text.lines().skip_while(|line| !is_own(line));
    let Some(first) = lines.next() else { return String::new() };
    let rest = lines.take_while(|line| line.starts_with(' ') && !line.starts_with("    state "));
    let end = first.find("\\    state ").unwrap_or(first.len());
    let lines: Vec<_> = [&first[..end]].into_iter().chain(rest).collect();
    let is_ethernet = lines.iter().any(|line| line.contains("link/ether"));
    let mut lines: Vec<_> = lines.into_iter().map(|line| device_line(line, is_ethernet)).collect();
    without_transitions(&mut lines);
    lines.join("\n")
}

/// How often a device has come up: a veth does when its other end does, the kernel's tunnel never.
fn without_transitions(lines: &mut [String]) {
    if let Some(at) = lines.iter().position(|line| line.contains("TX errors:"))
        && let Some(numbers) = lines.get_mut(at + 1)
    {
        let kept = numbers.trim_end().rfind(' ').unwrap_or_default();
        numbers.truncate(kept);
    }
}

fn device_line(line: &str, is_ethernet: bool) -> String {
    let mut words: Vec<String> = line.split(' ').map(str::to_owned).collect();
    if words[0].ends_with(':') && words[0].len() < 6 && words[0].as_bytes()[0].is_ascii_digit() {
        words[0] = "IFINDEX:".into();
    }
    for at in 1..words.len() {
        let of_device = OF_DEVICE.contains(&words[at - 1].as_str());
        // What queues frames: a veth nothing, the kernel's gretap what is the default.
        let queues = is_ethernet && words[at - 1] == "qdisc";
        if of_device || queues {
            words[at] = "VALUE".into();
        }
    }
    // The kernel's ip6gre has one, which means nothing.
    if let Some(at) = words.iter().position(|word| word == "permaddr") {
        words.drain(at..=at + 1);
    }
    words.join(" ")
}

/// What differs between the objects of one tunnel or device, if anything: each key of `ip`'s is in ours
/// with its value and in its place, and ours has more only after those.
pub(super) fn json(kernel: &str, ours: &str, name: &str) -> Result<Option<String>> {
    let [theirs, own] = [kernel, ours].map(|text| object(text, name));
    let (theirs, own) = (theirs.context("ip")?, own.context("xgre")?);
    for (key, value) in &theirs {
        let is_queue = key == "qdisc" && theirs.get("link_type") == Some(&"ether".into());
        if is_queue || KEYS_OF_DEVICE.contains(&key.as_str()) {
            ensure!(own.contains_key(key), "xgre has no {key}");
            continue;
        }
        if key == "permaddr" {
            continue;
        }
        let found = own.get(key).map(without_changes);
        if found.as_ref() != Some(&without_changes(value)) {
            return Ok(Some(format!("{key}\n  ip   {value}\n  xgre {:?}", own.get(key))));
        }
    }
    let [theirs, own] = [kernel, ours].map(|text| keys(text, name));
    let mut rest = own.iter();
    let missing =
        theirs.iter().filter(|key| *key != "permaddr").find(|key| !rest.any(|own| own == *key));
    Ok(missing.map(|key| format!("{key} is out of its order\n  ip   {theirs:?}\n  xgre {own:?}")))
}

/// As [`without_transitions`].
fn without_changes(value: &Value) -> Value {
    let mut value = value.clone();
    if let Some(sent) = value.get_mut("tx").and_then(Value::as_object_mut) {
        sent.remove("carrier_changes");
    }
    value
}

fn object(text: &str, name: &str) -> Result<Map<String, Value>> {
    let list: Vec<Map<String, Value>> =
        serde_json::from_str(text).with_context(|| format!("no list of objects: {text}"))?;
    let found = list.into_iter().find(|object| object.get("ifname") == Some(&name.into()));
    found.with_context(|| format!("{name} is not in {text}"))
}

/// Those of its object in their order, nested ones too; those before the name are not of this object alone.
fn keys(text: &str, name: &str) -> Vec<String> {
    let start = text.find(&format!("\"ifname\":\"{name}\"")).unwrap_or_default();
    // The next object begins with its index, or where it has none with its name.
    let ends = ["{\"ifindex\"", "{\"link\"", "{\"ifname\""];
    let end = ends.iter().filter_map(|end| text[start..].find(end)).min();
    let quoted: Vec<_> = text[start..][..end.unwrap_or(text.len() - start)].split('"').collect();
    let of_key = |(key, rest): (&str, &str)| rest.starts_with(':').then(|| key.to_owned());
    quoted.windows(2).filter_map(|pair| of_key((pair[0], pair[1]))).collect()
}

/// What is said first, of `xgre` as of `ip`.
pub(super) fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().trim_end().replace("xgre", "ip")
}
