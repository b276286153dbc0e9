//! From tunnels to a config file: what is right in it stays, comments too.

use std::collections::BTreeMap;

use toml_edit::{ArrayOfTables, DocumentMut, Item, Table};

use super::{ConfigError, adopt::adopt as value_of_adopt, options::options, parse};
use crate::model::{Adopt, Tunnel};

/// The text of the config file `name` with exactly these tunnels, and these of the kernel's own adopted;
/// `text` is what it says now, which may be nothing.
///
/// # Errors
/// When the file cannot be read as it is.
pub fn save(
    name: &str,
    text: &str,
    tunnels: &[Tunnel],
    adopt: &Adopt,
) -> Result<String, ConfigError> {
    let before = parse(name, text)?;
    // It has been parsed just now.
    let mut document: DocumentMut = text.parse().unwrap_or_default();
    let mut missing: BTreeMap<_, _> =
        tunnels.iter().map(|tunnel| (tunnel.name.as_str(), tunnel)).collect();
    let item = document.entry("tunnel").or_insert(Item::ArrayOfTables(ArrayOfTables::new()));
    if let Item::Value(value) = item {
        // `tunnel = [{...}]`
        let made = std::mem::replace(value, toml_edit::Array::new().into());
        *item =
            Item::Value(made).into_array_of_tables().map_or_else(|same| same, Item::ArrayOfTables);
    }
    if let Some(tables) = item.as_array_of_tables_mut() {
        tables.retain(|table| named(table).is_some_and(|name| missing.contains_key(name)));
        for table in tables.iter_mut() {
            if let Some(tunnel) = named(table).and_then(|name| missing.remove(name))
                && before.tunnels.get(&tunnel.name) != Some(tunnel)
            {
                change(table, before.tunnels.get(&tunnel.name), tunnel);
            }
        }
        for tunnel in missing.into_values() {
            let mut table = Table::new();
            change(&mut table, None, tunnel);
            tables.push(table);
        }
    }
    if before.adopt != *adopt {
        match value_of_adopt(adopt) {
            // Keys of the file itself come before its tables, wherever it was said until now.
            Some(value) => {
                document.remove("adopt");
                document.insert("adopt", toml_edit::value(value));
            }
            None => _ = document.remove("adopt"),
        }
    }
    Ok(document.to_string())
}

fn named(table: &Table) -> Option<&str> {
    table.get("name")?.as_str()
}

/// Sets what differs, and takes out what is not said any more; other names of the same key too.
fn change(table: &mut Table, old: Option<&Tunnel>, new: &Tunnel) {
    let said = |tunnel| -> BTreeMap<_, _> {
        options(tunnel).into_iter().map(|(key, value)| (key, value.to_string())).collect()
    };
    let (before, after) = (old.map(said).unwrap_or_default(), said(new));
    for key in before.keys().filter(|key| !after.contains_key(*key)) {
        for key in spellings(key) {
            table.remove(key);
        }
    }
    for (key, value) in options(new) {
        if before.get(key) != after.get(key) {
            for key in spellings(key) {
                table.remove(key);
            }
            table.insert(key, toml_edit::value(value));
        }
    }
}

/// Keys that say the same, or part of it.
fn spellings(key: &'static str) -> impl Iterator<Item = &'static str> {
    let others: &[&str] = match key {
        "ttl" => &["hoplimit"],
        "tos" => &["tclass"],
        "key" => &["ikey", "okey"],
        "ikey" | "okey" => &["key"],
        "csum" => &["icsum", "ocsum"],
        "icsum" | "ocsum" => &["csum"],
        "seq" => &["iseq", "oseq"],
        "iseq" | "oseq" => &["seq"],
        _ => &[],
    };
    std::iter::once(key).chain(others.iter().copied())
}
